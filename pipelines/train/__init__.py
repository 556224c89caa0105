"""Training of one trial, with all that is in its folder: journal, checkpoint, model, log and scores."""
