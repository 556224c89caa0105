"""Interactions of users with items as sorted CSR rows: the one in-memory form of a split."""

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor


@dataclass(frozen=True)
class Segments:
    """Ragged rows: row b holds ``values[offsets[b] : offsets[b + 1]]``.

    Attributes:
        values: (M,) entries of all rows, one row after the other.
        offsets: (B + 1,) int64, from 0 to M.
    """

    values: Tensor
    offsets: Tensor

    @cached_property
    def lengths(self) -> Tensor:
        """(B,) entries per row."""
        return self.offsets.diff()

    @cached_property
    def rows(self) -> Tensor:
        """(M,) row of each entry."""
        return torch.repeat_interleave(self.lengths, output_size=len(self.values))

    def sum(self) -> Tensor:
        """(B,) sum of each row; an empty row gives 0."""
        return self.values.new_zeros(len(self.lengths)).index_add(0, self.rows, self.values)

    def with_values(self, values: Tensor) -> "Segments":
        """The same rows with other entries."""
        segments = replace(self, values=values)
        segments.__dict__.update(rows=self.rows, lengths=self.lengths)
        return segments


class Interactions:
    """Distinct (user, item) pairs, sorted by user, then item.

    Args:
        user: (n,) user indices in ``0 .. n_users - 1``.
        item: (n,) item indices in ``0 .. n_items - 1``.
        n_users: number of users, with or without interactions.
        n_items: size of the catalogue.

    Raises:
        ValueError: for indices out of range, of different lengths or not integers, or a repeated pair.
    """

    def __init__(self, user: Tensor, item: Tensor, n_users: int, n_items: int) -> None:
        if user.shape != item.shape or user.dim() != 1 or user.is_floating_point() or item.is_floating_point():
            given = f"{user.dtype} {tuple(user.shape)} and {item.dtype} {tuple(item.shape)}"
            raise ValueError(f"user and item must be integers of one shape (n,), got {given}")
        user, item = user.to(torch.int64), item.to(torch.int64)
        for name, index, size in (("user", user, n_users), ("item", item, n_items)):
            if len(index) and not 0 <= int(index.min()) <= int(index.max()) < size:
                raise ValueError(
                    f"{name} indices must lie in 0..{size - 1}, got {int(index.min())}..{int(index.max())}"
                )
        self.n_users, self.n_items = n_users, n_items
        self.keys: Tensor = torch.sort(user * n_items + item).values
        """(n,) ``user * n_items + item``, ascending."""
        if bool((self.keys[1:] == self.keys[:-1]).any()):
            raise ValueError("a (user, item) pair occurs more than once")
        self.user = self.keys // n_items
        self.item = self.keys - self.user * n_items
        self.degrees = torch.bincount(self.user, minlength=n_users)
        """(n_users,) interactions per user."""
        self.offsets = torch.cat([self.degrees.new_zeros(1), self.degrees.cumsum(0)])
        """(n_users + 1,) first row of each user."""

    @classmethod
    def from_arrays(
        cls, keys: Tensor, user: Tensor, item: Tensor, degrees: Tensor, offsets: Tensor, n_items: int
    ) -> "Interactions":
        """Interactions from what they consist of (see the attributes): nothing is checked, sorted, copied or written.

        All are int64; ``user`` and ``item`` are those of ``keys``.
        """
        made = object.__new__(cls)
        made.__dict__ = {
            "n_users": len(degrees), "n_items": n_items,
            "keys": keys, "user": user, "item": item, "degrees": degrees, "offsets": offsets,
        }  # fmt: skip
        return made

    def __len__(self) -> int:
        return len(self.keys)

    def to(self, device: torch.device) -> "Interactions":
        """The same interactions on another device."""
        moved = object.__new__(Interactions)
        moved.__dict__ = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in self.__dict__.items()}
        return moved

    def of(self, users: Tensor) -> Segments:
        """Items of each of ``users`` (B,), in ascending order."""
        lengths = self.degrees[users]
        offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        total = int(offsets[-1])
        start = torch.repeat_interleave(self.offsets[users] - offsets[:-1], lengths, output_size=total)
        return Segments(self.item[start + torch.arange(total, device=start.device)], offsets)

    def places(self, users: Tensor, items: Tensor) -> Tensor:
        """Place of each (user, item), of any one shape, among the interactions, which must hold it."""
        return torch.searchsorted(self.keys, users * self.n_items + items)

    def contains(self, users: Tensor, items: Tensor) -> Tensor:
        """Whether each (user, item) pair, of any one shape, is an interaction."""
        if not len(self.keys):
            return torch.zeros_like(items, dtype=torch.bool)
        keys = users * self.n_items + items
        place = torch.searchsorted(self.keys, keys).clamp_(max=len(self.keys) - 1)
        return self.keys[place] == keys

    def without(self, others: "Interactions") -> "Interactions":
        """The interactions that are not among ``others``."""
        kept = ~others.contains(self.user, self.item)
        return Interactions(self.user[kept], self.item[kept], self.n_users, self.n_items)
