"""Users' items in the order of time, and the training rows that are cut from them."""

from collections.abc import Iterator
from typing import Literal, get_args

import torch
from torch import Tensor

from recloss.errors import require, require_one_of
from recloss.interactions import Interactions
from recloss.randomness import permutation, stream_key


class Sequences:
    """Items of each user, oldest first; an item may come again.

    Args:
        items: (n,) int64 items of all users, one user after the other.
        offsets: (n_users + 1,) int64; user u has ``items[offsets[u] : offsets[u + 1]]``.
        n_items: size of the catalogue.

    Raises:
        ValueError: for items out of range, or offsets that do not ascend from 0 to n.
    """

    def __init__(self, items: Tensor, offsets: Tensor, n_items: int) -> None:
        ascend = len(offsets) > 0 and int(offsets[0]) == 0 and int(offsets[-1]) == len(items)
        if not ascend or bool((offsets.diff() < 0).any()):
            raise ValueError(f"offsets must ascend from 0 to the number of items, {len(items)}")
        if len(items) and not 0 <= int(items.min()) <= int(items.max()) < n_items:
            raise ValueError(f"items must lie in 0..{n_items - 1}, got {int(items.min())}..{int(items.max())}")
        self.items, self.offsets, self.n_items = items, offsets, n_items

    @classmethod
    def from_arrays(cls, items: Tensor, offsets: Tensor, n_items: int) -> "Sequences":
        """The same as the constructor; nothing is checked."""
        made = object.__new__(cls)
        made.items, made.offsets, made.n_items = items, offsets, n_items
        return made

    @classmethod
    def from_rows(cls, user: Tensor, item: Tensor, order: Tensor, n_users: int, n_items: int) -> "Sequences":
        """Sequences from (n,) rows in any order: by ``order`` (a position or a time), equal ones as they come."""
        by_order = order.argsort(stable=True)
        by_user = user[by_order].argsort(stable=True)
        degrees = torch.bincount(user, minlength=n_users)
        require(len(degrees) == n_users, f"users must lie in 0..{n_users - 1}, got {len(degrees) - 1}")
        return cls(item[by_order[by_user]], torch.cat([degrees.new_zeros(1), degrees.cumsum(0)]), n_items)

    def __len__(self) -> int:
        return len(self.items)

    @property
    def n_users(self) -> int:
        """Number of users, with or without items."""
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Tensor:
        """(n_users,) items per user."""
        return self.offsets.diff()

    @property
    def user(self) -> Tensor:
        """(n,) user of each item."""
        return torch.repeat_interleave(self.lengths, output_size=len(self.items))

    def interactions(self) -> Interactions:
        """The distinct (user, item) pairs."""
        keys = (self.user * self.n_items + self.items).unique()
        return Interactions(keys // self.n_items, keys % self.n_items, self.n_users, self.n_items)

    def followed_by(self, others: "Sequences") -> "Sequences":
        """Each user's items, then those of ``others``: of the same users and catalogue."""
        user, items = torch.cat([self.user, others.user]), torch.cat([self.items, others.items])
        return Sequences.from_arrays(items[user.argsort(stable=True)], self.offsets + others.offsets, self.n_items)

    def to(self, device: torch.device) -> "Sequences":
        """The same sequences on another device."""
        return Sequences.from_arrays(self.items.to(device), self.offsets.to(device), self.n_items)

    def windows(self, users: Tensor, ends: Tensor, width: int) -> Tensor:
        """(B, width) the items of ``users`` (B,) before place ``ends`` (B,), the last ones on the right.

        Shorter histories are padded on the left with ``n_items``, which is no item.
        """
        place = ends[:, None] + torch.arange(-width, 0, device=ends.device)
        missing = place < 0
        if not len(self.items):
            return torch.full_like(place, self.n_items)
        found = self.items[place.add_(self.offsets[users, None]).masked_fill_(missing, 0)]
        return found.masked_fill_(missing, self.n_items)


Positions = Literal["all", "sliding", "last"]


class Windows:
    """The batches of each pass over sequences, as `recloss.training.fit` takes them by ``positives=``.

    A row is a place in a user's sequence, whose item is the positive and whose history is what comes before; the first
    item of a user is no positive. Rows carry ``windows`` (B, 2): their place, and the place of the last row that shares
    their history's window.

    * "all": the last ``length`` places of each user, computed from one window; the state of each sees the items before
      it in that window.
    * "sliding": every place, each from a window of its own: the ``length`` items before it.
    * "last": the last place of each user, from the ``length`` items before it.

    Args:
        sequences: the training sequences.
        positions: "all", "sliding" or "last".
        length: items in a window at most; the backbone's.
        batch_size: windows per batch; with "all" a batch has as many rows as these have places.
        seed: of the order of windows.

    Raises:
        ValueError: for an unknown ``positions``, a size below 1, or if no user has two items.
    """

    def __init__(
        self, sequences: Sequences, *, positions: Positions = "all", length: int, batch_size: int, seed: int
    ) -> None:
        require_one_of("positions", positions, get_args(Positions))
        for name, value in (("length", length), ("batch_size", batch_size)):
            require(value >= 1, f"{name} must be at least 1, got {value!r}")
        self.sequences, self.batch_size, self.seed = sequences, batch_size, seed
        followers = (sequences.lengths - 1).clamp_(min=0)
        if positions == "sliding":
            self._user = torch.repeat_interleave(followers)
            before = (followers.cumsum(0) - followers)[self._user]
            self._end = 1 + torch.arange(len(self._user), device=before.device) - before
            self._rows = torch.ones_like(self._end)
        else:
            self._user = followers.nonzero().flatten()
            self._end = followers[self._user]
            self._rows = self._end.clamp(max=length if positions == "all" else 1)
        require(len(self._user) > 0, "no user has two items: there is nothing to train on")

    def __len__(self) -> int:
        return int(self._rows.sum())

    def __call__(self, epoch: int, number: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """(users, items, windows) of each batch of a pass, its windows in an order of this pass alone."""
        order = permutation(len(self._user), stream_key(self.seed, epoch, f"order {number}"))
        for chosen in order.to(self._user.device).split(self.batch_size):
            yield self._batch(chosen)

    def rows(self) -> tuple[Tensor, Tensor, Tensor]:
        """(users, items, windows) of all rows, by user and place."""
        return self._batch(torch.arange(len(self._user), device=self._user.device))

    def _batch(self, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        counts = self._rows[chosen]
        window = torch.repeat_interleave(counts)
        within = torch.arange(len(window), device=window.device) - (counts.cumsum(0) - counts)[window]
        users, ends = self._user[chosen][window], self._end[chosen][window]
        places = ends - counts[window] + 1 + within
        items = self.sequences.items[self.sequences.offsets[users] + places]
        return users, items, torch.stack([places, ends], 1)
