"""Which configurations of a cell are tried, where that is known before its search starts."""

import hashlib

from pipelines.search.cell import Cell, Configuration

_ATTEMPTS = 20
"""Draws per configuration wanted, before a space is taken to have no more."""


def part_of_grid(cell: Cell, grid: list[Configuration], count: int, seed: int) -> list[Configuration]:
    """``count`` configurations of a grid, in its order: a function of the seed and of each configuration alone,
    so that a larger count keeps those of a smaller one."""
    hashes = [configuration[0].hash for configuration in grid]
    drawn = set(sorted(hashes, key=lambda name: uniform(seed, cell.name, name))[:count])
    return [configuration for configuration, name in zip(grid, hashes, strict=True) if name in drawn]


def random_configurations(cell: Cell, count: int, seed: int) -> list[Configuration]:
    """``count`` different points drawn evenly; fewer where the space has fewer.

    The value of an axis in a draw is a function of (seed, cell, number of the draw, axis): more draws keep the first
    ones, and an axis more or less leaves the others as they were.
    """
    draws = (
        cell.space.draw(lambda axis, number=number: uniform(seed, cell.name, f"{number} | {axis}"))  # type: ignore[misc]
        for number in range(_ATTEMPTS * count)
    )
    found: list[Configuration] = []
    known: set[str] = set()
    for point in draws:
        configuration = cell.configuration(point)
        if configuration[0].hash not in known:
            known.add(configuration[0].hash)
            found.append(configuration)
        if len(found) == count:
            break
    return found


def uniform(seed: int, cell: str, what: str) -> float:
    """A number in [0, 1) that is a function of these three."""
    digest = hashlib.blake2b(f"{seed} | {cell} | {what}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> 11) * 2.0**-53


def distinct(configurations: list[Configuration]) -> list[Configuration]:
    """The configurations without repetitions, in their order."""
    return list({configuration[0].hash: configuration for configuration in configurations}.values())
