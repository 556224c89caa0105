"""Running trials on Ray Tune. What a trial has done is in its folder; nothing is kept in Tune's own state."""

import pickle
import re
import tempfile
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.search import Searcher

from pipelines.settings import ResourceSettings, Trial
from pipelines.sweep.attempts import CRASHES, Attempts, Deaths, latest_micro_batch, next_micro_batch
from pipelines.sweep.progress import Say
from pipelines.sweep.queue import Queue, Task
from pipelines.sweep.resources import at_once, bundle, check_fits, nodes, shortage
from pipelines.sweep.stopping import Stop
from pipelines.train import failures, journal
from pipelines.train.patience import patiently
from recloss.training import Validation

OnChange = Callable[[Path, str, dict[str, Any]], None]
"""Called in the driver with a trial's folder, "started", "validated" or "ended", and what the trial reported: "epoch"
and "value" of a validation; at its end "storage", the error of the storage that cut it off."""

SHORTAGE_SECONDS = 60.0
"""How often the driver looks whether a trial still fits on the cluster."""
_KILLED = re.compile(r"Selected to kill:.*?pid=(\d+)", re.DOTALL)
"""Ray's memory monitor names the processes it killed."""


class _Run:
    """What one run of Tune works on, and what became of it."""

    def __init__(self, queue: Queue, resources: ResourceSettings, stop: Stop, on_change: OnChange) -> None:
        self.queue, self.resources, self.stop, self.on_change = queue, resources, stop, on_change
        self.since = time.time()
        self.deaths = Deaths()
        self.again: deque[dict[str, Any]] = deque()
        self.running: dict[Path, dict[str, Any]] = {}

    def next(self) -> dict[str, Any] | None:
        """The next task as JSON: one whose process died, else of the queue."""
        if self.stop.asked:
            return None
        if self.again:
            return self.again.popleft()
        task = self.queue.next()
        return None if task is None else self._json(task)

    def _json(self, task: Task) -> dict[str, Any]:
        return {
            "trial": task.trial.model_dump(mode="json"),
            "data": str(task.data.absolute()),
            "folder": str(task.folder.absolute()),
            "test": task.test,
            "until": task.until,
            "resources": self.resources.model_dump(),
            "stop": str(self.stop.path),
            "since": self.since,
        }

    def died(self, task: dict[str, Any], error: BaseException) -> None:
        """The process of a task died: it starts again, or has failed."""
        folder, trial = Path(task["folder"]), Trial.model_validate(task["trial"])
        what, message = failures.diagnose(error)
        deaths = patiently(lambda: self.deaths.count(folder))
        events = patiently(lambda: journal.read(folder))
        size = next_micro_batch([*events, {"event": "fail", "kind": what}], trial, self.resources.workers)
        if size != latest_micro_batch(events):
            patiently(lambda: failures.record_as(folder, what, message))
            self.again.append(task)
        elif deaths > CRASHES:  # once alone may be a neighbour's fault, that took the memory
            message = f"the process of the trial died {deaths} times without a new validation; last: {message}"
            patiently(lambda: failures.record_as(folder, what, message))
            self.ended(folder, {})
        else:
            self.again.append(task)

    def ended(self, folder: Path, result: dict[str, Any]) -> None:
        """Nothing more happens to a trial for now."""
        self.running.pop(folder, None)
        self.queue.ended(folder)
        self.on_change(folder, "ended", result)


