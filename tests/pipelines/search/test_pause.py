"""A trial that pauses at every validation ends as one that never does."""

import pytest
import torch

from pipelines.prepare import load
from pipelines.settings import ResourceSettings, make_trial
from pipelines.train import journal
from pipelines.train.folder import CHECKPOINT, MODEL, reached, status
from pipelines.train.trial import train_trial

SHORT = {
    "train.epochs": 8,
    "train.valid_every": 2,
    "train.negatives": 6,
    "train.batch_size": 64,
    "backbone.dim": 8,
    "protocol.cutoffs": [5],
    "protocol.metric": "ndcg_5",
    "optim.lr": 0.1,
}


def measured(folder):
    metrics = [event["metrics"] for event in journal.read(folder) if event["event"] == "valid"]
    return [{k: v for k, v in m.items() if k != "train/seconds"} for m in metrics]


@pytest.mark.parametrize("loss", ["sl", "talos"])
def test_paused_at_every_rung_is_the_same_to_the_bit(loss, prepared, tmp_path):
    trial = make_trial(load(prepared).fingerprint, "mf", loss, SHORT)

    def train(folder, until):
        train_trial(trial, prepared, folder, ResourceSettings(), lambda validation: None, until=until)

    whole, paused = tmp_path / "whole", tmp_path / "paused"
    train(whole, None)
    for until in (2, 3, 6):
        train(paused, until)
        assert reached(paused) == (until if until != 3 else 4), "at the next validation"
        assert status(paused) == "cut off"
        assert (paused / CHECKPOINT).exists()
        assert [event["event"] for event in journal.read(paused)].count("fail") == 0
    journal.append(paused, {"event": "prune", "time": 0.0, "rung": 1, "rank": 2, "of": 2, "kept": 1})
    assert status(paused) == "cut off", "a pruned trial may go on"
    train(paused, 8)
    assert status(paused) == "finished", "its last epoch is its end"
    assert measured(paused) == measured(whole)
    assert [event["event"] for event in journal.read(paused)] == ["start", *["valid"] * 4, "finish"]
    states = [torch.load(folder / MODEL, weights_only=True) for folder in (whole, paused)]
    for part in ("backbone", "loss"):
        assert states[0][part].keys() == states[1][part].keys()
        assert all(torch.equal(states[0][part][name], states[1][part][name]) for name in states[0][part])
