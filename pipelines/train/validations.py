"""A validation as an event of the journal and as a line of the log."""

import math
from typing import Any

from recloss.training import Validation


def event(validation: Validation) -> dict[str, Any]:
    """A validation as an event of the journal."""
    metrics = {f"valid/{name}": value for name, value in validation.metrics.items()}
    if not math.isnan(validation.loss):  # a reference has none
        metrics["train/loss"] = validation.loss
    metrics["train/seconds"] = validation.seconds
    told = {"train/threshold": validation.threshold, "train/threshold_error": validation.threshold_error}
    metrics |= {name: value for name, value in told.items() if value is not None}
    return {"event": "valid", "time": validation.time, "epoch": validation.epoch, "metrics": metrics}


def from_event(event: dict[str, Any]) -> Validation:
    """The validation that an event of the journal tells of."""
    metrics = dict(event["metrics"])
    loss, seconds = metrics.pop("train/loss", math.nan), metrics.pop("train/seconds")
    threshold, error = metrics.pop("train/threshold", None), metrics.pop("train/threshold_error", None)
    valid = {name.removeprefix("valid/"): value for name, value in metrics.items()}
    return Validation(event["epoch"], loss, valid, seconds, event["time"], threshold, error)


def line(validation: Validation) -> str:
    """A validation as one line of a trial's log."""
    metrics = "  ".join(f"{name} {value:.4f}" for name, value in validation.metrics.items())
    loss = "" if math.isnan(validation.loss) else f"loss {validation.loss:.4f}  "
    return f"epoch {validation.epoch:4d}  {loss}{metrics}  {validation.seconds:.1f} s"
