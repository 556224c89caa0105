"""What the driver of a sweep writes: runs of the sweep, its cells and, from their journals, its trials."""

import json
import os
import socket
import time
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pipelines.settings import REFERENCE, Trial
from pipelines.tracking.inputs import dataset_input
from pipelines.tracking.runs import DESCRIPTION, MANIFESTS, SIGNED, Key, Run, scan
from pipelines.tracking.store import check_not_deleted, contact
from pipelines.train import journal
from recloss.errors import InputError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput

ERROR_LENGTH = 500
"""Longer error texts of failed trials are cut."""

Measured = dict[tuple[str, float, int], int]
"""(metric, value, step) to unix milliseconds."""

_TRAINS_MODELS = {"mlflow.experimentKind": "custom_model_development"}
"""Without it MLflow's pages show a new experiment as one of generative AI: no charts, no table of runs."""
STAGES = ("grid", "confirm")
_STAGE_WORDS = {"grid": "the search", "confirm": "the confirmation"}
_POINTS_PER_BATCH = 800
"""MLflow takes 1000 entries at once, measurements, parameters and tags together."""


def open_tracker(uri: str, experiment: str, artifacts: Path) -> "Tracker":
    """Connect to a tracking store, set it up where it is new (seconds), and open the sweep's experiment.

    Args:
        uri: ``sqlite:///<file>``, a database server or ``http(s)://<MLflow server>``.
        experiment: name of the sweep.
        artifacts: folder for the artifacts of a new experiment; an MLflow server has its own place for them.

    Raises:
        InputError: one line, if the URI is malformed, the store does not answer within seconds, or the
            experiment was deleted.
    """
    with contact(uri, create=True) as client:
        found = client.get_experiment_by_name(experiment)
        if found is None:
            place = None if uri.startswith("http") else str(artifacts.absolute())
            found = client.get_experiment(client.create_experiment(experiment, place, _TRAINS_MODELS))
        check_not_deleted(found)
    return Tracker(client, found.experiment_id)


