"""One configuration outside a sweep, in the folder and experiment "train"."""

import os
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from pipelines.cluster import connected
from pipelines.prepare import load
from pipelines.settings import REFERENCE, TASKS, ResourceSettings, make_reference_trial, make_trial
from pipelines.sweep.plan import presets
from pipelines.sweep.progress import Say
from pipelines.sweep.resources import check_fits as check_cluster
from pipelines.tracking import open_tracker
from pipelines.train import journal, validations
from pipelines.train.distributed import train_trial_distributed
from pipelines.train.folder import status
from pipelines.train.scoring import score_test
from pipelines.train.tasks import check_fits
from pipelines.train.trial import train_trial
from recloss.errors import InputError
from recloss.loop import DivergedError
from recloss.training import Validation

EXPERIMENT = "train"


def train_single(
    data: Path,
    backbone: str,
    loss: str,
    dotted: Mapping[str, Any],
    *,
    seed: int,
    workers: int,
    test: bool,
    storage: Path,
    tracking_uri: str,
    spaces: Path | None,
    say: Say,
) -> Path:
    """Train (or resume, or show) one trial, record it, and return its folder.

    Raises:
        InputError: for a mistake in the settings, or if training diverges.
    """
    prepared = load(data)
    if backbone == REFERENCE:
        trial = make_reference_trial(prepared.fingerprint, loss, dotted, seed=seed, where="--set")
    else:
        task = prepared.manifest["task"]
        settings = presets(backbone, loss, spaces, task) | dict(dotted)
        trial = make_trial(prepared.fingerprint, backbone, loss, settings, task=task, seed=seed)
    check_fits(trial, prepared.manifest, workers)
    if workers > 1 and trial.task != REFERENCE and not TASKS[trial.task].divides:
        raise InputError(f"--workers: a trial of the task {trial.task!r} has one, got {workers}")
    folder = (storage / EXPERIMENT / trial.hash).absolute()
    tracker = open_tracker(tracking_uri, EXPERIMENT, storage / "artifacts" / EXPERIMENT)
    resources = ResourceSettings(cpus=max(1, (os.cpu_count() or 1) // workers), workers=workers)

    def report(validation: Validation) -> None:
        say(validations.line(validation))

    try:
        if status(folder) == "finished":
            say("already trained; its result:")
        elif workers == 1 or trial.task == REFERENCE:
            with connected() if trial.train.stream else nullcontext():
                train_trial(trial, data, folder, resources, report)
        else:
            with connected():
                check_cluster(resources, say)
                train_trial_distributed(trial, data.absolute(), folder, resources, report)
        finish = journal.last(journal.read(folder), "finish")
        assert finish is not None
        say(f"best epoch {finish['best_epoch']}: valid {trial.protocol.metric} {finish['best']:.4f}")
        if test:
            for name, value in score_test(trial, data, folder).items():
                say(f"{name} {value:.4f}")
    except DivergedError as error:
        raise InputError(f"training diverged: {error}; try a smaller optim.lr or a larger temperature") from None
    finally:
        tracker.record_trial(folder, data_name=prepared.fingerprint[:12], stage="grid")
        tracker.close_stale(set())
    return folder
