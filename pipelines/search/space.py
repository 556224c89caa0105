"""The space of a cell: the axes of its settings, and the points in it."""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.settings import Choices, Range, parse_axes
from recloss.errors import InputError

Point = dict[str, Any]
"""A value for each dotted setting of a space; one whose condition does not hold is absent."""

_DIGITS = 4
"""A number drawn from a range has so many significant digits, so that no trial's identity hangs on a last bit."""


@dataclass(frozen=True)
class Space:
    """The axes of a cell, those with a condition after the ones they name."""

    axes: Mapping[str, Choices | Range]

    @classmethod
    def of(cls, dotted: Mapping[str, Any], where: str) -> "Space":
        """From dotted settings, as a sweep file has them.

        Raises:
            InputError: naming the axis and what is wrong with it.
        """
        return cls(parse_axes(dotted, where))

    @property
    def open(self) -> bool:
        """Whether it has more than one point."""
        return any(axis.open for axis in self.axes.values())

    def grid(self, where: str) -> list[Point]:
        """All combinations of the choices, the last axis fastest.

        Raises:
            InputError: naming an axis that is a range.
        """
        for key, axis in self.axes.items():
            if isinstance(axis, Range):
                raise InputError(
                    f"{where}: {key} is a range, of which a grid is not made; give a list of choices, "
                    "or search by 'random' or 'tpe'"
                )
        return list(self._combinations(lambda axis: axis.choices if isinstance(axis, Choices) else []))

    def corners(self, most: int) -> list[Point]:
        """All combinations of the choices and the ends of the ranges; where there are more, about ``most`` of them."""
        found = self._combinations(lambda axis: axis.choices if isinstance(axis, Choices) else [axis.low, axis.high])
        count = math.prod(len(axis.choices) if isinstance(axis, Choices) else 2 for axis in self.axes.values())
        return list(itertools.islice(found, 0, None, math.ceil(count / most)))

    def draw(self, uniform: Callable[[str], float]) -> Point:
        """One point.

        Args:
            uniform: for the name of an axis a number in [0, 1), which decides its value.
        """
        point: Point = {}
        for key, axis in self.axes.items():
            if axis.exists(point):
                point[key] = _at(axis, uniform(key))
        return point

    def _combinations(self, values: Callable[[Choices | Range], list[Any]]) -> Iterator[Point]:
        axes = list(self.axes.items())

        def extend(point: Point, index: int) -> Iterator[Point]:
            if index == len(axes):
                yield point
                return
            key, axis = axes[index]
            for extended in [point | {key: value} for value in values(axis)] if axis.exists(point) else [point]:
                yield from extend(extended, index + 1)

        return extend({}, 0)


def _at(axis: Choices | Range, share: float) -> Any:
    """The value below which ``share`` of an axis lies."""
    if isinstance(axis, Choices):
        return axis.choices[int(share * len(axis.choices))]
    low, high = axis.low, axis.high + 1 if axis.whole else axis.high
    value = low * (high / low) ** share if axis.log else low + share * (high - low)
    return min(int(value), axis.high) if axis.whole else rounded(value, axis)


def rounded(value: float, axis: Range) -> float:
    """A number of a range to four significant digits, within the range."""
    return min(max(float(f"{value:.{_DIGITS}g}"), axis.low), axis.high)


def numbers(choices: list[Any]) -> list[float] | None:
    """A list of choices as numbers; ``None`` where one is none. YAML reads ``1e-3`` as text."""
    try:
        return None if any(isinstance(value, bool) for value in choices) else [float(value) for value in choices]
    except (TypeError, ValueError):
        return None
