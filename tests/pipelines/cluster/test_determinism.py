"""The same sweep gives the same bits, however many trials run at a time and wherever a trial is cut off."""

import json

import pytest
from rich.console import Console

from pipelines.settings import ResourceSettings, SweepSettings, make_trial, read
from pipelines.sweep.run import run_sweep
from pipelines.train import journal
from pipelines.train.folder import MODEL, status
from pipelines.train.trial import train_trial

LOSSES = {
    "bpr": {"optim.lr": [0.01, 0.05], "optim.weight_decay": 0},
    "sl": {"optim.lr": 0.1, "optim.weight_decay": 0, "loss.tau": [0.1, 0.2, 0.3]},
    "talos": {"optim.lr": 0.1, "optim.weight_decay": 0, "loss.tau": 0.2},
}


def test_one_two_and_four_trials_at_a_time(write_sweep, exact, tmp_path, ray_local):
    """On two CPUs; each trial computes with one thread."""
    found = []
    for cpus in (1.5, 1, 0.5):
        storage = tmp_path / str(cpus)
        uri = f"sqlite:///{storage}/mlflow.db"
        sweep = read(SweepSettings, write_sweep(losses=LOSSES, resources={"cpus": cpus}))
        assert run_sweep(sweep, storage=storage, tracking_uri=uri, spaces=None, console=Console(quiet=True))
        found.append(exact(uri))
    assert len(found[0]) == 6 + 3
    assert found[0] == found[1] == found[2]


class Killed(BaseException):
    """Ends a trial where nothing can be done about it."""


def killed(*_):
    raise Killed


@pytest.mark.parametrize(
    ("backbone", "loss"),
    [("mf", "bpr"), ("mf", "talos"), ("mf", "slatk"), ("mf", "advinfonce"), ("mf", "songatk"), ("xsimgcl", "sl")],
)
def test_a_trial_that_is_cut_off_at_every_validation(backbone, loss, prepared, tmp_path):
    fingerprint = json.loads((prepared / "manifest.json").read_text())["fingerprint"]
    settings = {"train.epochs": 10, "train.valid_every": 2, "train.negatives": 6, "train.batch_size": 128}
    trial = make_trial(fingerprint, backbone, loss, settings | {"optim.lr": 0.05})
    whole, pieces = tmp_path / "whole", tmp_path / "pieces"
    train_trial(trial, prepared, whole, ResourceSettings(), lambda validation: None)

    cuts = 0
    while status(pieces) != "finished":
        try:
            train_trial(trial, prepared, pieces, ResourceSettings(), killed)
        except Killed:
            cuts += 1

    def validations(folder):
        events = [event for event in journal.read(folder) if event["event"] == "valid"]
        return [(e["epoch"], {k: v for k, v in e["metrics"].items() if k != "train/seconds"}) for e in events]

    assert cuts == 5
    assert validations(pieces) == validations(whole)
    assert (pieces / MODEL).read_bytes() == (whole / MODEL).read_bytes()
