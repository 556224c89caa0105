"""What `recloss sweep status` says, from results that are made up; that it reads them from a store is in test_sweep."""

import re
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from pipelines.report.cells import sweep_cells
from pipelines.report.cost import cell_cost
from pipelines.sweep.progress import SweepProgress
from pipelines.sweep.status import show_status, tallies
from pipelines.sweep.tally import ROWS, Tally, duration, seconds_left, summary, table
from pipelines.tracking import Results, Selection, TrialRun
from pipelines.tracking.read import Driver, Plan

FINGERPRINT = "ab" * 32
NOW = 1_750_000_000.0


def run(number, status="FINISHED", loss="sl", stage="grid", best=None, seconds=60.0, **more):
    given = {
        "hash": f"{number:016x}",
        "data": "toy",
        "fingerprint": FINGERPRINT,
        "backbone": "mf",
        "loss": loss,
        "seed": 0 if stage == "grid" else number,
        "stages": (stage,),
        "status": status,
        "params": {"data": FINGERPRINT, "loss.tau": str(number) if stage == "grid" else "1", "seed": str(number)},
        "metrics": {"best": best} if best is not None else {},
        "start": NOW,
        "end": NOW + 60,
        "error": None,
        "cost": {"seconds": seconds, "cpu_seconds": seconds, "gpu_seconds": 0.0, "peak_memory": 2e9},
    }
    if status == "RUNNING":
        given["cost"] = {}
    return TrialRun(**given | more)


def results(*trials, selected=(), driver_status="RUNNING", seen=NOW - 10, search=(4, 4), confirm=2):
    choice = Selection(("x",), "valid/ndcg_20", 0.5, {"data": FINGERPRINT, "loss.tau": "1"})
    return Results(
        experiment="toy",
        settings={
            "data": [{"name": "toy", "prepare": None}],
            "backbones": {"mf": None},
            "losses": {"bpr": None, "sl": None},
            "seeds": [0],
            "confirm_seeds": [1, 2],
        },
        trials=trials,
        selections={("toy", "mf", loss): choice for loss in selected},
        manifests={},
        driver=Driver("node-1", 4711, seen, driver_status),
        plan=Plan(list(search), confirm),
    )


def printed(found, now=NOW):
    console = Console(width=200, record=True, file=StringIO())
    console.print(show_status(found, now))
    return console.export_text()


def test_a_cell_counts_its_search_and_its_confirmations():
    found = results(
        run(1, best=0.3),
        run(2, best=0.5),
        run(3, "FAILED", error="MemoryError: x", failures=("out of memory",)),
        run(4, "KILLED", pruned=True),
        run(1, stage="confirm", best=0.9),
        run(2, "RUNNING", stage="confirm"),
        run(1, "RUNNING", "bpr"),
        run(2, "KILLED", "bpr"),
        selected=["sl"],
    )
    bpr, sl = tallies(found)
    assert (bpr.name, bpr.planned, bpr.done, bpr.running, bpr.failed, bpr.pruned) == ("toy | mf | bpr", 6, 0, 1, 0, 0)
    assert (sl.planned, sl.done, sl.running, sl.failed, sl.pruned, sl.best) == (6, 3, 1, 1, 1, 0.5)
    assert (bpr.best, bpr.seconds, sl.seconds) == (None, [], [60.0] * 5)
    text = printed(found)
    assert "running, driven by process 4711 on node-1, seen 10 s ago" in text
    assert "toy | mf | sl: 1 failed (out of memory), one with: MemoryError: x" in text
    assert "trials: 5/12 done, 2 running, 1 failed, 1 pruned, 3:30 left" in text, "7 trials of a minute, 2 at a time"


@pytest.mark.parametrize(
    ("status", "seen", "wanted"),
    [
        ("RUNNING", NOW - 3600, "its driver is gone: process 4711 on node-1, last seen 3600 s ago; the same command"),
        ("KILLED", NOW - 5, "interrupted; it was driven by process 4711 on node-1"),
        ("FINISHED", NOW - 5, "complete; it was driven by"),
    ],
)
def test_without_a_living_driver_there_is_no_time_left(status, seen, wanted):
    text = printed(results(run(1), driver_status=status, seen=seen))
    assert wanted in text
    assert " left" not in text


def test_a_search_that_ended_early_is_complete():
    found = results(run(1, loss="bpr"), run(1, "FINISHED", "bpr", "confirm"), selected=["bpr"])
    bpr, _ = tallies(found)
    assert (bpr.planned, bpr.left) == (3, 1)


