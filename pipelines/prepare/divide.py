"""The split of a cleaned log: what a rule needs to know of all blocks is counted, then it is applied to each."""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipelines.prepare import blocks as do
from pipelines.prepare import splits as to
from pipelines.prepare.clean import Cleaned
from pipelines.prepare.draws import below, draws, stream
from pipelines.prepare.engines import Engine
from pipelines.prepare.rank import ranked
from pipelines.prepare.splits import POOL, SPLITS, TRAIN, VALID
from recloss.errors import InputError

if TYPE_CHECKING:
    from pipelines.settings import PrepareSettings

PICKS_AT_ONCE = 2**22
"""Random items that are drawn at a time in a popularity split."""

Details = dict[str, Any]
"""What the manifest says of a split."""


@dataclass(frozen=True, eq=False)
class Divided:
    """A log after the split: blocks as in ``Cleaned``, with a column ``split``."""

    blocks: Any
    users: pa.Array
    items: pa.Array
    degrees: tuple[NDArray[np.int64], ...]
    """(4, n) interactions in each split and in the pool, per user and per item."""

    @property
    def sizes(self) -> dict[str, int]:
        """Interactions of each split, and of the pool if there is one."""
        sizes = dict(zip((*SPLITS, "pool"), self.degrees[0].sum(axis=1).tolist(), strict=True))
        return {part: size for part, size in sizes.items() if part in SPLITS or size}

    @property
    def total(self) -> list[NDArray[np.int64]]:
        """Interactions of all splits, per user and per item."""
        return [degree[:POOL].sum(axis=0) for degree in self.degrees]


def divide(
    engine: Engine, cleaned: Cleaned, settings: "PrepareSettings", raw: Path, note: Callable[..., None]
) -> Divided:
    """Split a cleaned log; ``note(step, degrees, **details)`` hears of the steps.

    Raises:
        InputError: a split would be empty, or the log does not allow this split.
    """
    blocks, details = RULES[settings.split](engine, cleaned, settings, raw)
    divided = counted(engine, blocks, cleaned.users, cleaned.items)
    note("split", divided.total, **divided.sizes, **details)
    if settings.split in ("temporal", "popularity"):
        divided = _seen(engine, divided, note)
    for split, size in divided.sizes.items():
        if size == 0:
            raise InputError(f"{raw}: the {split} split would be empty, the users have too few interactions")
    return divided


def _iid(engine: Engine, log: Cleaned, settings: "PrepareSettings", raw: Path) -> tuple[Any, Details]:
    blocks = engine.map(log.blocks, to.iid, test_ratio=settings.test_ratio, **_validation(settings))
    return blocks, {}


def _temporal(engine: Engine, log: Cleaned, settings: "PrepareSettings", raw: Path) -> tuple[Any, Details]:
    """Test starts at the interaction with int((1 - test_ratio) * n) before it, what is left out gap_ratio earlier."""
    n, ratio = int(log.degrees[0].sum()), Fraction(str(settings.test_ratio))
    test = n - ceil(ratio * n)
    left_out = n - ceil((ratio + Fraction(str(settings.gap_ratio))) * n)
    if left_out == 0:
        raise InputError(f"{raw}: the train split would be empty, there are too few interactions")
    first_test = ranked(engine, log.blocks, "timestamp", test)
    first_left_out = ranked(engine, log.blocks, "timestamp", left_out) if left_out < test else first_test
    blocks = engine.map(log.blocks, to.temporal, left_out=first_left_out, test=first_test)
    blocks = engine.map(blocks, to.validation, **_validation(settings))
    return blocks, {
        "left_out": test - left_out,
        "train_before": first_left_out[0],
        "test_from": first_test[0],
        "order": "timestamp, user index, item index",
    }


def _leave_last(engine: Engine, log: Cleaned, settings: "PrepareSettings", raw: Path) -> tuple[Any, Details]:
    time = "timestamp" if "timestamp" in log.columns else "position"
    parts = {"test": settings.test_last, "valid": settings.valid_last}
    by, order = time, f"{time}, equal ones by a hash of seed, user index and item index"
    if settings.task == "sequence":
        by, order = "position", "timestamp, equal ones as in the log" if time == "timestamp" else "as in the log"
    blocks = engine.hold(engine.map(log.blocks, to.leave_last, time=by, **parts, seed=settings.split_seed))
    tied = pa.concat_tables(engine.tables(engine.map(blocks, to.cut_by_ties, time=time)))
    return blocks, {
        "order": order,
        "users_cut_by_ties": pc.sum(tied["users"]).as_py(),
        "users_too_short": int((log.degrees[0] <= sum(parts.values())).sum()),
    }


