"""How a sweep scales with its trials: overhead per trial, the driver's memory, resuming, MLflow and the reports.

    python benchmarks/sweep_scale.py [--trials 2000] [--runs 10000] [--storage FOLDER]

Trains trials of one epoch on a data set of 60 users through `run_sweep`, runs the finished sweep again, and fills an
MLflow store with made-up runs to read and report. Writes docs/results/sweep_scale.md.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from pipelines.prepare import load, prepare
from pipelines.report import build_report, write_report
from pipelines.search.cell import Cell
from pipelines.settings import PrepareSettings, SweepSettings, parse
from pipelines.sweep.plan import plan
from pipelines.sweep.run import run_sweep
from pipelines.sweep.status import show_status
from pipelines.tracking import open_tracker, read_results
from pipelines.train import journal

PAGE = Path(__file__).parents[1] / "docs" / "results" / "sweep_scale.md"
LOSSES = ("bpr", "sl", "psl", "bsl", "talos")
CONFIRM = (1, 2)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--trials", type=int, default=2000, help="of the sweep that is trained")
    options.add_argument("--runs", type=int, default=10_000, help="of the store that is read")
    options.add_argument("--storage", type=Path, help="kept; a temporary folder unless given")
    options.add_argument("--drive", action="store_true", help=argparse.SUPPRESS)
    chosen = options.parse_args()
    if chosen.drive:
        print(json.dumps(drive(chosen.storage, chosen.trials)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        storage = (chosen.storage or Path(temporary)).absolute()
        make_data(storage / "data")
        rows = measure_sweep(storage, chosen.trials) + measure_store(storage, chosen.runs)
    PAGE.write_text(page(chosen, rows), encoding="utf-8")
    print(PAGE.read_text(encoding="utf-8"))


def make_data(out: Path) -> None:
    """60 users who like the items of their group."""
    if (out / "manifest.json").exists():
        return
    rng = np.random.default_rng(0)
    liked = rng.random((60, 40)) < np.where(np.arange(60)[:, None] % 4 == np.arange(40) % 4, 0.8, 0.08)
    out.parent.mkdir(parents=True, exist_ok=True)
    raw = out.with_suffix(".csv")
    raw.write_text("user,item\n" + "".join(f"u{user},i{item}\n" for user, item in np.argwhere(liked)))
    prepare(raw, out, PrepareSettings(format="csv", k_core=3), engine="local")


def settings(data: Path, trials: int, name: str = "scale") -> SweepSettings:
    """A cell per loss, whose grids and confirmations make so many trials together."""
    points = trials // len(LOSSES) - len(CONFIRM)
    rates = [round(0.001 + 0.1 * number / points, 8) for number in range(points)]
    fixed = {"optim.lr": rates, "optim.weight_decay": 0, "backbone.dim": 8}
    taus = {"sl": {"loss.tau": 0.2}, "psl": {"loss.tau": 0.2}, "bsl": {"loss.tau_pos": 0.2, "loss.tau_neg": 0.2}}
    raw = {
        "name": name,
        "data": [{"name": "toy", "path": str(data)}],
        "backbones": {"mf": None},
        "losses": {loss: fixed | taus.get(loss, {}) for loss in LOSSES}
        | {"talos": fixed | {"loss.tau": 0.2, "loss.k": 5}},
        "settings": {
            "train.epochs": 1,
            "train.valid_every": 1,
            "train.negatives": 6,
            "train.batch_size": 256,
            "protocol.cutoffs": [5],
            "protocol.metric": "ndcg_5",
        },
        "confirm_seeds": list(CONFIRM),
    }
    return parse(SweepSettings, raw, name)


def drive(storage: Path, trials: int) -> dict[str, float]:
    """Run the sweep in this process."""
    begun = time.perf_counter()
    uri = f"sqlite:///{storage}/mlflow.db"
    chosen = settings(storage / "data", trials)
    ending = run_sweep(chosen, storage=storage, tracking_uri=uri, spaces=None, console=Console(stderr=True))
    assert ending, ending
    return {
        "seconds": time.perf_counter() - begun,
        "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


Row = tuple[str, str]


def measure_sweep(storage: Path, trials: int) -> list[Row]:
    """The sweep as new, and finished, each driven by a process of its own."""
    command = [sys.executable, __file__, "--drive", "--storage", str(storage), "--trials", str(trials)]
    new, again = (
        json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])
        for _ in range(2)
    )
    events = [journal.read(path.parent) for path in (storage / "scale").glob(f"*/{journal.FILE}")]
    finished = [found for found in (journal.last(e, "finish") for e in events) if found]
    span = max(e[-1]["time"] for e in events) - min(e[0]["time"] for e in events)
    busy = sum(finish["cost"]["seconds"] for finish in finished)
    workers = os.cpu_count() or 1
    return [
        ("trials finished", f"{len(finished):,}"),
        ("new sweep, from start to end of the command", f"{new['seconds']:.1f} s"),
        (
            "wall time per trial, from the first trial's start to the last one's end",
            f"{1000 * span / len(events):.0f} ms",
        ),
        (f"of that inside the trials (on {workers} CPUs at once)", f"{1000 * busy / len(events) / workers:.0f} ms"),
        ("overhead per trial", f"{1000 * (span - busy / workers) / len(events):.0f} ms"),
        ("memory of the driver, at most", f"{new['memory'] / 1e6:.0f} MB"),
        ("the same command when all is finished", f"{again['seconds']:.1f} s (goal: below 30 s)"),
    ]


def measure_store(storage: Path, runs: int) -> list[Row]:
    """A store with so many made-up runs, written through the tracker, then read."""
    chosen = settings(storage / "data", runs, "many")
    uri = f"sqlite:///{storage}/many.db"
    folder = storage / "many"
    cells = plan(chosen, {"toy": load(storage / "data").fingerprint})
    tracker = open_tracker(uri, "many", storage / "artifacts" / "many")
    resolved = chosen.model_dump(mode="json")
    tracker.sweep_started(resolved, [])
    tracker.sweep_planned([cell.size for cell in cells], len(CONFIRM))
    written = timed(lambda: [_record(tracker, cell, folder) for cell in cells])
    opened = timed(lambda: open_tracker(uri, "many", storage / "artifacts" / "many"))
    found: list[Any] = []
    read = timed(lambda: found.append(read_results(uri, "many")))
    results = found[0]
    report = timed(lambda: write_report(build_report(results), storage / "report", ["md", "csv", "tex"]))
    status = timed(lambda: Console(file=StringIO()).print(show_status(results, time.time())))
    return [
        ("runs in the store", f"{len(results.trials):,}"),
        ("recording a trial", f"{1000 * written / runs:.1f} ms"),
        ("a driver's first look at the store", f"{opened:.1f} s"),
        ("reading all of it, as reports and `sweep status` do", f"{read:.1f} s"),
        ("making the report's files", f"{report:.2f} s"),
        ("making the status", f"{status:.2f} s"),
    ]


def _record(tracker: Any, cell: Cell, folder: Path) -> None:
    """Journals of a cell's trials as finished ones write them, recorded."""
    now = time.time()
    confirmed = [cell.grid[0].model_copy(update={"seed": seed}) for seed in CONFIRM]
    for number, trial in enumerate([*cell.grid, *confirmed]):
        here, value = folder / trial.hash, 0.2 + number / 1e5
        here.mkdir(parents=True, exist_ok=True)
        metrics = {f"{name}_5": value for name in ("precision", "recall", "ndcg", "hit_rate", "mrr")}
        cost = {"seconds": 0.1, "cpu_seconds": 0.1, "gpu_seconds": 0.0, "peak_memory": 4e8}
        valid = {f"valid/{name}": found for name, found in metrics.items()} | {"train/loss": 1.0, "train/seconds": 0.1}
        events: list[dict[str, Any]] = [
            {"event": "start", "time": now, "trial": trial.model_dump(mode="json"), "environment": {"python": "3"}},
            {"event": "valid", "time": now, "epoch": 1, "metrics": valid},
            {"event": "finish", "time": now, "best_epoch": 1, "best": value, "epochs": 1, "seconds": 0.1, "cost": cost},
        ]
        if trial.seed:
            events.append({"event": "test", "time": now, "metrics": {f"test/{k}": v for k, v in metrics.items()}})
        journal.rewrite(here, events)
        tracker.record_trial(here, data_name="toy", stage="confirm" if trial.seed else "grid")
    names = {"data_name": cell.data, "backbone": cell.backbone, "loss": cell.loss}
    tracker.record_selection(**names, trials=[cell.grid[0]], metric="ndcg_5", value=0.2)


def timed(work: Callable[[], Any]) -> float:
    """Wall seconds of some work."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def page(chosen: argparse.Namespace, rows: list[Row]) -> str:
    """The figures as Markdown."""
    command = f"python benchmarks/sweep_scale.py --trials {chosen.trials} --runs {chosen.runs}"
    machine = f"{os.cpu_count()} CPU cores ({platform.machine()}), Python {platform.python_version()}"
    head = f"""# How a sweep scales

Made by `{command}` on {datetime.now(UTC):%Y-%m-%d}; {machine}.
Trials of one epoch on 60 users, through the same path as any sweep; MLflow on a SQLite file.

| what | measured |
|---|--:|
"""
    return head + "".join(f"| {what} | {measured} |\n" for what, measured in rows)


if __name__ == "__main__":
    main()