def test_a_sweep_of_before_drivers_told_anything():
    text = printed(replace(results(run(1)), driver=None, plan=None))
    assert "no driver has told of itself" in text
    assert "1/1 done" in text


def test_hostile_names_and_errors_are_shown_as_they_are():
    hostile = "[red]x[/red]\x1b[31m\nsecond line"
    text = printed(results(run(1, "FAILED", error=hostile, failures=("error",))))
    assert "one with: [red]x[/red] [31m second line" in text


def test_time_left_takes_each_cell_for_itself():
    quick, slow = Tally("quick", 10, done=2, seconds=[1, 3]), Tally("slow", 4, done=1, seconds=[100])
    assert seconds_left([quick, slow], 2) == (8 * 2 + 3 * 100) / 2
    assert seconds_left([quick, Tally("new", 5)], 1) == 8 * 2 + 5 * 2
    assert seconds_left([Tally("new", 5)], 1) is None
    assert seconds_left([Tally("over", 2, done=1, failed=1, seconds=[9])], 0) == 0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "time left unknown"),
        (0, "0:00 left"),
        (190, "3:10 left"),
        (7390, "2:03:10 left"),
        (4 * 86400 + 7380, "4 d 02:03 left"),
    ],
)
def test_duration(seconds, text):
    assert duration(seconds) == text


def test_a_table_of_many_cells_shows_the_busy_ones():
    many = [Tally(f"cell {number}", 2, done=2) for number in range(50)]
    many[40].running, many[45].done = 1, 0
    console = Console(width=100, record=True, file=StringIO())
    console.print(table(many))
    lines = console.export_text().splitlines()
    assert len(lines) == ROWS + 2
    assert lines[1].startswith("cell 40 ")
    assert lines[2].startswith("cell 45 ")
    assert lines[-1].startswith("and 30 cells more")
    assert summary(many, 0).startswith("98/100 done, 1 running, 0 failed, 0 pruned")


def test_costs_of_a_cell_are_sums_over_all_its_trials():
    found = results(
        run(1, seconds=1800.0),
        run(2, "FAILED", seconds=1800.0),
        run(3, "RUNNING"),
        run(4, "KILLED", pruned=True, seconds=3600.0),
        run(1, stage="confirm", seconds=7200.0, hash="c"),
        selected=["sl"],
    )
    bpr, sl = sweep_cells(found)
    assert cell_cost(bpr) is None
    cost = cell_cost(sl)
    assert (cost.trials, cost.hours, cost.cpu_hours, cost.gpu_hours, cost.peak_gb) == (4, 4.0, 4.0, 0.0, 2.0)


def step(progress, number):
    """Ten trials of two cells, one after the other; the first fails, the second is pruned."""
    cell, folder = ("a", "b")[number % 2], Path(str(number))
    progress.started(cell, folder)
    progress.validated(cell, number / 100)
    progress.stopped(folder)
    how = {0: "failed", 1: "pruned"}.get(number, "done")
    progress.over(cell, how, number / 10 if how == "done" else None, 6.0)


def test_progress_in_a_log_is_a_line_for_each_tenth():
    console = Console(file=StringIO(), width=40)
    with SweepProgress(console, {"a": 10, "b": 10}) as progress:
        for number in range(10):
            step(progress, number)
        progress.plan("a", 0)
        progress.started("b", Path("more"))
    lines = console.file.getvalue().splitlines()
    assert lines[0] == "trials: 2/20 done, 0 running, 1 failed, 1 pruned, 1:48 left"
    assert lines[4] == "trials: 10/20 done, 0 running, 1 failed, 1 pruned, 1:00 left"
    assert lines[5:] == ["trials: 10/15 done, 1 running, 1 failed, 1 pruned, 0:30 left"]


def test_progress_on_a_terminal_is_a_table_that_goes_away():
    console = Console(file=StringIO(), width=100, force_terminal=True)
    with SweepProgress(console, {"a": 10, "[red]b[/red]": 10}) as progress:
        progress.started("a", Path("x"))
        progress.validated("a", 0.25)
        progress.over("[red]b[/red]", "done", 0.5, 6.0)
        progress._live.refresh()
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", console.file.getvalue())
    rows = {line.split()[0]: line.split()[1:] for line in shown.splitlines() if line.strip()}
    assert rows["a"] == ["0/10", "1", "0", "0", "0.2500"]
    assert rows["[red]b[/red]"] == ["1/10", "0", "0", "0", "0.5000"]
    assert "trials: 1/20 done, 1 running, 0 failed, 0 pruned, 1:54 left" in shown
    assert console.file.getvalue().count("\x1b[2K") >= 4, "the table is erased at the end"
