"""What the reports read: everything the tracking and artifact stores hold on a sweep."""

import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.tracking.runs import MANIFESTS, Run, paged, scan
from pipelines.tracking.store import check_not_deleted, contact, reason, redact, shown
from recloss.errors import InputError, choices

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment

_COST = "cost/"
_ENV = "recloss.env."


@dataclass(frozen=True)
class TrialRun:
    """What the store holds on one trial."""

    hash: str
    data: str
    """Name of the data set in the sweep."""
    fingerprint: str
    """Content fingerprint of the prepared data set."""
    backbone: str
    loss: str
    seed: int
    stages: tuple[str, ...]
    """"grid", "confirm" or both."""
    status: str
    """RUNNING, FINISHED, FAILED or KILLED."""
    params: dict[str, str]
    """`Trial.flat`, as text."""
    metrics: dict[str, float]
    """Latest values; empty unless the trial is FINISHED."""
    start: float
    """Unix seconds."""
    end: float | None
    """Unix seconds; none while the trial is RUNNING."""
    error: str | None
    pruned: bool = False
    """Successive halving ended it (then it is KILLED)."""
    failures: tuple[str, ...] = ()
    """The kind of every failure (see `pipelines.train.failures`), the last one's last; resumed or not."""
    cost: dict[str, float] = field(default_factory=dict)
    """By the names of `pipelines.train.cost.Cost`; empty before the trial ended."""
    run_id: str = ""
    """MLflow's own id of the run."""
    artifacts: str = ""
    """URI of the folder of its artifacts."""
    environment: dict[str, str] = field(default_factory=dict)
    """Where it ran (see `pipelines.train.environment`); of nested entries the names are dotted."""

    @property
    def epoch_seconds(self) -> float | None:
        """Training time of an epoch, validations not counted; ``None`` where the number of epochs is not recorded."""
        epochs = self.metrics.get("epochs")
        return self.metrics["seconds"] / epochs if epochs else None

    @property
    def configuration(self) -> dict[str, str]:
        """The parameters without the seed: equal for the seeds of one configuration."""
        return {key: value for key, value in self.params.items() if key != "seed"}


@dataclass(frozen=True)
class Selection:
    """The configuration that won a cell's search."""

    trials: tuple[str, ...]
    """Hashes of its grid trials, one per seed."""
    metric: str
    """Such as ``valid/ndcg_20``."""
    value: float
    configuration: dict[str, str]
    """`Trial.flat` without the seed, as text."""


@dataclass(frozen=True)
class Driver:
    """The process that runs a sweep, or ran it last."""

    host: str
    pid: int
    seen: float
    """Unix seconds by its own clock, renewed every half minute."""
    status: str
    """Of the sweep: RUNNING, FINISHED, FAILED or KILLED."""


@dataclass(frozen=True)
class Plan:
    """How many trials a sweep has, at most."""

    search: list[int]
    """Of each cell's search, in the order of the settings: data sets, backbones, losses."""
    confirm: int
    """Confirmations of each cell."""


@dataclass(frozen=True)
class Results:
    """Everything the store holds on a sweep."""

    experiment: str
    settings: dict[str, Any]
    """The resolved sweep file of the latest run."""
    trials: tuple[TrialRun, ...]
    selections: dict[tuple[str, str, str], Selection]
    """By (data set, backbone, loss); cells without a selection are absent."""
    manifests: dict[str, dict[str, Any]]
    """By fingerprint, of every data set that the sweep was started on."""
    notes: dict[tuple[str, str, str], tuple[str, ...]] = field(default_factory=dict)
    """What a reader should know of a cell's search; cells without notes are absent."""
    driver: Driver | None = None
    plan: Plan | None = None
    experiment_id: str = ""
    """MLflow's own id of the experiment."""
    run_ids: dict[tuple[str, ...], str] = field(default_factory=dict)
    """MLflow's own ids of the runs of the sweep, by ``()``, and of its cells, by (data set, backbone, loss)."""


def experiments(uri: str) -> list[str]:
    """Names of the sweeps in a tracking store, sorted.

    Raises:
        InputError: if the URI is malformed or the store does not answer.
    """
    with contact(uri, create=False) as client:
        return _experiments(client)


