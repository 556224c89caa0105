"""Timestamps: the unit of a log, decided once and held against every row."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

MILLISECONDS_FROM = 10**11
"""``auto`` takes numbers below it as seconds (until the year 5138), others as milliseconds (from 1973)."""
END = 4_102_444_800
"""2100-01-01 in seconds: a later time is a mistake."""
MICRO = 10**6
"""Microseconds in a second: what sequences are ordered by, where a log says more than the second."""
EXAMPLE = "2010-10-19T23:55:27Z"
ISO = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d([.,]\d+)?)?)?\s?(Z|[+-]\d\d(:?\d\d)?)?")


@dataclass(frozen=True)
class Unit:
    """Unit of a log's timestamps; ``evidence`` (place and value) where ``auto`` decided it."""

    name: Literal["s", "ms", "iso"] = "s"
    evidence: str = ""

    def refused(self, numbers: NDArray[np.int64]) -> list[tuple[NDArray[np.bool_], str]]:
        """Which numbers cannot be accepted, and why."""
        end = END * 1000 if self.name == "ms" else END
        negative = numbers < 0
        late = numbers >= end
        problems = [(negative, "is before 1970")]
        if self.evidence:
            mixed = (numbers < MILLISECONDS_FROM) != (self.name == "s")
            words = ("milliseconds", "seconds") if self.name == "s" else ("seconds", "milliseconds")
            mixed &= ~negative & (numbers < END * 1000)
            problems.append((mixed, f"is in {words[0]}, but {self.evidence} in {words[1]}: one log has one unit"))
        problems.append(
            (late, f"is after the year 2099 ({'seconds' if self.name == 's' else 'milliseconds'} expected)")
        )
        return problems


SECONDS = Unit()


def unit_of(value: str | float, place: str, hidden: bool) -> Unit | None:
    """The unit of a log in which ``value`` occurs at ``place``; None if it is not a time; ``hidden``: not shown."""
    if isinstance(value, str) and ISO.fullmatch(value):
        return Unit("iso")
    try:
        number = float(value)
    except ValueError:
        return None
    if not 0 <= number < END * 1000:
        return None
    name: Literal["s", "ms"] = "s" if number < MILLISECONDS_FROM else "ms"
    return Unit(name, place if hidden else f"{place} ({value})")


def from_iso(texts: pa.Array) -> tuple[pa.Array, NDArray[np.bool_] | None]:
    """Microseconds since 1970 of ISO 8601 times (UTC where none is named), null and marked where one is none."""
    for kind in (pa.timestamp("us", "UTC"), pa.timestamp("us")):
        try:
            exact = texts.cast(kind)
        except pa.ArrowInvalid:
            continue
        return exact.cast(pa.int64()), None
    coded = texts.dictionary_encode()
    found = pa.array([_iso(text) for text in coded.dictionary.to_pylist()], pa.int64()).take(coded.indices)
    return found, found.is_null().to_numpy(zero_copy_only=False)


def _iso(text: str) -> int | None:
    if not ISO.fullmatch(text):
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    since = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - datetime(1970, 1, 1, tzinfo=UTC)
    return since // timedelta(microseconds=1)
