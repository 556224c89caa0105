"""Samplers of items outside the user's training positives, by rejection."""

import math
from abc import abstractmethod

import torch
from torch import Tensor

from recloss import native
from recloss.errors import require
from recloss.interactions import Interactions
from recloss.randomness import integers, reals, row_states
from recloss.sampling.base import Sampler, WholeBatch

_FILTER_WIDTH = 4096
_REDRAWS = 16
_TOTAL_WEIGHT = 2**40
_PAIRS_AT_ONCE = 2**22


class OutsidePositives(Sampler):
    """Base of the samplers that redraw positives: i.i.d. draws from a proposal, given that they are no positives.

    A per-row bit filter answers most membership questions, a binary search the rest. What is still a positive after 16
    redraws is drawn exactly among what is left to the user.
    """

    @abstractmethod
    def propose(self, states: Tensor, counter: Tensor, batch: WholeBatch | None) -> Tensor:
        """Items from the proposal, positives among them; shapes of ``states`` and ``counter`` broadcast."""

    @abstractmethod
    def remaining(self, users: Tensor, states: Tensor, counter: Tensor, batch: WholeBatch | None) -> Tensor:
        """(m,) items from the proposal given that they are no positives of ``users`` (m,), without rejection."""

    def sample(self, users: Tensor, positions: Tensor, n: int, key: int, batch: WholeBatch | None = None) -> Tensor:
        """See ``Sampler.sample``."""
        n_items = self.train.n_items
        states = row_states(key, positions)
        draws = self.propose(states[:, None], torch.arange(n, device=users.device), batch)
        flat = draws.view(-1)

        width = min(_FILTER_WIDTH, 1 << (n_items - 1).bit_length())
        seen = self._filter(users, width)

        def confirmed(suspects: Tensor) -> Tensor:
            """Those of ``suspects`` (places in ``flat`` that the filter caught) that are positives."""
            if width >= n_items:
                return suspects
            return suspects[self.train.contains(users[suspects // n], flat[suspects])]

        rejected = confirmed(seen.gather(1, draws & (width - 1)).flatten().nonzero().flatten())
        for attempt in range(1, _REDRAWS + 1):
            if not len(rejected):
                return draws
            row = rejected // n
            flat[rejected] = self.propose(states[row], rejected - row * n + (attempt << 32), batch)
            rejected = confirmed(rejected[seen[row, flat[rejected] & (width - 1)]])
        row = rejected // n
        counter = rejected - row * n + ((_REDRAWS + 1) << 32)
        flat[rejected] = self.remaining(users[row], states[row], counter, batch)
        return draws

    def _filter(self, users: Tensor, width: int) -> Tensor:
        """(B, width) bits: whether a positive of the row's user has these low bits; exact if width >= n_items."""
        positives = self.train.of(users)
        seen = torch.zeros(len(users), width, dtype=torch.bool, device=users.device)
        seen[positives.rows, positives.values & (width - 1)] = True
        return seen


class UniformNegatives(OutsidePositives):
    """Draws i.i.d. with replacement, uniform over the items outside the user's training positives.

    Args:
        train: the training positives.

    Raises:
        ValueError: if a user has interacted with the whole catalogue.
    """

    name = "uniform"

    def __init__(self, train: Interactions) -> None:
        super().__init__(train)
        full = torch.nonzero(train.degrees == train.n_items).flatten()
        if len(full):
            raise ValueError(f"user {int(full[0])} has all {train.n_items} items as training positives: no negatives")

    def sample(self, users: Tensor, positions: Tensor, n: int, key: int, batch: WholeBatch | None = None) -> Tensor:
        """See ``Sampler.sample``."""
        train = self.train
        if users.device.type != "cpu" or native.kernel() == "torch":
            return super().sample(users, positions, n, key, batch)
        if len(users) and not 0 <= int(users.min()) <= int(users.max()) < train.n_users:
            raise IndexError(f"users must lie in 0..{train.n_users - 1}, got {int(users.min())}..{int(users.max())}")
        draws = torch.empty(len(users), n, dtype=torch.int64)
        rows = (*(x.to(torch.int64).contiguous() for x in (users, positions)), train.offsets, train.item)
        if native.call("uniform_negatives", *rows, draws, key, train.n_items, len(users), n):
            raise MemoryError(f"no memory for a bit per item of {train.n_items}")
        return draws

    def propose(self, states: Tensor, counter: Tensor, batch: WholeBatch | None) -> Tensor:
        """Uniform over all items."""
        return integers(states, counter, self.train.n_items)

    def remaining(self, users: Tensor, states: Tensor, counter: Tensor, batch: WholeBatch | None) -> Tensor:
        """By rank among the user's negatives."""
        left = _Remainder(self.train, users, torch.ones(self.train.n_items, dtype=torch.int64, device=users.device))
        return left.pick(integers(states, counter, left.weight))

    def log_q(self, users: Tensor, items: Tensor) -> Tensor:
        """``log(|I| / (|I| - |P_u|))``."""
        n_items = self.train.n_items
        free = (n_items - self.train.degrees[users]).to(torch.get_default_dtype())
        return (n_items / free).log()[:, None].expand(items.shape)


class _Weighted(OutsidePositives):
    """Base of the samplers whose draws are the items outside the positives in proportion to their weights.

    Args:
        train: the training positives.
        weights: (n_items,) int64 weight of each item, 0 for those without training positives.

    Raises:
        ValueError: if a user has all items that occur as positives.
    """

    def __init__(self, train: Interactions, weights: Tensor) -> None:
        super().__init__(train)
        own = torch.zeros(train.n_users, dtype=torch.int64, device=weights.device)
        for user, item in zip(train.user.split(_PAIRS_AT_ONCE), train.item.split(_PAIRS_AT_ONCE), strict=True):
            own.index_add_(0, user, weights[item])
        self._left = weights.sum() - own
        none = torch.nonzero(self._left == 0).flatten()
        if len(none):
            occur = int((weights > 0).sum())
            raise ValueError(
                f"user {int(none[0])} has all {occur} items that occur as training positives: no negatives"
            )
        self.weights = weights

    def log_q(self, users: Tensor, items: Tensor) -> Tensor:
        """``log(|I| w_j / sum of w over the items outside P_u)``."""
        total, dtype = self.weights.double().sum(), torch.get_default_dtype()
        of_item = (self.weights / total * self.train.n_items).log().to(dtype)
        return of_item[items] - (self._left[users] / total).log().to(dtype)[:, None]


class PopularityNegatives(_Weighted):
    """Draws i.i.d. with replacement, outside the user's positives, in proportion to ``degree(item) ** power``.

    The degree is the number of training positives. Items without any are never drawn, so power 0 is uniform over the
    items that occur. Weights are rounded to multiples of 2**-40 of their sum, and are at least one.

    Args:
        train: the training positives.
        power: 0 for uniform, 1 for popularity.

    Raises:
        ValueError: if ``power`` is negative, or a user has all items that occur as positives.
    """

    name = "popularity"

    def __init__(self, train: Interactions, *, power: float = 0.75) -> None:
        ok = isinstance(power, int | float) and math.isfinite(power) and power >= 0
        require(ok, f"power must be a number of at least 0, got {power!r}")
        degrees = torch.bincount(train.item, minlength=train.n_items)
        share = (degrees.double() / degrees.max()).pow(power) * (degrees > 0)
        weights = (share * (_TOTAL_WEIGHT / share.sum())).round().to(torch.int64)
        super().__init__(train, torch.maximum(weights, (degrees > 0).to(torch.int64)))
        self.power = power
        self._cumulative = self.weights.cumsum(0)
        self._total = int(self._cumulative[-1])

    def propose(self, states: Tensor, counter: Tensor, batch: WholeBatch | None) -> Tensor:
        """By the inverse of the cumulative weights."""
        place = (reals(states, counter) * self._total).to(torch.int64)
        return torch.searchsorted(self._cumulative, place, right=True)

    def remaining(self, users: Tensor, states: Tensor, counter: Tensor, batch: WholeBatch | None) -> Tensor:
        """By the inverse of the cumulative weights without the positives'."""
        left = _Remainder(self.train, users, self.weights)
        return left.pick((reals(states, counter) * left.weight).to(torch.int64))


class InBatchNegatives(_Weighted):
    """Positives of the batch's rows: a row uniform with replacement, given that its item is no positive of the user.

    If all items of the batch are positives of the user, a row of the training data takes the place of the batch's.
    Batches are random subsets of the training data, so each draw is a non-positive in proportion to its number of
    training positives; that is what ``log_q`` says, for the correction of Yi et al. (RecSys 2019). Draws of one batch
    are not independent.

    Args:
        train: the training positives.

    Raises:
        ValueError: if a user has all items that occur as positives.
    """

    name = "in_batch"

    def __init__(self, train: Interactions) -> None:
        super().__init__(train, torch.bincount(train.item, minlength=train.n_items))

    def propose(self, states: Tensor, counter: Tensor, batch: WholeBatch | None) -> Tensor:
        """The item of a uniform row of the batch."""
        items = self.whole(batch).items
        return items[integers(states, counter, len(items))]

    def remaining(self, users: Tensor, states: Tensor, counter: Tensor, batch: WholeBatch | None) -> Tensor:
        """By rank among the rows of the batch, or of the training data, that are no positives."""
        in_batch = torch.bincount(self.whole(batch).items, minlength=self.train.n_items)
        left = _Remainder(self.train, users, in_batch)
        items = left.pick(integers(states, counter, left.weight))
        empty = torch.nonzero(left.weight == 0).flatten()
        if len(empty):
            left = _Remainder(self.train, users[empty], self.weights)
            items[empty] = left.pick(integers(states[empty], counter[empty], left.weight))
        return items


class _Remainder:
    """Integer weights of the items, without the positives of each of ``users`` (m,).

    Args:
        train: the positives.
        users: (m,) users.
        weights: (n_items,) int64; their sum times the number of users must stay below 2**63.
    """

    def __init__(self, train: Interactions, users: Tensor, weights: Tensor) -> None:
        distinct, self._row = users.unique(return_inverse=True)
        positives = train.of(distinct)
        own, self._upto = weights[positives.values], weights.cumsum(0)
        self._taken = torch.cat([own.new_zeros(1), own.cumsum(0)])
        """Weight of the positives before each place, over all rows."""
        self._before = self._taken[positives.offsets]
        self._total = self._upto[-1]
        below = self._upto[positives.values] - own - (self._taken[:-1] - self._before[positives.rows])
        self._keys = positives.rows * self._total + below  # ascending within and across rows
        self.weight = (self._total - self._before.diff())[self._row]
        """(m,) weight that is left to each user."""

    def pick(self, place: Tensor) -> Tensor:
        """(m,) the item at ``place`` (from 0, below ``weight``) when the items left are laid out by weight."""
        passed = torch.searchsorted(self._keys, self._row * self._total + place, right=True)
        return torch.searchsorted(self._upto, place + self._taken[passed] - self._before[self._row], right=True)
