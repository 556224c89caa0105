"""The journal of a trial: what happened, in order, as JSON lines beside its checkpoint.

A trial only ever writes its own folder ``<storage>/<sweep>/<trial hash>/``; the driver reads the journals and
writes the tracking store. One line is one event:

    {"event": "start",  "time": <unix s>, "trial": {...Trial...}, "environment": {...}, "attempt": "<id>",
                        "cost": {...}, "failures": [{"time": ..., "kind": ..., "error": ...}]}
    {"event": "valid",  "time": ..., "epoch": 5, "metrics": {"valid/ndcg_20": ..., "train/loss": ...}, "cost": {...}}
    {"event": "finish", "time": ..., "best_epoch": 15, "best": 0.31, "epochs": 20, "seconds": 12.3, "cost": {...}}
    {"event": "fail",   "time": ..., "kind": "diverged", "error": "...", "cost": {...}}
    {"event": "prune",  "time": ..., "rung": 1, "rank": 5, "of": 9, "kept": 3}
    {"event": "test",   "time": ..., "metrics": {"test/ndcg_20": ...}}

The driver alone writes "prune", into the journal of a trial that does not run.

"cost" (see `cost`) is that of the whole trial so far; a start's, and its "failures", are of earlier attempts.
"""

import json
import os
from pathlib import Path
from typing import Any

from recloss.errors import InputError

FILE = "journal.jsonl"


def append(folder: Path, event: dict[str, Any]) -> None:
    """Add one event, after removing a last line that a crash cut short; it is on disk when this returns."""
    with open(folder / FILE, "a+b") as file:
        file.seek(0)
        whole = file.read().rfind(b"\n") + 1
        file.truncate(whole)
        file.write(json.dumps(event).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def rewrite(folder: Path, events: list[dict[str, Any]]) -> None:
    """Replace the journal in one step."""
    temporary = folder / (FILE + ".tmp")
    temporary.write_text("".join(json.dumps(event) + "\n" for event in events), encoding="utf-8")
    os.replace(temporary, folder / FILE)


def read(folder: Path) -> list[dict[str, Any]]:
    """All whole events; a last line that a crash cut short is not an event.

    Raises:
        InputError: naming the line, where the journal is damaged before its end.
    """
    path = folder / FILE
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    events = []
    for number, line in enumerate(lines, start=1):
        try:
            events.append(json.loads(line))
        except json.JSONDecodeError:
            if number == len(lines) and not line.endswith("\n"):
                break
            raise InputError(
                f"{path}, line {number}: not a JSON event; remove the folder to train the trial again"
            ) from None
    return events


def last(events: list[dict[str, Any]], kind: str) -> dict[str, Any] | None:
    """The latest event of a kind."""
    return next((event for event in reversed(events) if event["event"] == kind), None)
