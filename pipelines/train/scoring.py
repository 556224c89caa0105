"""Test scores of a finished trial."""

import json
import os
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from pipelines.settings import REFERENCE, Trial
from pipelines.train import journal, mapped
from pipelines.train.build import build, pool_of, training_splits
from pipelines.train.diagnostics import diagnose
from pipelines.train.folder import DIAGNOSTICS, MODEL, TEST_USERS
from pipelines.train.reference import fitted_scorer
from recloss import sampling
from recloss.backbones import Backbone
from recloss.checkpoints import load_checkpoint
from recloss.evaluation import evaluate, evaluate_scores
from recloss.interactions import Interactions
from recloss.losses import Loss


def score_test(trial: Trial, data: Path, folder: Path) -> dict[str, float]:
    """Score a finished trial's model on the test split, once; write per-user metrics and the journal's "test" event.

    A metric beyond accuracy (see `recloss.beyond`) is null for users who have nothing to measure. What a trained model
    looks like from inside goes into ``diagnostics.json``.
    """
    done = journal.last(journal.read(folder), "test")
    if done and (folder / TEST_USERS).exists():
        return done["metrics"]
    train, valid = training_splits(data, trial.data)
    hidden, cutoffs = [train, valid] if trial.protocol.mask_valid else [train], trial.protocol.cutoffs
    test = mapped.interactions(data, trial.data, "test")
    if trial.task == REFERENCE:
        result = evaluate_scores(fitted_scorer(trial, train, folder), test, hidden, cutoffs, popularity=train)
    else:
        backbone, loss = build(trial, train)
        state = load_checkpoint(folder / MODEL)
        backbone.load_state_dict(state["backbone"])
        device = next(backbone.parameters()).device
        train, relevant, hidden = train.to(device), test.to(device), [one.to(device) for one in hidden]
        result = evaluate(backbone, loss.similarity, relevant, hidden, cutoffs, popularity=train)
        loss.load_state_dict(state["loss"])
        _write_diagnostics(trial, data, folder, backbone, loss, train)
    columns = {"user": result.users.to(torch.int32)} | result.values
    arrays = {name: pa.array(column.cpu().numpy(), from_pandas=True) for name, column in columns.items()}
    temporary = folder / (TEST_USERS + ".tmp")
    pq.write_table(pa.table(arrays), temporary)
    os.replace(temporary, folder / TEST_USERS)
    metrics = {f"test/{name}": value for name, value in result.mean().items()}
    journal.append(folder, {"event": "test", "time": time.time(), "metrics": metrics})
    return metrics


def _write_diagnostics(
    trial: Trial, data: Path, folder: Path, backbone: Backbone, loss: Loss, train: Interactions
) -> None:
    sampler = sampling.build_sampler(trial.sampler.name, trial.sampler.params, train, pool_of(trial, data, train))
    found = diagnose(trial, backbone, loss, train, sampler)
    temporary = folder / (DIAGNOSTICS + ".tmp")
    temporary.write_text(json.dumps(found) + "\n", encoding="utf-8")
    os.replace(temporary, folder / DIAGNOSTICS)
