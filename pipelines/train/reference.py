"""Fitting a reference model: the one step of its trial, recorded as that of a training run."""

import math
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from pipelines import references
from pipelines.settings import ResourceSettings, Trial
from pipelines.train import failures, journal, mapped, validations
from pipelines.train.cost import Meter
from pipelines.train.environment import environment
from pipelines.train.folder import MODEL
from pipelines.train.lists import lists
from pipelines.train.start import open_journal
from pipelines.train.tasks.pairs import training_splits
from pipelines.train.tasks.rank import training_lists
from recloss.checkpoints import load_checkpoint, save_atomically
from recloss.evaluation import UserMetrics, evaluate_scores
from recloss.ranking import ndcg
from recloss.training import Validation


def fit_reference(
    trial: Trial, data: Path, folder: Path, resources: ResourceSettings, report: Callable[[Validation], None]
) -> None:
    """Fit the reference of a trial in this process; errors end in the journal, then are raised."""
    threads, attempt = max(1, int(resources.cpus)), uuid.uuid4().hex
    torch.set_num_threads(threads)
    meter = Meter(resources.gpus)
    folder.mkdir(parents=True, exist_ok=True)
    spent = open_journal(trial, folder, attempt, environment(resources, None))
    try:
        train = (training_lists if _of_lists(trial) else training_splits)(data, trial.data)[0]
        reference, start = references.build(trial.loss.name, trial.loss.params), time.perf_counter()
        state = reference.fit(train, seed=trial.seed, threads=threads)
        seconds = time.perf_counter() - start
        metrics = _metrics(trial, data, state, "valid").mean()
        save_atomically(folder / MODEL, {"reference": state})
    except Exception as error:
        failures.record(folder, error, trial, spent + meter.read())
        raise
    validation = Validation(1, math.nan, metrics, seconds, time.time())
    if journal.read(folder)[0]["attempt"] != attempt:  # another process has taken over
        return
    cost = (spent + meter.read()).json()
    journal.append(folder, validations.event(validation) | {"cost": cost})
    report(validation)
    finish = {"event": "finish", "time": time.time(), "best_epoch": 1, "best": metrics[trial.protocol.metric]}
    journal.append(folder, finish | {"epochs": 1, "seconds": seconds, "cost": cost})


def _of_lists(trial: Trial) -> bool:
    return trial.loss.name in references.LIST_REFERENCES


def reference_metrics(trial: Trial, data: Path, folder: Path) -> UserMetrics:
    """Metrics on the test split of a reference that was fitted in ``folder``."""
    return _metrics(trial, data, load_checkpoint(folder / MODEL)["reference"], "test")


def _metrics(trial: Trial, data: Path, state: dict[str, Tensor], split: str) -> UserMetrics:
    reference, cutoffs = references.build(trial.loss.name, trial.loss.params), trial.protocol.cutoffs
    if _of_lists(trial):
        shown = lists(data, trial.data, split)
        return ndcg(reference.scorer(state)(shown), shown, cutoffs)
    train, valid = training_splits(data, trial.data)
    scores = reference.scorer(train, state)
    if split == "valid":
        return evaluate_scores(scores, valid, [train], cutoffs)
    hidden = [train, valid] if trial.protocol.mask_valid else [train]
    test = mapped.interactions(data, trial.data, "test")
    return evaluate_scores(scores, test, hidden, cutoffs, popularity=train)