def read_results(uri: str, experiment: str) -> Results:
    """Everything the tracking and artifact stores hold on a sweep.

    Raises:
        InputError: if the store does not answer, has no such sweep (naming the nearest), or the sweep's
            settings are gone from the artifact store.
    """
    with contact(uri, create=False) as client:
        found = client.get_experiment_by_name(experiment)
        if found is None:
            known = _experiments(client)
            empty = f"unknown sweep {experiment!r}: the tracking store {shown(uri)} holds no sweep yet"
            raise InputError(choices("sweep", experiment, known) if known else empty)
        check_not_deleted(found)
    runs = scan(client, found.experiment_id)
    if ("sweep",) not in runs:
        raise InputError(f"experiment {experiment!r} holds no sweep, so there is nothing to compare")
    selections, notes = {}, {}
    for key, run in runs.items():
        if key[0] == "cell" and "recloss.notes" in run.tags:
            notes[key[1], key[2], key[3]] = tuple(json.loads(run.tags["recloss.notes"]))
        if key[0] == "cell" and "recloss.selected" in run.tags:
            raw = json.loads(run.tags["recloss.selected"])
            selections[key[1], key[2], key[3]] = Selection(**raw | {"trials": tuple(raw["trials"])})
    trials = [_trial(run) for key, run in runs.items() if key[0] == "trial"]
    trials.sort(key=lambda t: (t.data, t.backbone, t.loss, t.seed, t.hash))
    settings, manifests = _read_artifacts(client, runs["sweep",].id, found)
    driver, plan = _told(runs["sweep",])
    run_ids = {key[1:]: run.id for key, run in runs.items() if key[0] in ("sweep", "cell")}
    return Results(
        found.name, settings, tuple(trials), selections, manifests, notes, driver, plan, found.experiment_id, run_ids
    )


def _told(sweep: Run) -> tuple[Driver | None, Plan | None]:
    """What the driver tells readers; a sweep of before drivers did has neither."""
    driver, plan = (json.loads(sweep.tags.get(f"recloss.{name}", "null")) for name in ("driver", "plan"))
    return driver and Driver(**driver, status=sweep.status), plan and Plan(**plan)


def _trial(run: Run) -> TrialRun:
    tags = run.tags
    return TrialRun(
        hash=tags["recloss.trial"],
        data=tags["recloss.data"],
        fingerprint=tags["recloss.fingerprint"],
        backbone=tags["recloss.backbone"],
        loss=tags["recloss.loss"],
        seed=int(tags["recloss.seed"]),
        stages=tuple(stage for stage in tags["recloss.stage"].split(",") if stage),
        status=run.status,
        params=run.params,
        metrics={k: v for k, v in run.metrics.items() if not k.startswith(_COST)} if run.status == "FINISHED" else {},
        start=run.start / 1000,
        end=None if run.end is None or run.status == "RUNNING" else run.end / 1000,
        error=tags.get("recloss.error"),
        failures=tuple(kind for kind in tags.get("recloss.failures", "").split(", ") if kind),
        cost={k.removeprefix(_COST): v for k, v in run.metrics.items() if k.startswith(_COST)},
        pruned="recloss.pruned" in tags,
        run_id=run.id,
        artifacts=run.artifacts,
        environment={k.removeprefix(_ENV): v for k, v in tags.items() if k.startswith(_ENV)},
    )


def _experiments(client: "MlflowClient") -> list[str]:
    ours = "tags.`recloss.kind` = 'sweep'"
    found = paged(lambda token: client.search_experiments(filter_string=ours, page_token=token))
    return sorted(experiment.name for experiment in found)


def _read_artifacts(
    client: "MlflowClient", run_id: str, experiment: "Experiment"
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The settings of the sweep, and by fingerprint the manifests of its data (none of before they were recorded)."""
    from mlflow.exceptions import MlflowException

    with tempfile.TemporaryDirectory() as folder:
        try:
            settings = Path(client.download_artifacts(run_id, "sweep.json", folder))
            kept = client.list_artifacts(run_id, MANIFESTS)
            manifests = [Path(client.download_artifacts(run_id, info.path, folder)) for info in kept]
        except (MlflowException, OSError) as error:
            place = redact(experiment.artifact_location)
            missing = f"sweep {experiment.name!r}: sweep.json cannot be read from the artifact store {place}"
            raise InputError(f"{missing} ({reason(error)})") from None
        return _json(settings), {file.stem: _json(file) for file in manifests}


def _json(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return content
