"""Whether a prepared dataset of the task ``rank`` has each query in one split alone."""

from pathlib import Path

import numpy as np

from pipelines.doctor import Check
from pipelines.prepare.dataset import SPLITS, shards
from recloss.errors import InputError


def whole_queries(path: Path) -> Check:
    """No query is in two splits."""
    try:
        queries = [np.unique(np.concatenate([users for users, _ in shards(path, split)])) for split in SPLITS]
    except InputError as error:
        return Check("queries", False, str(error), "remove it and prepare it again")
    counts = np.unique(np.concatenate(queries), return_counts=True)[1]
    several = int((counts > 1).sum())
    detail = f"{several:,} queries are in two splits" if several else "no query is in two splits"
    return Check("queries", several == 0, detail, "remove it and prepare it again")
