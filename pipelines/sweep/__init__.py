"""A sweep: all its trials, from the plan to the selected configurations, on Ray Tune."""
