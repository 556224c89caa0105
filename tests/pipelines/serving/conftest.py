"""Trained trials on the small log, and a recorded sweep of them; no Ray."""

import shutil
from pathlib import Path

import pytest

from pipelines.prepare import load
from pipelines.serving.snapshot import write_snapshot
from pipelines.settings import ResourceSettings, SweepSettings, make_trial, parse
from pipelines.settings.reference import make_reference_trial
from pipelines.tracking import open_tracker
from pipelines.tracking.served import Ranking
from pipelines.train.folder import MODEL
from pipelines.train.scoring import score_test
from pipelines.train.trial import train_trial

SMALL = {
    "train.epochs": 4, "train.valid_every": 2, "train.negatives": 5, "train.batch_size": 64, "optim.lr": 0.1,
    "backbone.dim": 8, "protocol.cutoffs": [5], "protocol.metric": "ndcg_5",
}  # fmt: skip
PROTOCOL = {key: value for key, value in SMALL.items() if key.startswith("protocol.")}


@pytest.fixture(scope="session")
def a_trial(prepared):
    """Makes small trials."""
    fingerprint = load(prepared).fingerprint

    def make(backbone="mf", loss="sl", seed=1, **dotted):
        dotted = SMALL | {key.replace("__", "."): value for key, value in dotted.items()}
        return make_trial(fingerprint, backbone, loss, dotted, seed=seed)

    return make


@pytest.fixture(scope="session")
def a_reference(prepared):
    """Makes trials of references."""
    fingerprint = load(prepared).fingerprint

    def make(name, **dotted):
        dotted = PROTOCOL | {f"reference.{key}": value for key, value in dotted.items()}
        return make_reference_trial(fingerprint, name, dotted, seed=1, where="test")

    return make


def trained(trial, data: Path, folder: Path) -> Path:
    if not (folder / trial.hash / MODEL).exists():
        train_trial(trial, data, folder / trial.hash, ResourceSettings(), lambda validation: None)
        score_test(trial, data, folder / trial.hash)
    return folder / trial.hash


@pytest.fixture(scope="session")
def folder_of(prepared, tmp_path_factory):
    """Folder of a trial, trained once."""
    folder = tmp_path_factory.mktemp("trained")
    return lambda trial: trained(trial, prepared, folder)


@pytest.fixture
def serve(prepared, folder_of, tmp_path):
    """The ranking of a trial, in the folder "ranking"."""

    def made(trial) -> Ranking:
        write_snapshot(trial, folder_of(trial) / MODEL, prepared, tmp_path / "ranking", {})
        return Ranking(tmp_path / "ranking")

    return made


@pytest.fixture(scope="session")
def recorded(prepared, a_trial, empty_store, tmp_path_factory):
    """Storage of a sweep "toy" as its driver leaves it: sl and bpr confirmed on the seeds 1 and 2, psl not trained."""
    storage = tmp_path_factory.mktemp("storage")
    raw = {
        "name": "toy",
        "data": [{"name": "toy", "path": str(prepared)}],
        "backbones": {"mf": None},
        "losses": {"sl": None, "bpr": None, "psl": None},
        "confirm_seeds": [1, 2],
    }
    shutil.copy(empty_store, storage / "mlflow.db")
    tracker = open_tracker(f"sqlite:///{storage}/mlflow.db", "toy", storage / "artifacts" / "toy")
    tracker.sweep_started(parse(SweepSettings, raw, "test").model_dump(mode="json"), [load(prepared).manifest])
    for loss in ("sl", "bpr"):
        trials = [a_trial(loss=loss, seed=seed) for seed in (0, 1, 2)]
        for trial in trials:
            folder = trained(trial, prepared, storage / "toy")
            tracker.record_trial(folder, data_name="toy", stage="confirm" if trial.seed else "grid")
            if trial.seed:
                (folder / "trial.json").write_text(trial.model_dump_json())
                tracker.attach(folder, [folder / name for name in ("trial.json", MODEL)])
        tracker.record_selection(
            data_name="toy",
            backbone="mf",
            loss=loss,
            trials=trials[:1],
            metric="ndcg_5",
            value=0.3 + (loss == "sl") / 10,
        )
    tracker.sweep_ended("FINISHED")
    return storage


@pytest.fixture
def storage(recorded, tmp_path):
    """A copy of the recorded sweep's tracking store, which a test may write to; trials and artifacts are shared."""
    shutil.copy(recorded / "mlflow.db", tmp_path / "mlflow.db")
    (tmp_path / "toy").symlink_to(recorded / "toy")
    return tmp_path
