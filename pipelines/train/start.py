"""The start of an attempt at a trial, in its journal."""

import time
from pathlib import Path

from pipelines.settings import Trial
from pipelines.train import journal, validations
from pipelines.train.cost import Cost
from pipelines.train.folder import progress
from recloss.training import Validation


def open_journal(trial: Trial, folder: Path, attempt: str, environment: dict[str, str]) -> Cost:
    """Start the journal, or bring it to what the checkpoint knows: the two are written one after the other.

    Returns:
        What earlier attempts used.
    """
    before = journal.read(folder)
    started = journal.last(before, "start") or {}
    known = progress(folder)
    history = known["history"] if known else []
    costs = [event["cost"] for event in before if "cost" in event]
    failed = [{key: event[key] for key in ("time", "kind", "error")} for event in before if "kind" in event]
    start = {
        "event": "start",
        "time": started.get("time", time.time()),
        "trial": trial.model_dump(mode="json"),
        "environment": environment,
        "attempt": attempt,
        "cost": costs[-1] if costs else Cost().json(),
        "failures": started.get("failures", []) + failed,
    }
    journal.rewrite(folder, [start, *(validations.event(Validation(**validation)) for validation in history)])
    return Cost(**start["cost"])
