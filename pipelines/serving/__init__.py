"""From a finished trial to top items for users: snapshots, registered models, recommendations and embeddings.

`pipelines.tracking.served` ranks; it is the code of a registered model, too, so that all of these agree.
"""
