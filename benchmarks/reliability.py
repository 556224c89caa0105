"""The fault campaign: a sweep that is left alone, and the same sweep under faults. Writes docs/reliability.md.

    python benchmarks/reliability.py [--faults 56] [--seed 0] [--minutes 90] [--out docs/reliability.md]

Both are run by `recloss sweep` on a Ray cluster of simulated nodes, recorded by an MLflow server, and end in a table.
The faults are drawn by the seed, as many of each kind, and strike one after the other as the sweep goes on; after one
that ends the driver the same command is run again. Then all that the two stores and folders hold is compared, bit for
bit.

Linux only. The storage is filled only as root, who may mount a small file system for it. MovieLens-100K comes from
RECLOSS_DATA or is fetched.
"""

import argparse
import os
import random
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from common import Others, machine
from faults import FAULTS, draw, small_disk
from rig import Rig, Watch

from pipelines.report import build_report, write_report
from pipelines.tracking import Results, TrialRun, read_results
from pipelines.train.folder import MODEL, TEST_USERS

ROOT = Path(__file__).resolve().parent.parent
NAME = "campaign"
FULL = "storage full for a while"
EXACT = ("valid/", "test/", "train/loss", "best")
"""Metrics that must be equal to the last bit; the others are times and memory."""
LR_TAU = {"optim.lr": [0.1, 0.05], "loss.tau": [0.1, 0.15, 0.2, 0.3]}
SWEEP: dict[str, Any] = {
    "name": NAME,
    "backbones": {"mf": {"backbone.dim": 32}},
    "losses": {
        "bpr": {"optim.lr": [0.01, 0.003, 0.001], "optim.weight_decay": [0, 1e-6]},
        "sl": {"optim.weight_decay": 0, **LR_TAU},
        "psl": {"optim.weight_decay": 0, **LR_TAU},
        "talos": {"optim.weight_decay": 0, **LR_TAU},
        "slatk": {"optim.weight_decay": 0, "loss.tau_weight": 1.0, "loss.refresh": 5, **LR_TAU},
    },
    "settings": {"train.epochs": 60, "train.valid_every": 5, "train.patience": 60, "train.negatives": 128},
    "confirm_seeds": [1, 2],
}
"""38 trials to search and 10 confirmations; `data` is added."""
GOOD = (
    "**They are equal, bit for bit**: every metric of every trial at its last validation and on the test split, every "
    "model, every user's scores, what was selected, and the tables. No trial is missing, no trial, no measurement is "
    "recorded twice, no run is left RUNNING."
)
DATA = {"fetch": "ml-100k", "prepare": {"format": "movielens", "min_rating": 3, "k_core": 10}}


@dataclass
class Outcome:
    """What came of a run of the campaign's sweep."""

    seconds: float = 0.0
    runs: int = 0
    """Of the command."""
    validations: int = 0
    again: int = 0
    """Validations that were made a second time."""
    struck: list[tuple[str, int]] = field(default_factory=list)
    """Each fault, with the number of trials that were training when it struck them."""
    surprises: list[str] = field(default_factory=list)
    """Last line of the driver where it ended without being told to."""


def run(rig: Rig, faults: list[str], planned: int, rng: random.Random, deadline: float) -> Outcome:
    """Run a sweep to its end, with faults spread over ``planned`` validations.

    Raises:
        TimeoutError: if it is not over at the deadline (of `time.monotonic`).
    """
    outcome, watch, began = Outcome(), Watch(rig.trials), time.monotonic()
    rig.drive()
    outcome.runs = 1
    while True:
        watch.look()
        if (code := rig.driver.poll()) is not None:
            if code == 0:
                break
            outcome.surprises.append(f"exit code {code}: {last_line(rig.output(rig.driver))}")
            rig.drive()
            outcome.runs += 1
        elif faults and watch.progress >= planned * (len(outcome.struck) + 1) / (len(faults) + len(outcome.struck) + 2):
            before = rig.driver
            struck = FAULTS[faults[0]](rig, rng)
            outcome.runs += rig.driver is not before
            if struck is not None:
                outcome.struck.append((faults.pop(0), len(struck)))
                print(f"{time.monotonic() - began:6.0f} s  {watch.progress:4d}  {outcome.struck[-1]}", flush=True)
        if time.monotonic() > deadline:
            raise TimeoutError(f"{watch.progress} of {planned} validations: {rig.output(rig.driver)}")
        time.sleep(0.1)
    watch.look()
    outcome.seconds, outcome.validations, outcome.again = time.monotonic() - began, watch.progress, watch.again
    return outcome


def last_line(text: str) -> str:
    return next((line for line in reversed(text.splitlines()) if line.strip()), "no output")


@dataclass(frozen=True)
class Left:
    """What a run of the sweep left behind."""

    outcome: Outcome
    results: Results
    trials: Path
    database: Path


def differences(one: Left, two: Left, scratch: Path) -> list[str]:
    """Everything in which two runs of a sweep differ and should not, in words; empty if nothing."""
    known, found = ({t.hash: exact(t) for t in left.results.trials} for left in (one, two))
    told = [f"trial {name} is missing" for name in known.keys() - found.keys()]
    told += [f"trial {name} is too much" for name in found.keys() - known.keys()]
    for name in known.keys() & found.keys():
        if known[name] != found[name]:
            told.append(f"trial {name}: {known[name]} became {found[name]}")
        for file in (MODEL, TEST_USERS):
            if content(one.trials / name / file) != content(two.trials / name / file):
                told.append(f"trial {name}: another {file}")
    if one.results.selections != two.results.selections:
        told.append("other configurations were selected")
    for number, left in enumerate((one, two)):
        write_report(build_report(left.results), scratch / str(number), ["csv"])
    for name in ("table.csv", "seeds.csv"):
        if (scratch / "0" / name).read_bytes() != (scratch / "1" / name).read_bytes():
            told.append(f"another {name}")
    return told + defects(two.database)