class _Watcher(tune.Callback):
    """Hears from Tune what happens to trials. Tune saves its callbacks' state, which is nothing here."""

    def __init__(self, run: _Run, say: Say) -> None:
        self.run, self.say = run, say
        self.looked, self.short = time.monotonic(), False

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.run.running[_folder(trial)] = trial.config["task"]
        self.run.on_change(_folder(trial), "started", {})

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Any, **info: Any) -> None:
        if "value" in result:
            self.run.on_change(_folder(trial), "validated", result)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.run.ended(_folder(trial), trial.last_result)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self.run.running.pop(_folder(trial), None)
        kept = trial.pickled_error_file  # Tune keeps no error of an actor that Ray's memory monitor did not let start
        error = pickle.loads(Path(kept).read_bytes()) if kept else RuntimeError("no process could be started for it")
        self.run.died(trial.config["task"], error)

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Say once when the cluster lost what a trial needs, and once when it has it again."""
        if time.monotonic() - self.looked < SHORTAGE_SECONDS:
            return
        self.looked, before = time.monotonic(), self.short
        alive = nodes()
        self.short = not at_once(alive, self.run.resources)
        if self.short and not before:
            self.say(f"no trial can run: {shortage(alive, self.run.resources)}; waiting for a node (Ctrl-C stops)")
        if before and not self.short:
            self.say("a trial fits on the cluster again: going on")


def _folder(trial: Any) -> Path:
    return Path(trial.config["task"]["folder"])


class _Source(Searcher):
    """Hands Tune the tasks, one at a time. Tune saves its searcher's state, which is nothing here."""

    def __init__(self, first: dict[str, Any], run: _Run) -> None:
        super().__init__()
        self.first: dict[str, Any] | None = first
        self.run = run

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def suggest(self, trial_id: str) -> Any:
        task, self.first = self.first or self.run.next(), None
        if task is not None:
            return {"task": task}
        return None if self.run.queue.waits and not self.run.stop.asked else Searcher.FINISHED

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing: the queue hears of it from the watcher, after a failure is recorded."""

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Nothing: see the class."""


def run_tasks(
    queue: Queue,
    resources: ResourceSettings,
    stop: Stop,
    on_change: OnChange,
    say: Say,
    start_ray: Callable[[], None],
) -> bool:
    """Run all tasks, as many at once as fit.

    A trial whose process dies is resumed. Tune itself gives up when Ray's memory monitor kills one; it is then started
    anew.

    Args:
        queue: what to do; tasks that are done cost nothing.
        resources: of one trial.
        stop: asks the trials to pause at their next validation.
        on_change: see `OnChange`.
        say: prints a line for the user.
        start_ray: called where there is something to run; connects to Ray the first time.

    Returns:
        Whether everything ran to success or failure; ``False`` where something was cut off.
    """
    run = _Run(queue, resources, stop, on_change)
    while (first := run.next()) is not None:
        start_ray()
        concurrent = check_fits(resources, say)
        with tempfile.TemporaryDirectory(prefix="recloss-", ignore_cleanup_errors=True) as scratch:
            try:
                _tuner(first, run, concurrent, Path(scratch), say).fit()
            except RuntimeError as error:
                if failures.diagnose(error)[0] != "out of memory":
                    raise
                _resume(run, error)
    return queue.finished


def _tuner(first: dict[str, Any], run: _Run, concurrent: int, scratch: Path, say: Say) -> tune.Tuner:
    """Its own files are in this machine's ``scratch``: they must not share the fate of the sweep's storage."""
    share = {"cpu": 0.01}
    if run.resources.workers == 1:
        names = {"CPU": "cpu", "GPU": "gpu", "memory": "memory"}
        share = {names[name]: amount for name, amount in bundle(run.resources).items()}
    return tune.Tuner(
        tune.with_resources(_run_task, share),
        tune_config=tune.TuneConfig(
            search_alg=_Source(first, run),
            num_samples=-1,
            reuse_actors=True,
            max_concurrent_trials=concurrent,
        ),
        run_config=tune.RunConfig(
            storage_path=str(scratch),
            callbacks=[_Watcher(run, say)],
            failure_config=tune.FailureConfig(max_failures=0),
            verbose=0,
        ),
    )


def _resume(run: _Run, error: RuntimeError) -> None:
    """After Tune gave up, its trials start again; those that the memory monitor killed have died."""
    killed = set(_KILLED.findall(str(error)))
    for folder, task in list(run.running.items()):
        del run.running[folder]
        start = journal.last(patiently(partial(journal.read, folder)), "start")
        if start is None or start["environment"]["pid"] in killed:
            run.died(task, error)
        else:
            run.again.append(task)


def _run_task(config: dict[str, Any]) -> dict[str, Any]:
    """The function Tune runs: a task to its end. A failed trial ends here, in its journal."""
    metric = config["task"]["trial"]["protocol"]["metric"]

    def report(validation: Validation) -> None:
        tune.report({"epoch": validation.epoch, "value": validation.metrics[metric]})

    return {"ended": True, "storage": Attempts(config["task"], report).run()}