class Tracker:
    """Writes one sweep, or trials outside any sweep: before `sweep_started` their runs have no parent.

    When the store is lost in the middle, MLflow's own exceptions are raised.
    """

    def __init__(self, client: "MlflowClient", experiment_id: str):
        self._client = client
        self._experiment_id = experiment_id
        self._inputs: dict[str, DatasetInput] = {}
        """By fingerprint, the datasets of which trials are told."""
        self.reread()

    def reread(self) -> None:
        """Forget what was known of the runs and look at the store: after a write of which the end is not known."""
        self._runs = scan(self._client, self._experiment_id)

    def sweep_started(self, settings: dict[str, Any], manifests: Iterable[dict[str, Any]] = ()) -> None:
        """Set the sweep's run RUNNING, and its open cells.

        Its resolved settings become ``sweep.json``; the manifests of its prepared datasets are kept beside those of
        earlier starts, so that a report can say how two contents differ.
        """
        self._client.set_experiment_tag(self._experiment_id, "recloss.kind", "sweep")
        sweep = self._sweep()
        self._set_status(sweep, "RUNNING")
        named = {f"recloss.{key}": settings[key] for key in ("backbones", "losses", "baselines")}
        if settings.get("references"):
            named["recloss.references"] = settings["references"]
        named["recloss.data"] = [data["name"] for data in settings["data"]]
        self._log(sweep, {key: ", ".join(names) for key, names in named.items()}, {}, {})
        self._client.log_text(sweep.id, json.dumps(settings, indent=2) + "\n", "sweep.json")
        kept = {info.path for info in self._client.list_artifacts(sweep.id, MANIFESTS)}
        for manifest in manifests:
            if (path := f"{MANIFESTS}/{manifest['fingerprint']}.json") not in kept:
                self._client.log_text(sweep.id, json.dumps(manifest, indent=2) + "\n", path)
        for cell in self._of_kind("cell"):
            if "recloss.selected" not in cell.tags:
                self._set_status(cell, "RUNNING")

    def sweep_data(self, datasets: Iterable[tuple[str, Path, dict[str, Any]]]) -> None:
        """Log prepared datasets as inputs of the sweep's run, and from now on each as the input of its trials.

        Args:
            datasets: of each its name in the sweep, its folder and its manifest.
        """
        self._inputs = {
            manifest["fingerprint"]: dataset_input(name, path, manifest) for name, path, manifest in datasets
        }
        self._log_inputs(self._sweep(), list(self._inputs.values()))

    def sweep_planned(self, searched: Sequence[int], confirmations: int) -> None:
        """Tell readers how many trials there will be at most.

        Args:
            searched: trials of each cell's search, in the order of the settings.
            confirmations: of each cell.
        """
        plan = json.dumps({"search": list(searched), "confirm": confirmations}, separators=(",", ":"))
        self._log(self._sweep(), {"recloss.plan": plan}, {}, {})

    def driver_seen(self) -> None:
        """Tell readers that this process drives the sweep, and lives."""
        driver = {"host": socket.gethostname(), "pid": os.getpid(), "seen": round(time.time())}
        self._log(self._sweep(), {"recloss.driver": json.dumps(driver)}, {}, {})

    def sweep_ended(self, status: Literal["FINISHED", "KILLED", "FAILED"]) -> None:
        """End the sweep's run; cells without a selection end FAILED, or KILLED with the sweep."""
        for cell in self._of_kind("cell"):
            if cell.status == "RUNNING":
                self._set_status(cell, "KILLED" if status == "KILLED" else "FAILED")
        self._set_status(self._sweep(), status)

    def record_trial(self, folder: Path, *, data_name: str, stage: Literal["grid", "confirm"]) -> None:
        """Bring the run of a trial up to date with the journal in its folder; no journal, no run.

        A failed trial gets its error and no measurement, a pruned one is KILLED with the tag ``recloss.pruned``.

        Raises:
            InputError: if the journal is damaged, or the experiment has the same data under another name.
        """
        events = journal.read(folder)
        start = journal.last(events, "start")
        if start is None:
            return
        trial = Trial.model_validate(start["trial"])
        status = _status(events)
        run = self._trial(folder.name, trial, data_name, _milliseconds(events[0]))
        if (recorded := run.tags["recloss.data"]) != data_name:
            raise InputError(
                f"data sets {recorded!r} and {data_name!r} have the same content (fingerprint "
                f"{trial.data[:12]}); within one experiment a data set keeps one name"
            )
        stages = ",".join(s for s in STAGES if s == stage or s in run.tags["recloss.stage"].split(","))
        tags = {"recloss.stage": stages, "recloss.journal": f"{len(events)} events to {events[-1]['time']}"}
        if run.status == status and tags.items() <= run.tags.items():
            return
        tags |= _environment_tags(start["environment"])
        if run.tags.get(DESCRIPTION, SIGNED).startswith(SIGNED):
            tags[DESCRIPTION] = SIGNED + _described(trial, data_name, stages)
        if status == "FAILED":
            tags["recloss.error"] = _cut(str(events[-1]["error"]))
        else:
            self._delete_tag(run, "recloss.error")
        if (last := events[-1])["event"] == "prune":
            tags["recloss.pruned"] = f"rung {last['rung']}: place {last['rank']} of {last['of']}, {last['kept']} go on"
        else:
            self._delete_tag(run, "recloss.pruned")
        failed = [*start.get("failures", []), *(event for event in events if "kind" in event)]
        if failed:
            tags["recloss.failures"] = _cut(", ".join(failure["kind"] for failure in failed))
        params = {key: str(value) for key, value in trial.flat().items()}
        measured = {} if status == "FAILED" else _measurements(events)
        if status != "RUNNING":
            measured |= _cost(events)
            for log in sorted(folder.glob("log*.txt")):
                self._client.log_artifact(run.id, str(log))
        if trial.data in self._inputs:
            self._log_inputs(run, [self._inputs[trial.data]])
        self._log(run, tags, params, measured)
        self._set_status(run, status, end=_milliseconds(events[-1]))

    def record_selection(
        self, *, data_name: str, backbone: str, loss: str, trials: Sequence[Trial], metric: str, value: float
    ) -> None:
        """Finish a cell: which configuration won its search.

        Args:
            data_name: name of the data set in the sweep.
            backbone: name of the backbone.
            loss: name of the loss.
            trials: the grid trials of the winning configuration, one per seed.
            metric: the validation metric that selected it, such as ``ndcg_20``.
            value: its mean over the trials.
        """
        cell = self._cell(data_name, backbone, loss)
        selection = {
            "trials": [trial.hash for trial in trials],
            "metric": f"valid/{metric}",
            "value": value,
            "configuration": {key: str(v) for key, v in trials[0].flat().items() if key != "seed"},
        }
        text = json.dumps(selection, sort_keys=True)
        if cell.tags.get("recloss.selected") != text:
            self._client.log_metric(cell.id, f"valid/{metric}", value)
            named = {"data_name": data_name, "backbone": backbone, "loss": loss}
            self._log(cell, {"recloss.selected": text}, named, {})
        self._set_status(cell, "FINISHED")

    def record_no_selection(self, *, data_name: str, backbone: str, loss: str) -> None:
        """End a cell whose search selected nothing, because a trial of every grid point failed."""
        cell = self._cell(data_name, backbone, loss)
        self._delete_tag(cell, "recloss.selected")
        self._set_status(cell, "FAILED")

    def record_notes(self, *, data_name: str, backbone: str, loss: str, notes: Sequence[str]) -> None:
        """What a reader of a cell's result should know of its search, a line each; replaces what was known before."""
        cell = self._cell(data_name, backbone, loss)
        if notes:
            self._log(cell, {"recloss.notes": json.dumps(list(notes))}, {}, {})
        else:
            self._delete_tag(cell, "recloss.notes")

    def attach(self, folder: Path, files: Iterable[Path]) -> None:
        """Add files to a recorded trial's artifacts; one that is there with the same size is left alone."""
        run = self._runs["trial", folder.name]
        sizes = {info.path: info.file_size for info in self._client.list_artifacts(run.id)}
        for file in files:
            if sizes.get(file.name) != file.stat().st_size:
                self._client.log_artifact(run.id, str(file))

    def close_stale(self, live: AbstractSet[str]) -> None:
        """Mark trials KILLED that the store believes RUNNING and whose hash is not in ``live``."""
        for run in self._of_kind("trial"):
            if run.status == "RUNNING" and run.tags["recloss.trial"] not in live:
                self._set_status(run, "KILLED")

    def _of_kind(self, kind: str) -> list[Run]:
        return [run for key, run in self._runs.items() if key[0] == kind]

    def _sweep(self) -> Run:
        return self._find_or_create(("sweep",), "sweep", {}, parent=None)

    def _cell(self, data_name: str, backbone: str, loss: str) -> Run:
        tags = {"recloss.data": data_name, "recloss.backbone": backbone, "recloss.loss": loss}
        key = ("cell", data_name, backbone, loss)
        return self._find_or_create(key, f"{data_name} | {backbone} | {loss}", tags, parent=self._sweep())

    def _trial(self, name: str, trial: Trial, data_name: str, start: int) -> Run:
        if ("trial", name) in self._runs:
            return self._runs["trial", name]
        tags = {
            "recloss.trial": name,
            "recloss.data": data_name,
            "recloss.fingerprint": trial.data,
            "recloss.backbone": trial.backbone.name,
            "recloss.loss": trial.loss.name,
            "recloss.seed": str(trial.seed),
            "recloss.stage": "",
        }
        in_sweep = ("sweep",) in self._runs
        cell = self._cell(data_name, trial.backbone.name, trial.loss.name) if in_sweep else None
        return self._find_or_create(("trial", name), _short_name(trial, data_name), tags, parent=cell, start=start)

    def _find_or_create(
        self, key: Key, name: str, tags: dict[str, str], *, parent: Run | None, start: int | None = None
    ) -> Run:
        if key not in self._runs:
            tags = {"recloss.kind": key[0], **tags, **({"mlflow.parentRunId": parent.id} if parent else {})}
            created = self._client.create_run(self._experiment_id, start_time=start, run_name=name, tags=tags)
            self._runs[key] = Run.of(created)
        return self._runs[key]

    def _log_inputs(self, run: Run, inputs: Sequence["DatasetInput"]) -> None:
        news = [given for given in inputs if given.dataset.digest not in run.inputs]
        if news:
            self._client.log_inputs(run.id, news)
            run.inputs |= {given.dataset.digest for given in news}

    def _set_status(self, run: Run, status: str, end: int | None = None) -> None:
        if run.status == status:
            return
        if status == "RUNNING":
            self._client.update_run(run.id, status=status)
        else:
            self._client.set_terminated(run.id, status, end)
        run.status = status

    def _delete_tag(self, run: Run, key: str) -> None:
        if key in run.tags:
            self._client.delete_tag(run.id, key)
            del run.tags[key]

    def _log(self, run: Run, tags: dict[str, str], params: dict[str, str], measured: Measured) -> None:
        """Send what the run does not have yet; the store writes the tags last."""
        from mlflow.entities import Metric, Param, RunTag

        logged = self._logged(run) if measured else {}
        news = [
            (name, value, at, step)
            for (name, value, step), at in measured.items()
            if (name, step) not in logged or (step == 0 and logged[name, step] != value)
        ]
        points = [Metric(*new) for new in news]
        new_params = [Param(key, value) for key, value in params.items() if key not in run.params]
        new_tags = [RunTag(key, value) for key, value in tags.items() if run.tags.get(key) != value]
        while len(points) > _POINTS_PER_BATCH:
            self._client.log_batch(run.id, metrics=points[:_POINTS_PER_BATCH])
            points = points[_POINTS_PER_BATCH:]
        if points or new_params or new_tags:
            self._client.log_batch(run.id, metrics=points, params=new_params, tags=new_tags)
        logged |= {(name, step): value for name, value, _, step in news}
        run.params |= params
        run.tags |= tags

    def _logged(self, run: Run) -> dict[tuple[str, int], float]:
        """What the run has by (name, step): a validation that was made again keeps the seconds of the first time."""
        if run.logged is None:
            histories = (self._client.get_metric_history(run.id, name) for name in run.metrics)
            run.logged = {(point.key, point.step): point.value for history in histories for point in history}
        return run.logged


