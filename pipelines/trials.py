"""Running trials on Ray Tune. What a trial has done is in its folder; nothing is kept in Tune's own state."""

import shutil
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray import tune

from pipelines import journal
from pipelines.cluster import check_fits
from pipelines.settings import ResourceSettings, Trial
from pipelines.train import score_test, status, train_trial, train_trial_distributed
from recloss.training import Validation

TRACEBACK = "error.txt"
CRASHES = 2
"""A trial whose process dies is resumed from its checkpoint this many times in one run of the sweep."""


@dataclass(frozen=True)
class Task:
    """One trial to bring to its end: trained, and with ``test`` scored on the test split."""

    trial: Trial
    data: Path
    folder: Path
    test: bool

    @property
    def done(self) -> bool:
        """Whether nothing is left to do for it, in success or in failure."""
        state = status(self.folder)
        scored = not self.test or journal.last(journal.read(self.folder), "test") is not None
        return state == "failed" or (state == "finished" and scored)


class _Watcher(tune.Callback):
    """Tells the driver what happens to trials. Tune saves its callbacks' state, which is nothing here."""

    def __init__(self, on_change: Callable[[Path, str], None]) -> None:
        self.on_change = on_change

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.on_change(_folder(trial), "started")

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Any, **info: Any) -> None:
        self.on_change(_folder(trial), "validated")

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.on_change(_folder(trial), "ended")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        _record_failure(_folder(trial), f"the process of the trial died {CRASHES + 1} times")
        self.on_change(_folder(trial), "ended")


def _folder(trial: Any) -> Path:
    return Path(trial.config["task"]["folder"])


def run_tasks(
    tasks: Sequence[Task], resources: ResourceSettings, scratch: Path, on_change: Callable[[Path, str], None]
) -> bool:
    """Run all tasks, as many at once as fit.

    Args:
        tasks: what to do; those that are done cost nothing.
        resources: of one trial.
        scratch: folder for Tune's own files, removed afterwards.
        on_change: called in this process with a trial's folder and "started", "validated" or "ended".

    Returns:
        Whether everything ran to success or failure; ``False`` after an interrupt (Ctrl-C).
    """
    todo = [task for task in tasks if not task.done]
    if not todo:
        return True
    concurrent = check_fits(resources)

    share = {"cpu": resources.cpus, "gpu": resources.gpus} if resources.workers == 1 else {"cpu": 0.01}
    name = f"tune-{time.time_ns()}"
    tuner = tune.Tuner(
        tune.with_resources(_run_task, share),
        param_space={"task": tune.grid_search([_config(task, resources) for task in todo])},
        tune_config=tune.TuneConfig(reuse_actors=True, max_concurrent_trials=concurrent),
        run_config=tune.RunConfig(
            name=name,
            storage_path=str(scratch.absolute()),
            callbacks=[_Watcher(on_change)],
            failure_config=tune.FailureConfig(max_failures=CRASHES),
            verbose=0,
        ),
    )
    try:
        tuner.fit()
    finally:
        shutil.rmtree(scratch / name, ignore_errors=True)
    return all(task.done or _has_failed(task.folder) for task in todo)


def _config(task: Task, resources: ResourceSettings) -> dict[str, Any]:
    return {
        "trial": task.trial.model_dump(mode="json"),
        "data": str(task.data.absolute()),
        "folder": str(task.folder.absolute()),
        "test": task.test,
        "resources": resources.model_dump(),
    }


def _run_task(config: dict[str, Any]) -> dict[str, Any]:
    """The function Tune runs: a task to its end. A failed trial ends here, in its journal, and is not tried again."""
    task = config["task"]
    trial, data, folder = Trial.model_validate(task["trial"]), Path(task["data"]), Path(task["folder"])
    resources = ResourceSettings.model_validate(task["resources"])

    def report(validation: Validation) -> None:
        tune.report({"epoch": validation.epoch, trial.protocol.metric: validation.metrics[trial.protocol.metric]})

    train = train_trial if resources.workers == 1 else train_trial_distributed
    try:
        if status(folder) != "finished":
            train(trial, data, folder, resources, report)
        if task["test"]:
            score_test(trial, data, folder)
    except Exception as error:
        (folder / TRACEBACK).write_text(traceback.format_exc(), encoding="utf-8")
        if not _has_failed(folder):
            _record_failure(folder, f"{type(error).__name__}: {error}")
    return {"ended": True}


def _has_failed(folder: Path) -> bool:
    events = journal.read(folder)
    return bool(events) and events[-1]["event"] == "fail"


def _record_failure(folder: Path, message: str) -> None:
    journal.append(folder, {"event": "fail", "time": time.time(), "error": message, "diverged": False})
