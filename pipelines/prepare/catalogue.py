"""Which ids a prepared dataset has: those that occur, and in a given split those that it names besides."""

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recloss.errors import InputError

if TYPE_CHECKING:
    from pipelines.settings import PrepareSettings


def catalogue(occurring: pa.Array, listed: pa.Array | None, settings: "PrepareSettings") -> pa.Array:
    """The distinct ids of users or of items, in no particular order.

    Args:
        occurring: the distinct ids of the log.
        listed: the ids in the list file of a given split, if it has one.
        settings: ``ids`` says which belong to the catalogue.

    Raises:
        InputError: ``ids: range`` where an id is not an integer from 0.
    """
    if settings.ids == "range":
        return _up_to_largest(occurring)
    if settings.ids == "listed" and listed is not None:
        return pc.unique(pa.concat_arrays([listed.cast(pa.string()), occurring]))
    return occurring


def _up_to_largest(occurring: pa.Array) -> pa.Array:
    whole = pc.match_substring_regex(occurring, r"^(0|[1-9][0-9]{0,8})$")
    if not pc.all(whole).as_py():
        raise InputError(
            "ids: range needs ids that are all integers from 0 (without leading zeros, below 10^9); "
            "choose ids: occurring or listed"
        )
    return pa.array(np.arange(pc.max(occurring.cast(pa.int64())).as_py() + 1)).cast(pa.string())