def _status(events: list[dict[str, Any]]) -> str:
    """The last event tells: a trial that failed, finished or was pruned and then went on is running again."""
    kind = events[-1]["event"]
    if kind == "fail":
        return "FAILED"
    if kind == "prune":
        return "KILLED"
    return "FINISHED" if kind in ("finish", "test") and journal.last(events, "finish") else "RUNNING"


def _measurements(events: list[dict[str, Any]]) -> Measured:
    """Every measurement; one that a resumed trial repeated counts once, at its first time."""
    finish = journal.last(events, "finish") or {}
    points: Measured = {}
    for event in events:
        step = event["epoch"] if event["event"] == "valid" else finish.get("best_epoch", 0)
        for name, value in event.get("metrics", {}).items():
            points.setdefault((name, float(value), step), _milliseconds(event))
    for name in ("best_epoch", "best", "epochs", "seconds"):
        if name in finish:
            points[name, float(finish[name]), 0] = _milliseconds(finish)
    return points


def _cost(events: list[dict[str, Any]]) -> Measured:
    """What the trial used so far; a later value of the same metric counts."""
    latest = next((event for event in reversed(events) if "cost" in event), None)
    if latest is None:
        return {}
    return {(f"cost/{name}", float(value), 0): _milliseconds(events[-1]) for name, value in latest["cost"].items()}


