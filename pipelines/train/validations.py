"""A validation as an event of the journal and as a line of the log."""

from typing import Any

from recloss.training import Validation


def event(validation: Validation) -> dict[str, Any]:
    """A validation as an event of the journal."""
    metrics = {f"valid/{name}": value for name, value in validation.metrics.items()}
    metrics |= {"train/loss": validation.loss, "train/seconds": validation.seconds}
    return {"event": "valid", "time": validation.time, "epoch": validation.epoch, "metrics": metrics}


def from_event(event: dict[str, Any]) -> Validation:
    """The validation that an event of the journal tells of."""
    metrics = dict(event["metrics"])
    loss, seconds = metrics.pop("train/loss"), metrics.pop("train/seconds")
    valid = {name.removeprefix("valid/"): value for name, value in metrics.items()}
    return Validation(event["epoch"], loss, valid, seconds, event["time"])


def line(validation: Validation) -> str:
    """A validation as one line of a trial's log."""
    metrics = "  ".join(f"{name} {value:.4f}" for name, value in validation.metrics.items())
    return f"epoch {validation.epoch:4d}  loss {validation.loss:.4f}  {metrics}  {validation.seconds:.1f} s"
