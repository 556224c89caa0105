"""Test scores of a finished trial."""

import os
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from pipelines.settings import Trial
from pipelines.train import journal, mapped
from pipelines.train.build import build, training_splits
from pipelines.train.folder import MODEL, TEST_USERS
from recloss.evaluation import evaluate
from recloss.training import load_checkpoint


def score_test(trial: Trial, data: Path, folder: Path) -> dict[str, float]:
    """Score a finished trial's model on the test split, once; write per-user metrics and the journal's "test" event."""
    done = journal.last(journal.read(folder), "test")
    if done and (folder / TEST_USERS).exists():
        return done["metrics"]
    train, valid = training_splits(data, trial.data)
    backbone, loss = build(trial, train)
    state = load_checkpoint(folder / MODEL)
    backbone.load_state_dict(state["backbone"])
    hidden = [train, valid] if trial.protocol.mask_valid else [train]
    test = mapped.interactions(data, trial.data, "test")
    device = next(backbone.parameters()).device
    relevant, hidden = test.to(device), [interactions.to(device) for interactions in hidden]
    result = evaluate(backbone, loss.similarity, relevant, hidden, trial.protocol.cutoffs)
    columns = {"user": result.users.to(torch.int32)} | result.values
    temporary = folder / (TEST_USERS + ".tmp")
    pq.write_table(pa.table({name: column.cpu().numpy() for name, column in columns.items()}), temporary)
    os.replace(temporary, folder / TEST_USERS)
    metrics = {f"test/{name}": value for name, value in result.mean().items()}
    journal.append(folder, {"event": "test", "time": time.time(), "metrics": metrics})
    return metrics