def _milliseconds(event: dict[str, Any]) -> int:
    return round(event["time"] * 1000)


def _environment_tags(environment: dict[str, Any], prefix: str = "recloss.env") -> dict[str, str]:
    """Nested entries get dotted names: ``recloss.env.versions.torch``."""
    tags: dict[str, str] = {}
    for key, value in environment.items():
        name = f"{prefix}.{key}"
        tags |= _environment_tags(value, name) if isinstance(value, dict) else {name: _cut(str(value))}
    return tags


def _described(trial: Trial, data_name: str, stages: str) -> str:
    done = " and ".join(_STAGE_WORDS[stage] for stage in stages.split(","))
    where = f"`{trial.loss.name}` on `{trial.backbone.name}`, data set `{data_name}`, seed {trial.seed}"
    return f"A trial of {done}: {where}. Its checkpoint and journal are in the sweep's folder `{trial.hash}`."


def _short_name(trial: Trial, data_name: str) -> str:
    lr = {} if trial.task == REFERENCE else {"lr": trial.optim.lr}
    parts = {**trial.loss.params, **lr, "seed": trial.seed}
    names = (trial.loss.name, trial.backbone.name, data_name)
    return " ".join([*names, *(f"{key}={value}" for key, value in parts.items())])


def _cut(text: str) -> str:
    return text if len(text) <= ERROR_LENGTH else text[: ERROR_LENGTH - 1] + "…"
