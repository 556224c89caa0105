"""What a sweep would do, before it does: its cells, trials, rungs and epochs."""

import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from rich.console import Console

from pipelines.search.cell import Cell
from pipelines.search.halving import rungs, survivors
from pipelines.settings import REFERENCE, SweepSettings


def describe(sweep: SweepSettings, cells: Sequence[Cell], console: Console) -> None:
    """Print every trial that is known before the search, how many there are, and the epochs they cost at most."""
    say = partial(console.print, markup=False, soft_wrap=True)
    searched = confirmed = epochs = 0
    for cell in cells:
        stages, trials = _stages(sweep, cell), cell.size * len(cell.seeds)
        searched += trials
        confirmed += len(sweep.confirm_seeds)
        whole = sum(length for _, length in stages)
        epochs += sum(count * length for count, length in stages) * len(cell.seeds) + whole * len(sweep.confirm_seeds)
        say(f"{cell.name}: {count(trials, 'trial')}", style="bold")
        for note in cell.notes:
            say(f"  {note}")
        if sweep.halving and cell.backbone != REFERENCE:
            say(f"  configurations: {_rungs(stages)}")
        if sweep.search.method == "tpe":
            say(f"  proposed by TPE, {sweep.search.in_flight} at a time, of")
            for key, axis in cell.space.axes.items():
                if axis.open:
                    say(f"  {key}: {axis.shown}")
        else:
            _say_trials(cell, say)
    if sweep.budget.hours_per_cell:
        say(f"the search of a cell ends after {sweep.budget.hours_per_cell:g} hours of training")
    say(
        f"{count(len(cells), 'cell')}, {count(searched, f'{sweep.search.method} trial')} on seeds {[*sweep.seeds]}, "
        f"then {count(confirmed, 'confirmation')} on seeds {list(sweep.confirm_seeds)}: "
        f"{count(searched + confirmed, 'trial')}, {count(epochs, 'epoch')} at most"
    )


def count(n: int, noun: str) -> str:
    """``1 trial``, ``2 trials``."""
    return f"{n} {noun}{'' if n == 1 else 's'}"


def _stages(sweep: SweepSettings, cell: Cell) -> list[tuple[int, int]]:
    """Configurations and epochs, at most, of each stage of a cell's search."""
    longest = max(trial.train.epochs for trial in cell.grid)
    ends = [0, *rungs(sweep.halving, cell.grid), longest]
    counts = [cell.size]
    while sweep.halving and len(counts) < len(ends) - 1:
        counts.append(survivors(counts[-1], sweep.halving))
    return [(count, after - before) for count, before, after in zip(counts, ends, ends[1:], strict=False)]


def _rungs(stages: Sequence[tuple[int, int]]) -> str:
    epochs = itertools.accumulate(length for _, length in stages)
    return ", ".join(f"{count} to epoch {epoch}" for (count, _), epoch in zip(stages, epochs, strict=True))


def _say_trials(cell: Cell, say: Callable[[str], None]) -> None:
    flats = [trial.flat() for trial in cell.grid]
    varied = _varied(flats)
    for flat in flats:
        say("  " + "  ".join(f"{key}={flat[key]}" for key in varied if key in flat))


def _varied(flats: list[dict[str, Any]]) -> list[str]:
    """Settings that differ between trials, or that not all of them have; learning rate and seed always."""
    names = list(dict.fromkeys(key for flat in flats for key in flat))
    return [key for key in names if len({str(flat.get(key)) for flat in flats}) > 1 or key in ("optim.lr", "seed")]
