"""The runs of an experiment that are ours, found by their tags."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as MlflowRun

MANIFESTS = "data"
"""Artifact folder of a sweep's run: the manifest of every prepared dataset that it was started on, by fingerprint."""

DESCRIPTION = "mlflow.note.content"
"""Tag of a run that MLflow shows as Markdown; a user may write it there."""
SIGNED = "*Written by recloss; a text of your own in its place stays.*\n\n"
"""Start of a description that may be replaced."""

Key = tuple[str, ...]
"""``("sweep",)``, ``("cell", data, backbone, loss)`` or ``("trial", hash)``."""


@dataclass
class Run:
    """What this process knows of a run."""

    id: str
    status: str
    tags: dict[str, str]
    params: dict[str, str]
    metrics: dict[str, float]
    start: int
    """Unix milliseconds."""
    end: int | None
    artifacts: str
    """URI of the folder of its artifacts."""
    inputs: set[str]
    """Digests of the datasets that it has as inputs."""
    logged: dict[tuple[str, int], float] | None = None
    """By (metric, step), what the store holds; unknown until it matters."""

    @classmethod
    def of(cls, run: "MlflowRun") -> "Run":
        """From what MLflow returned."""
        i, d = run.info, run.data
        inputs = {given.dataset.digest for given in run.inputs.dataset_inputs} if run.inputs else set()
        return cls(i.run_id, i.status, d.tags, d.params, d.metrics, i.start_time, i.end_time, i.artifact_uri, inputs)


def scan(client: "MlflowClient", experiment_id: str) -> dict[Key, Run]:
    """All runs that carry our tags; of two for the same thing, the older."""
    runs: dict[Key, Run] = {}
    order = ["attributes.start_time DESC"]
    with _uncollected():
        ours = [
            Run.of(found)
            for found in paged(lambda token: client.search_runs([experiment_id], order_by=order, page_token=token))
        ]
    for run in ours:
        match run.tags.get("recloss.kind"):
            case "sweep":
                runs["sweep",] = run
            case "cell":
                runs["cell", *(run.tags[f"recloss.{part}"] for part in ("data", "backbone", "loss"))] = run
            case "trial":
                runs["trial", run.tags["recloss.trial"]] = run
    return runs


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without garbage collection: with thousands of runs it goes through the growing heap again and again, which takes
    two thirds of the time, and finds nothing.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def paged(page: Callable[[str | None], Any]) -> Iterator[Any]:
    """The entries of all pages of a search."""
    token = None
    while True:
        found = page(token)
        yield from found
        token = found.token
        if not token:
            return