def _popularity(engine: Engine, log: Cleaned, settings: "PrepareSettings", raw: Path) -> tuple[Any, Details]:
    """How often an item is picked is drawn for all items; which of its users, by their draws."""
    degrees = log.degrees[1]
    wanted = ceil(Fraction(str(settings.test_ratio)) * int(degrees.sum()))
    if wanted > (spare := int((degrees - 1).sum())):
        raise InputError(
            f"{raw}: test_ratio {settings.test_ratio:g} asks for {wanted:,} test interactions, but every item keeps "
            f"one for training, so there are {spare:,}; lower test_ratio or raise k_core"
        )
    picks = popularity_picks(degrees - 1, wanted, stream(settings.split_seed, "popularity: items"))
    seed = stream(settings.split_seed, "popularity: users")
    of_items = engine.by_item(engine.map(log.blocks, to.pairs), degrees)
    chosen = pa.concat_tables(engine.tables(engine.map(of_items, to.last_picked, picks=picks, seed=seed)))
    last, last_user = np.zeros(len(picks), np.uint64), np.full(len(picks), -1, np.int32)
    last[chosen["item"].to_numpy()] = chosen["draw"].to_numpy()
    last_user[chosen["item"].to_numpy()] = chosen["user"].to_numpy()
    blocks = engine.map(log.blocks, to.popularity, last=last, last_user=last_user, seed=seed)
    return engine.map(blocks, to.validation, **_validation(settings)), {}


def popularity_picks(spare: NDArray[np.int64], wanted: int, seed: int) -> NDArray[np.int64]:
    """How often each item is picked, if ``wanted`` times one is picked uniformly among those with something to spare.

    An item is picked at most ``spare`` times; their sum is at least ``wanted``. Items are picked uniformly from all
    that had something to spare some picks ago, and a pick of one that has nothing left does not count: what counts is
    then uniform among the others.
    """
    spare, picks, number = spare.copy(), np.zeros(len(spare), np.int64), 0
    while wanted:
        able = np.flatnonzero(spare)
        n = min(wanted, PICKS_AT_ONCE)
        drawn = draws(seed, np.arange(number, number + n, dtype=np.int32), np.zeros(1, np.int32))
        picked = np.minimum(np.bincount(below(drawn, len(able)), minlength=len(able)), spare[able])
        picks[able] += picked
        spare[able] -= picked
        wanted -= int(picked.sum())
        number += n
    return picks


def _given(engine: Engine, log: Cleaned, settings: "PrepareSettings", raw: Path) -> tuple[Any, Details]:
    """As it is; a validation split that is not given is cut from train."""
    repeated = list(engine.tables(engine.map(log.blocks, to.repeats)))
    if repeated:
        raise InputError(f"{raw}: {_repeated(pa.concat_tables(repeated), log)}")
    counts = pa.concat_tables(engine.tables(engine.map(log.blocks, to.tally)))
    if pc.any(pc.equal(counts["split"], VALID)).as_py():
        return log.blocks, {"validation": "given"}
    return engine.map(log.blocks, to.validation, **_validation(settings)), {"validation": "cut from train"}


def _repeated(found: pa.Table, log: Cleaned) -> str:
    """Repeated pairs of a given split in words, those in two splits first."""
    across = pc.not_equal(found["split"], found["again"])
    in_two, in_one = (pc.sum(found.filter(mask)["count"]).as_py() or 0 for mask in (across, pc.invert(across)))
    first = found.filter(across if in_two else pc.invert(across)).slice(0, 1).to_pylist()[0]
    where = " and ".join(dict.fromkeys(SPLITS[first[name]] for name in ("split", "again")))
    pair = f"user {log.users[first['user']].as_py()!r} and item {log.items[first['item']].as_py()!r} in {where}"
    return (
        f"{in_two:,} pairs are in two splits and {in_one:,} are repeated in one, such as {pair}; "
        "a given split is taken as it is: mend its files, or split the whole log anew"
    )


RULES: dict[str, Callable[..., tuple[Any, Details]]] = {
    "iid": _iid,
    "temporal": _temporal,
    "leave_last": _leave_last,
    "popularity": _popularity,
    "given": _given,
}
"""How each split is made: blocks with the column ``split``, and what there is to say of it."""


def _validation(settings: "PrepareSettings") -> dict[str, Any]:
    """The arguments of ``splits.validation``."""
    return {"valid_ratio": settings.valid_ratio, "rounding": settings.rounding, "seed": settings.split_seed}


def counted(engine: Engine, blocks: Any, users: pa.Array, items: pa.Array) -> Divided:
    """Computed blocks with a column ``split``, and how much of each user and item every split has."""
    blocks = engine.hold(blocks)
    degrees = tuple(np.zeros((POOL + 1, len(ids)), np.int64) for ids in (users, items))
    for tally in engine.tables(engine.map(blocks, to.tally)):
        sides, splits, keys, counts = (column.to_numpy() for column in tally.columns)
        for side, degree in enumerate(degrees):
            of_side = sides == side
            degree[splits[of_side], keys[of_side]] += counts[of_side]
    return Divided(blocks, users, items, degrees)


def _seen(engine: Engine, log: Divided, note: Callable[..., None]) -> Divided:
    """Drop test interactions whose user or item has none in train or validation, then ids that are left with none."""
    seen = [degree[TRAIN] + degree[VALID] > 0 for degree in log.degrees]
    blocks = engine.map(log.blocks, to.only, users=seen[0], items=seen[1])
    numbers = [(np.cumsum(known) - 1).astype(np.int32) for known in seen]
    blocks = engine.map(blocks, do.renumber, users=numbers[0], items=numbers[1])
    users, items = (ids.filter(pa.array(known)) for ids, known in zip((log.users, log.items), seen, strict=True))
    left = counted(engine, blocks, users, items)
    note(
        "unseen", left.total, **left.sizes,
        dropped_test=log.sizes["test"] - left.sizes["test"],
        dropped_users=len(log.users) - len(users),
        dropped_items=len(log.items) - len(items),
    )  # fmt: skip
    return left
