"""The folder of a trial, ``<storage>/<sweep>/<trial hash>/``, and what it says.

It holds ``journal.jsonl`` (see ``journal``), ``checkpoint.pt`` while it trains, ``model.pt`` (the best state) when it
is finished, after test scoring ``test_users.parquet``, the per-user test metrics, and ``diagnostics.json`` (see
``diagnostics``), and in a sweep ``log.txt``.
"""

from pathlib import Path
from typing import Any, Literal

from pipelines.train import journal
from recloss.checkpoints import load_checkpoint

CHECKPOINT, MODEL, TEST_USERS, DIAGNOSTICS = "checkpoint.pt", "model.pt", "test_users.parquet", "diagnostics.json"
CONFIG = "trial.json"
"""Settings of a confirmed trial, for who finds its model in the artifact store."""
Status = Literal["missing", "cut off", "finished", "failed"]


def status(folder: Path) -> Status:
    """What a trial's folder says about it. A diverged trial has failed for good; other failures may be tried again."""
    events = journal.read(folder)
    if journal.last(events, "finish") and (folder / MODEL).exists():
        return "finished"
    if failure := journal.last(events, "fail"):
        return "failed" if failure.get("kind") == "diverged" else "cut off"
    return "cut off" if events else "missing"


def reached(folder: Path) -> int:
    """Epoch of a trial's latest validation; 0 before the first."""
    latest = journal.last(journal.read(folder), "valid")
    return latest["epoch"] if latest else 0


def progress(folder: Path) -> dict[str, Any] | None:
    """What the checkpoint in a folder knows of its run, ``None`` without one. A damaged one is removed: what it held is
    trained again."""
    try:
        return load_checkpoint(folder / CHECKPOINT)["progress"]
    except ValueError:
        (folder / CHECKPOINT).unlink(missing_ok=True)
        return None


def next_epoch(folder: Path) -> int:
    """The epoch that a trial goes on with."""
    known = progress(folder)
    return known["epoch"] + 1 if known else 1
