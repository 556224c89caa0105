"""Samplers that mix false negatives into uniform ones, on purpose: how robust is a loss to them?"""

import math
from abc import abstractmethod

import torch
from torch import Tensor

from recloss.errors import require
from recloss.interactions import Interactions
from recloss.randomness import integers, reals, row_states, stream_key
from recloss.sampling.base import Sampler, WholeBatch
from recloss.sampling.outside import UniformNegatives

_COIN = 32 << 32
"""Start of counters of each row's sequence that `UniformNegatives` does not use."""


class _Mixture(Sampler):
    """Base: draws from a list of the user's own in part, else uniform outside the training positives.

    Args:
        train: the training positives.
        own: each user's list; a user without gets ordinary negatives.
        ratio: part of the draws.
    """

    def __init__(self, train: Interactions, own: Interactions, ratio: float) -> None:
        ok = isinstance(ratio, int | float) and 0 <= ratio <= 1
        require(ok, f"ratio must lie in 0..1, got {ratio!r}")
        super().__init__(train)
        self.ratio, self.own, self.uniform = ratio, own, UniformNegatives(train)

    @abstractmethod
    def own_share(self, n: int) -> float:
        """Expected part of ``n`` draws that is from the user's own list, if there is one."""

    def log_q(self, users: Tensor, items: Tensor) -> Tensor:
        """Of a column taken at random: ``log(|I| (r [j in own] / |own_u| + (1 - r) [j not in P_u] / (|I| - |P_u|)))``.

        r is the part of the draws that is from the user's own list, 0 for a user without.
        """
        dtype, n_items = torch.get_default_dtype(), self.train.n_items
        count = self.own.degrees[users]
        share = self.own_share(items.shape[1]) * (count > 0).to(dtype)
        of_own = (share * n_items / count.clamp(min=1))[:, None] * self.own.contains(users[:, None], items)
        rest = (1 - share) * n_items / (n_items - self.train.degrees[users])
        return (of_own + rest[:, None] * ~self.train.contains(users[:, None], items)).log()

    def mixed(self, users: Tensor, states: Tensor, ordinary: Tensor, own: Tensor) -> Tensor:
        """(B, k) draws: ``ordinary`` ones, or where ``own`` (broadcasts to (B, k)) says so from the user's own list.

        A column's two draws may come from the same bits, since only one of them is shown.
        """
        if not len(self.own):
            return ordinary
        count = self.own.degrees[users][:, None]
        column = torch.arange(ordinary.shape[1], device=users.device)
        place = self.own.offsets[users][:, None] + integers(states[:, None], column, count)
        return torch.where(own & (count > 0), self.own.item[place.clamp(max=len(self.own) - 1)], ordinary)


class FalseNegatives(_Mixture):
    """Of a row's n draws, the first ``int(n * ratio)`` are training positives of the user, the rest ordinary.

    False negatives are uniform with replacement over all the user's training positives, the row's own among them;
    ordinary negatives are uniform with replacement outside them, and equal those of ``uniform`` in the same column.

    Args:
        train: the training positives.
        ratio: share of false negatives, in 0..1.

    Raises:
        ValueError: if ``ratio`` is out of range, or a user has interacted with the whole catalogue.

    Source: DrRL's official loop (its default 0.125).
    """

    name = "false_negatives"

    def __init__(self, train: Interactions, *, ratio: float = 0.125) -> None:
        super().__init__(train, train, ratio)

    def own_share(self, n: int) -> float:
        """``int(n * ratio) / n``."""
        return self._count(n) / max(n, 1)

    def sample(self, users: Tensor, positions: Tensor, n: int, key: int, batch: WholeBatch | None = None) -> Tensor:
        """See ``Sampler.sample``."""
        draws, k = self.uniform.sample(users, positions, n, key), self._count(n)
        draws[:, :k] = self.mixed(users, row_states(key, positions), draws[:, :k], users.new_ones(1, dtype=torch.bool))
        return draws

    def _count(self, n: int) -> int:
        return math.floor(n * self.ratio + 1e-9)  # 100 * 0.29 is a little less than 29


class PooledFalseNegatives(_Mixture):
    """Each draw is, with probability ``ratio``, uniform over the user's pool of false negatives, else ordinary.

    Ordinary negatives are uniform with replacement outside ``train``; users without a pool get nothing else. Whether
    the pool's pairs are training positives too is for the caller to say, by the ``train`` it passes (and trains on).
    It is best to take them out, since they are regarded as noise: pass what `false_negative_pool` keeps. Then
    ordinary negatives can hit the pool as well.

    Args:
        train: the training positives.
        pool: the false negatives, of the same users and items.
        ratio: probability in 0..1.

    Raises:
        ValueError: if ``ratio`` is out of range, the sizes differ, or a user has interacted with the whole catalogue.

    Source: PSL (NeurIPS 2024), noise experiment.
    """

    name = "pooled_false_negatives"
    needs_pool = True

    def __init__(self, train: Interactions, pool: Interactions, *, ratio: float) -> None:
        super().__init__(train, pool, ratio)
        sizes = [(data.n_users, data.n_items) for data in (pool, train)]
        require(sizes[0] == sizes[1], f"pool must be of {sizes[1]} users and items like train, got {sizes[0]}")

    def own_share(self, n: int) -> float:
        """``ratio``."""
        return self.ratio

    def sample(self, users: Tensor, positions: Tensor, n: int, key: int, batch: WholeBatch | None = None) -> Tensor:
        """See ``Sampler.sample``."""
        states, column = row_states(key, positions), torch.arange(n, device=users.device)
        own = reals(states[:, None], column + _COIN) < self.ratio
        return self.mixed(users, states, self.uniform.sample(users, positions, n, key), own)


def false_negative_pool(train: Interactions, *, share: float = 0.1, seed: int = 0) -> tuple[Interactions, Interactions]:
    """Draw a share of all training pairs at random, once, as false negatives for `PooledFalseNegatives`.

    Args:
        train: the training positives.
        share: of the pairs, in 0..1; ``int(share * len(train))`` are drawn, uniformly without replacement.
        seed: of the draw.

    Returns:
        The pairs that are kept as positives, and the pool. Users may be left with none of either.
    """
    require(isinstance(share, int | float) and 0 <= share <= 1, f"share must lie in 0..1, got {share!r}")
    order = row_states(stream_key(seed, 0, "false negatives"), train.keys).argsort()
    pool, kept = order.tensor_split([math.floor(share * len(train) + 1e-9)])
    sizes = train.n_users, train.n_items
    return tuple(Interactions(train.user[part], train.item[part], *sizes) for part in (kept, pool))  # type: ignore[return-value]
