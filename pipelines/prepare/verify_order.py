"""Whether the splits of prepared sequences are whole sequences, one after the other."""

import numpy as np
from numpy.typing import NDArray

from pipelines.prepare.dataset import SPLITS


class Places:
    """Per user and split: how many positions there are, and between which."""

    def __init__(self, n_users: int):
        self.count = {split: np.zeros(n_users, np.int64) for split in SPLITS}
        self.least = {split: np.full(n_users, np.iinfo(np.int64).max) for split in SPLITS}
        self.most = {split: np.full(n_users, -1) for split in SPLITS}

    def add(self, split: str, users: NDArray[np.int64], positions: NDArray[np.int64]) -> None:
        """More rows of a split, sorted by user, then position, in which no position comes twice."""
        starts = np.flatnonzero(np.diff(users, prepend=-1))
        own, ends = users[starts], np.append(starts[1:], len(users)) - 1
        self.count[split][own] += ends - starts + 1
        self.least[split][own] = np.minimum(self.least[split][own], positions[starts])
        self.most[split][own] = np.maximum(self.most[split][own], positions[ends])

    def broken(self) -> int:
        """Users whose positions are not 0, 1, 2, ... with train before validation before test."""
        whole, before = np.ones(len(self.count["train"]), bool), np.zeros(len(self.count["train"]), np.int64)
        for split in SPLITS:
            after = before + self.count[split]
            whole &= (self.count[split] == 0) | ((self.least[split] == before) & (self.most[split] == after - 1))
            before = after
        return int((~whole).sum())
