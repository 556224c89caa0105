"""Public data sets: fetched from where they are published, checked and cached. None is part of recloss."""

from pipelines.public.fetching import cache, fetch
from pipelines.public.registry import described, named, prepare_command, public_datasets, readable

__all__ = ["cache", "described", "fetch", "named", "prepare_command", "public_datasets", "readable"]
