"""Lists of documents with features and grades: the one in-memory form of a split of a learning-to-rank data set."""

import torch
from torch import Tensor

from recloss.randomness import row_states

PADDING = -1.0
"""The grade of a place in a padded list that holds no document."""


class Lists:
    """The documents of each query, in a fixed order.

    Args:
        features: (n, F) float32 features of all documents, those of one query after the other's.
        grades: (n,) float32 relevance of each document, from 0 (not relevant) up.
        offsets: (Q + 1,) int64; query q has rows ``offsets[q] : offsets[q + 1]``, and may have none.

    Raises:
        ValueError: for other shapes or types, a grade below 0, a number that is not finite, or offsets that do not
            ascend from 0 to n.
    """

    def __init__(self, features: Tensor, grades: Tensor, offsets: Tensor) -> None:
        n = len(grades)
        if features.dim() != 2 or features.shape[1] == 0 or grades.shape != features.shape[:1]:
            given = f"{tuple(features.shape)} and {tuple(grades.shape)}"
            raise ValueError(f"features and grades must have shapes (n, F) and (n,) with F above 0, got {given}")
        if features.dtype != torch.float32 or grades.dtype != torch.float32:
            raise ValueError(f"features and grades must be float32, got {features.dtype} and {grades.dtype}")
        ascend = len(offsets) > 0 and int(offsets[0]) == 0 and int(offsets[-1]) == n
        if not ascend or bool((offsets.diff() < 0).any()):
            raise ValueError(f"offsets must ascend from 0 to the number of documents, {n}")
        if n and not (bool(features.isfinite().all()) and bool(grades.isfinite().all()) and float(grades.min()) >= 0):
            raise ValueError("features must be finite numbers, and grades finite numbers of at least 0")
        self.features, self.grades, self.offsets = features, grades, offsets

    @classmethod
    def from_arrays(cls, features: Tensor, grades: Tensor, offsets: Tensor) -> "Lists":
        """The same as the constructor; nothing is checked."""
        made = object.__new__(cls)
        made.features, made.grades, made.offsets = features, grades, offsets
        return made

    def __len__(self) -> int:
        """Documents of all queries."""
        return len(self.grades)

    @property
    def n_queries(self) -> int:
        """Number of queries, with or without documents."""
        return len(self.offsets) - 1

    @property
    def n_features(self) -> int:
        """F."""
        return self.features.shape[1]

    @property
    def lengths(self) -> Tensor:
        """(Q,) documents per query."""
        return self.offsets.diff()

    @property
    def query(self) -> Tensor:
        """(n,) query of each document."""
        return torch.repeat_interleave(self.lengths, output_size=len(self))

    def places(self, queries: Tensor, *, slate: int | None = None, key: int = 0) -> Tensor:
        """(B, L) int64 rows of the documents of ``queries`` (B,), in their order, padded on the right with -1.

        Args:
            queries: B numbers of queries.
            slate: the most documents of a query; of a longer list so many are drawn, without replacement.
            key: of the random stream; which documents of a query are drawn does not depend on the other ``queries``.
        """
        lengths = self.lengths[queries]
        width = max(1, int(lengths.max())) if len(queries) else 1
        within = torch.arange(width, device=lengths.device)
        places = torch.where(within < lengths[:, None], self.offsets[queries, None] + within, -1)
        if slate is None or width <= slate:
            return places
        drawn = row_states(key, places).masked_fill_(places < 0, torch.iinfo(torch.int64).max)
        kept = drawn.argsort(dim=1, stable=True)[:, :slate].sort(1).values
        return places.gather(1, kept)

    def at(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """(B, L, F) features and (B, L) grades of rows (B, L) as `places` gives them; 0 and ``PADDING`` for -1."""
        missing = places < 0
        if not len(self):
            return self.features.new_zeros(*places.shape, self.n_features), torch.full_like(places, PADDING).float()
        row = places.clamp(min=0)
        features = self.features[row].masked_fill_(missing[:, :, None], 0)
        return features, self.grades[row].masked_fill_(missing, PADDING)

    def padded(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """(B, L, F) features and (B, L) grades of all documents of ``queries`` (B,), L those of the longest list.

        Places that hold no document have features of 0 and a grade of ``PADDING``, -1.
        """
        return self.at(self.places(queries))

    def of(self, queries: Tensor) -> "Lists":
        """The lists of ``queries`` (B,) alone, in that order."""
        places = self.places(queries)
        row = places[places >= 0]
        lengths = self.lengths[queries]
        offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        return Lists.from_arrays(self.features[row], self.grades[row], offsets)

    def to(self, device: torch.device) -> "Lists":
        """The same lists on another device."""
        return Lists.from_arrays(self.features.to(device), self.grades.to(device), self.offsets.to(device))
