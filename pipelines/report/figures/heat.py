"""Numbers in a grid, each on a colour."""

import math
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DARK = 0.55
"""Share of the colour scale from which a number on it is white."""


def heat(
    axes: "Axes", numbers: Sequence[Sequence[float]], text: Callable[[float], str], bold: Collection[tuple[int, int]]
) -> None:
    """Rows of numbers from the top down, the largest darkest, those at the places (row, column) of ``bold`` in bold.

    NaN is a place without a number.
    """
    axes.grid(False)
    known = [value for row in numbers for value in row if not math.isnan(value)]
    low, high = min(known), max(known)
    axes.imshow(numbers, cmap="Blues", vmin=low - (high - low) * 0.4, vmax=high + 1e-9, aspect="auto")
    for y, row in enumerate(numbers):
        for x, value in enumerate(row):
            if math.isnan(value):
                continue
            color = "white" if value - low > _DARK * (high - low) else "black"
            weight = "bold" if (y, x) in bold else "normal"
            axes.text(x, y, text(value), ha="center", va="center", color=color, weight=weight)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
