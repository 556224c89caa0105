"""Data-parallel training by user: which users a rank owns, its rows of a batch, and when it needs the other ranks.

A rank's users are a range, and it computes those rows of each global batch that are of its users. A parameter with a
row per user that only this user's training rows move (`Backbone.user_parameters`) is therefore trained on one rank,
gradient, optimiser and all, and its rows are sent to the other ranks when these read them. What users have in common,
such as the items' table, has its gradient summed over all ranks in every step.
"""

from collections.abc import Iterable, Iterator
from itertools import pairwise

import torch
import torch.distributed as dist
from torch import Tensor, nn

from recloss.interactions import Interactions


def user_parameters(*modules: nn.Module) -> dict[nn.Parameter, str]:
    """What the modules and their parts declare as ``user_parameters``, with names for messages."""
    parts = [part for module in modules for part in module.modules()]
    return {
        part.get_parameter(name): f"{type(part).__name__}.{name}"
        for part in parts
        for name in getattr(part, "user_parameters", ())
    }


class Shard:
    """The users of a rank; the ranks' ranges follow each other and cover all users.

    Each range has about the same number of pairs, but a user is never divided: one with more than a rank's share of
    all pairs sets the pace, and a rank may be left without users.

    Attributes:
        users: the range of its users.
    """

    def __init__(self, train: Interactions, rank: int, world: int) -> None:
        offsets = train.offsets.cpu()
        goals = len(train) * torch.arange(1, world) // world
        bounds = [0, *torch.searchsorted(offsets, goals).tolist(), train.n_users]
        self.world = world
        self._ranges = [slice(first, last) for first, last in pairwise(bounds)]
        self.users = self._ranges[rank]

    def rows(self, batches: Iterable[tuple[Tensor, ...]]) -> Iterator["Rows"]:
        """The rank's rows of each of an epoch's ``batches``: (users, items) of the whole batch, or with windows too."""
        start = 0
        for users, items, *windows in batches:
            mine = (users >= self.users.start) & (users < self.users.stop)
            yield Rows(users, items, start, mine.nonzero().flatten(), self.world, *windows)
            start += len(users)

    def own(self, rows: Tensor) -> Tensor:
        """The rank's users' part of (n_users, ...) ``rows``: a view without gradient."""
        return rows.detach()[self.users]

    def others_have_none(self, rows: Tensor) -> bool:
        """Whether (n_users, ...) ``rows`` are zero outside the rank's users."""
        return not (rows[: self.users.start].any() or rows[self.users.stop :].any())

    def whole(self, own: Tensor) -> Tensor:
        """(n_users, ...) rows of which each rank has its ``own``."""
        rows = own.new_zeros(self._ranges[-1].stop, *own.shape[1:])
        rows[self.users] = own
        self.send(rows)
        return rows

    def send(self, rows: Tensor) -> None:
        """Overwrite each user's row of (n_users, ...) ``rows`` by its owner's, on all ranks."""
        for rank, users in enumerate(self._ranges):
            if users.stop > users.start:
                dist.broadcast(rows.detach()[users], src=rank)


class Rows:
    """A rank's rows of a batch of training pairs.

    A rank without rows computes the batch's first with weight 0, so that all ranks take the same steps and draws.

    Attributes:
        batch_users, batch_items: (B',) of the whole batch.
        start: position of its first row in the epoch.
        users, items: (B,) the rank's.
        positions: (B,) their positions in the epoch.
        share: weight of their mean in the mean over the batch.
        windows: (B, 2) where in their users' sequences they are (see `recloss.sequences.Windows`), if anywhere.
    """

    def __init__(
        self, users: Tensor, items: Tensor, start: int, places: Tensor, world: int, windows: Tensor | None = None
    ) -> None:
        self.batch_users, self.batch_items, self.start = users, items, start
        self.share = len(places) / len(users)
        self._places, self._world = places, world
        computed = places if len(places) else places.new_zeros(1)
        self.positions = start + computed
        all_of_them = len(places) == len(users)
        self.users, self.items = (x if all_of_them else x[computed] for x in (users, items))
        self.windows = windows if windows is None or all_of_them else windows[computed]

    def pieces(self, size: int) -> Iterator["Rows"]:
        """The rows in pieces of at most ``size``, whose shares add up to the rows' share."""
        for places in self._places.split(size):
            yield Rows(self.batch_users, self.batch_items, self.start, places, self._world)

    def gather(self, rows: Tensor) -> Tensor:
        """The whole batch's rows (see ``Batch.gather``)."""
        rows = rows.detach()
        if self._world == 1:
            return rows
        whole = rows.new_zeros(len(self.batch_users), *rows.shape[1:])
        whole[self._places] = rows[: len(self._places)]
        dist.all_reduce(whole)
        return whole
