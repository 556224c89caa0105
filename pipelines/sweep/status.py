"""How far a sweep is, by what the tracking store holds: from any terminal, on any host."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from pipelines.report.cells import Cell, sweep_cells
from pipelines.sweep.tally import Tally, seconds_left, summary, table
from pipelines.tracking import Results, TrialRun
from recloss.errors import plain

GONE_SECONDS = 150.0
"""A driver that was last seen so long ago is gone, or the store was out of its reach. Clocks may differ by a minute."""
_FAILURES = 20


def tallies(results: Results) -> list[Tally]:
    """What the cells of a sweep have done, in its order."""
    cells = sweep_cells(results, mix_fingerprints=True)
    searched = results.plan.search if results.plan else [0] * len(cells)
    confirmations = results.plan.confirm if results.plan else 0
    return [_tally(cell, count, confirmations) for cell, count in zip(cells, searched, strict=True)]


def show_status(results: Results, now: float) -> RenderableType:
    """Driver, cells, failures and time left for a rich console; text is never read as markup.

    Args:
        results: what the tracking store holds.
        now: Unix seconds.
    """
    found = tallies(results)
    lives = _driver_lives(results, now)
    left = seconds_left(found, sum(tally.running for tally in found)) if lives else None
    trials = f"trials: {summary(found, left)}" if lives else f"trials: {summary(found, left).rpartition(', ')[0]}"
    parts: list[RenderableType] = [Text(f"sweep {plain(results.experiment)}", "bold"), Text(_driver(results, now))]
    parts += [Text(""), table(found), Text(trials, "bold")]
    parts += [Text(line) for line in _failures(sweep_cells(results, mix_fingerprints=True))]
    return Group(*parts)


def _tally(cell: Cell, searched: int, confirmations: int) -> Tally:
    tally = Tally(_name(cell), 0)
    for trial in (*cell.grid, *cell.confirmation):
        if how := _how(trial):
            setattr(tally, how, getattr(tally, how) + 1)
        if how in ("done", "failed", "pruned") and "seconds" in trial.cost:
            tally.seconds.append(trial.cost["seconds"])
    for trial in cell.grid:
        if "best" in trial.metrics:
            tally.saw(trial.metrics["best"])
    # A search may end with fewer trials than planned, and one without a selection confirms nothing.
    tally.planned = len(cell.grid) + confirmations if cell.selection else max(searched, len(cell.grid)) + confirmations
    return tally


def _how(trial: TrialRun) -> str | None:
    """The count of a tally that a trial is in; none for one that was cut off."""
    if trial.pruned:
        return "pruned"
    return {"FINISHED": "done", "FAILED": "failed", "RUNNING": "running"}.get(trial.status)


def _name(cell: Cell) -> str:
    return " | ".join(map(plain, (cell.data, cell.backbone, cell.loss)))


def _driver_lives(results: Results, now: float) -> bool:
    driver = results.driver
    return driver is not None and driver.status == "RUNNING" and now - driver.seen < GONE_SECONDS


def _driver(results: Results, now: float) -> str:
    driver = results.driver
    if driver is None:
        return "no driver has told of itself"
    process = f"process {driver.pid} on {plain(driver.host)}"
    if driver.status != "RUNNING":
        ended = {"FINISHED": "complete", "KILLED": "interrupted", "FAILED": "ended by an error"}
        return f"{ended.get(driver.status, driver.status)}; it was driven by {process}"
    ago = f"{max(0, round(now - driver.seen))} s ago"
    if _driver_lives(results, now):
        return f"running, driven by {process}, seen {ago}"
    return f"its driver is gone: {process}, last seen {ago}; the same command goes on with the sweep"


def _failures(cells: Sequence[Cell]) -> list[str]:
    """A line for each kind of failure of each cell, with one of its errors."""
    lines = []
    for cell in cells:
        failed = [trial for trial in (*cell.grid, *cell.confirmation) if trial.status == "FAILED"]
        for kind in dict.fromkeys(trial.failures[-1] if trial.failures else "error" for trial in failed):
            alike = [t for t in failed if (t.failures[-1] if t.failures else "error") == kind]
            lines.append(f"{_name(cell)}: {len(alike)} failed ({kind}), one with: {plain(alike[0].error or '')}")
    more = [f"and {len(lines) - _FAILURES} kinds of failure more"] if len(lines) > _FAILURES else []
    return lines[:_FAILURES] + more