def exact(trial: TrialRun) -> tuple[Any, ...]:
    metrics = {name: value for name, value in trial.metrics.items() if name.startswith(EXACT)}
    return trial.status, trial.stages, trial.params, metrics


def content(file: Path) -> bytes | None:
    return file.read_bytes() if file.exists() else None


def defects(database: Path) -> list[str]:
    """Trials or measurements that the store holds twice, and runs it believes running."""
    twice = "group by {0} having count(*) > 1"
    asked = {
        "a trial has two runs: {}": "select value from tags where key = 'recloss.trial' " + twice.format("value"),
        "a measurement is there twice: {}, {}, step {}": (
            "select run_uuid, key, step from metrics " + twice.format("run_uuid, key, step")
        ),
        "a run is still RUNNING: {}": "select name from runs where status = 'RUNNING'",
    }
    with closing(sqlite3.connect(database)) as connection:
        return [words.format(*row) for words, query in asked.items() for row in connection.execute(query)]


def page(quiet: Outcome, disturbed: Outcome, found: list[str], trials: int, command: str, note: str) -> str:
    """docs/reliability.md."""
    count, struck = len(disturbed.struck), sum(number for _, number in disturbed.struck)
    every, epochs = SWEEP["settings"]["train.valid_every"], quiet.validations * SWEEP["settings"]["train.valid_every"]
    kinds = {kind: [number for other, number in disturbed.struck if other == kind] for kind in FAULTS}
    rows = [(kind, len(numbers), sum(numbers)) for kind, numbers in kinds.items() if numbers]
    verdict = GOOD if not found else f"The outcomes **differ in {len(found)} places**, of which the first are:"
    lost = (
        f"Work done again: a struck trial goes on from its last validation, {every} epochs apart here. So {struck} "
        f"trials trained less than {struck * every} of {epochs} epochs again ({struck * every / epochs:.0%}), and made "
        f"{disturbed.again} validations again, whose checkpoint was damaged or not written yet."
    )
    runs = [
        ("wall time, s", f"{quiet.seconds:.0f}", f"{disturbed.seconds:.0f}"),
        ("runs of the command", quiet.runs, disturbed.runs),
        ("validations", quiet.validations, disturbed.validations),
        ("validations made again", quiet.again, disturbed.again),
    ]
    parts = [
        "# The fault campaign",
        f"Written by `{command}`, whose docstring says how it is done. {note}",
        f"A sweep of {trials} trials on MovieLens-100K, left alone and under {count} faults. {verdict}",
        bullets(found[:20]),
        table(("fault", "times", "trials struck"), [*rows, ("all", count, struck)]),
        table(("", "left alone", "under faults"), runs),
        lost,
        "Where the command ended by itself, it was run again:" if disturbed.surprises else "",
        bullets(f"`{surprise}`" for surprise in disturbed.surprises),
        table(("machine", ""), machine().items()),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"* {line}" for line in lines)


def table(head: tuple[str, ...], rows: Iterable[Iterable[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)


def campaign(
    folder: Path, sweep: dict[str, Any], kinds: Iterable[str], count: int, seed: int, seconds: float
) -> tuple[Left, Left, list[str]]:
    """The sweep left alone, the sweep under so many faults of these kinds, and in what they differ.

    Raises:
        TimeoutError: if it takes longer.
    """
    deadline, rng = time.monotonic() + seconds, random.Random(seed)
    file = folder / "sweep.yaml"
    file.write_text(yaml.safe_dump(sweep))

    def left(which: str, storage: Path, faults: list[str], planned: int) -> Left:
        rig.open(storage, file, sweep["name"], folder / f"{which}.db")
        outcome = run(rig, faults, planned, rng, deadline)
        results = read_results(rig.uri, rig.name)
        rig.end_server()
        return Left(outcome, results, rig.trials, rig.database)

    with small_disk(folder / "disk", megabytes=256) as small:
        faults = draw(count, [kind for kind in kinds if small or kind != FULL], rng)
        rig = Rig(folder)
        try:
            alone = left("alone", folder / "runs", [], 0)
            struck = left("struck", folder / "disk" / "runs", faults, alone.outcome.validations)
            return alone, struck, differences(alone, struck, folder / "reports")
        finally:
            rig.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=56)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=90, help="give up after so long")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "reliability.md")
    arguments = parser.parse_args()
    before = Others.now()
    with tempfile.TemporaryDirectory(prefix="rl", ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        sweep = SWEEP | {"data": [{"name": "ml-100k", "path": str(folder / "ml-100k"), **DATA}]}
        seconds = arguments.minutes * 60
        alone, struck, found = campaign(folder, sweep, FAULTS, arguments.faults, arguments.seed, seconds)
    command = " ".join(["python", "benchmarks/reliability.py", *sys.argv[1:]])
    full = "" if os.geteuid() == 0 else " The storage was not filled: that needs root."
    note = f"Before it the machine was watched for a second: {before}.{full}"
    arguments.out.write_text(
        page(alone.outcome, struck.outcome, found, len(alone.results.trials), command, note), encoding="utf-8"
    )
    print(arguments.out)
    return int(bool(found) or len(struck.outcome.struck) < arguments.faults)


if __name__ == "__main__":
    sys.exit(main())
