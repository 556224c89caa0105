"""Selected values on the edge of what was searched, and the change of the sweep file that extends it."""

import itertools
import math
from typing import Any

from pipelines.search.cell import Cell
from pipelines.search.space import numbers
from pipelines.settings import Choices, Range, Trial
from recloss.errors import InputError

FEWEST = 3
"""Values that a list needs to have an inside, and so an edge."""
OUTER = 0.05
"""Part of a range, at each end, that counts as its edge."""


def edge_warnings(cell: Cell, selected: Trial) -> list[str]:
    """A line for each axis of numbers whose selected value lies on its edge, with the change that extends it.

    An edge is natural, and not told, where it is 0 or where the value beyond it would be refused.
    """
    flat = selected.flat()
    point = {key: flat[key] for key, axis in cell.space.axes.items() if axis.exists(flat)}
    lines = []
    for key, value in point.items():
        axis = cell.space.axes[key]
        beyond = beyond_range(axis, value) if isinstance(axis, Range) else beyond_choices(axis, value)
        if beyond is not None and _accepted(cell, point | {key: beyond}):
            lines.append(f"{cell.loss}: {key}: {axis.shown}  ->  {_change(axis, value, beyond)}")
    return lines


def beyond_choices(axis: Choices, value: Any) -> float | None:
    """The next number of a list beyond a selected one on its edge: by equal steps where the list has them, else by
    equal ratios. ``None`` inside the list, at 0, and for a list of fewer than three numbers."""
    row = sorted(set(numbers(axis.choices) or ()))
    if len(row) < FEWEST or value not in (row[0], row[-1]) or value == 0:
        return None
    edge, inner = (row[0], row[1]) if value == row[0] else (row[-1], row[-2])
    steps = [b - a for a, b in itertools.pairwise(row)]
    even = math.isclose(min(steps), max(steps), rel_tol=1e-6)
    beyond = edge + (edge - inner) if even or inner <= 0 else edge * edge / inner
    if beyond <= 0 < edge:
        beyond = edge / 2
    return _number(beyond, whole=all(number == int(number) for number in row))


def beyond_range(axis: Range, value: float) -> float | None:
    """A new end of a range, half its width further, for a selected value in its outer part; ``None`` elsewhere."""
    low, high = (math.log(axis.low), math.log(axis.high)) if axis.log else (axis.low, axis.high)
    share = ((math.log(value) if axis.log else value) - low) / (high - low)
    if OUTER < share < 1 - OUTER or (share <= OUTER and axis.low == 0):
        return None
    end = low - (high - low) / 2 if share <= OUTER else high + (high - low) / 2
    beyond = math.exp(end) if axis.log else end
    if beyond <= 0 < axis.low:
        beyond = axis.low / 2
    return _number(beyond, axis.whole)


def _number(value: float, whole: bool) -> float:
    return round(value) if whole else float(f"{value:.2g}")


def _accepted(cell: Cell, point: dict[str, Any]) -> bool:
    try:
        cell.configuration(point)
    except InputError:
        return False
    return True


def _change(axis: Choices | Range, value: float, beyond: float) -> str:
    if isinstance(axis, Choices):
        return f"add {beyond:g}"
    return f"{'low' if beyond < value else 'high'}: {beyond:g}"
