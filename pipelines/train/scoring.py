"""Test scores of a finished trial."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from pipelines.settings import REFERENCE, Trial
from pipelines.train import journal
from pipelines.train.folder import DIAGNOSTICS, MODEL, TEST_USERS
from pipelines.train.reference import reference_metrics
from pipelines.train.tasks import work
from recloss.checkpoints import load_checkpoint


def score_test(trial: Trial, data: Path, folder: Path) -> dict[str, float]:
    """Score a finished trial's model on the test split, once; write per-user metrics and the journal's "test" event.

    A metric beyond accuracy (see `recloss.beyond`) is null for users who have nothing to measure. What a trained model
    looks like from inside goes into ``diagnostics.json``.
    """
    done = journal.last(journal.read(folder), "test")
    if done and (folder / TEST_USERS).exists():
        return done["metrics"]
    if trial.task == REFERENCE:
        result = reference_metrics(trial, data, folder)
    else:
        job, state = work(trial, data), load_checkpoint(folder / MODEL)
        for name, module in job.modules.items():
            module.load_state_dict(state[name])
        result = job.test()
        if (found := job.diagnostics()) is not None:
            _write_diagnostics(folder, found)
    columns = {"user": result.users.to(torch.int32)} | result.values
    arrays = {name: pa.array(column.cpu().numpy(), from_pandas=True) for name, column in columns.items()}
    temporary = folder / (TEST_USERS + ".tmp")
    pq.write_table(pa.table(arrays), temporary)
    os.replace(temporary, folder / TEST_USERS)
    metrics = {f"test/{name}": value for name, value in result.mean().items()}
    journal.append(folder, {"event": "test", "time": time.time(), "metrics": metrics})
    return metrics


def _write_diagnostics(folder: Path, found: dict[str, Any]) -> None:
    temporary = folder / (DIAGNOSTICS + ".tmp")
    temporary.write_text(json.dumps(found) + "\n", encoding="utf-8")
    os.replace(temporary, folder / DIAGNOSTICS)
