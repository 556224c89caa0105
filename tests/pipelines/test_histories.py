"""Metrics over the epochs, from a store written by the driver's own code; nothing is trained."""

import shutil

import pytest

from pipelines.report.figures import read_evidence
from pipelines.settings import SweepSettings, make_trial, parse
from pipelines.tracking import open_tracker, read_results
from pipelines.tracking.histories import read_histories
from pipelines.train import journal
from pipelines.train.folder import DIAGNOSTICS

T0 = 1_750_000_000.0


@pytest.fixture(scope="module")
def uri(empty_store, tmp_path_factory):
    """Two confirmations of Talos, one of them failed, and their search."""
    root = tmp_path_factory.mktemp("store")
    shutil.copy(empty_store, root / "mlflow.db")
    uri = f"sqlite:///{root / 'mlflow.db'}"
    tracker = open_tracker(uri, "duel", root / "artifacts")
    raw = {"name": "duel", "data": [{"name": "toy", "path": "p"}], "backbones": {"mf": None}, "losses": {"talos": None}}
    tracker.sweep_started(parse(SweepSettings, raw | {"confirm_seeds": [1]}, "test").model_dump(mode="json"))
    for seed, stage in ((0, "grid"), (1, "confirm"), (2, "confirm")):
        trial = make_trial("ab" * 32, "mf", "talos", {"loss.tau": 0.1}, seed=seed)
        events = [{"event": "start", "time": T0, "trial": trial.model_dump(mode="json"), "environment": {}}]
        for epoch in (5, 10):
            metrics = {"valid/ndcg_20": epoch / 100 + seed, "train/loss": 1.0, "train/seconds": 1.0}
            if seed == 1:
                metrics["train/threshold"] = -epoch / 10
            events.append({"event": "valid", "time": T0 + epoch, "epoch": epoch, "metrics": metrics})
        if seed == 2:
            events.append({"event": "fail", "time": T0 + 20, "kind": "diverged", "error": "nan"})
        else:
            events.append(
                {"event": "finish", "time": T0 + 20, "best_epoch": 10, "best": 0.1, "epochs": 10, "seconds": 1.0}
            )
        folder = root / trial.hash
        folder.mkdir()
        journal.rewrite(folder, events)
        tracker.record_trial(folder, data_name="toy", stage=stage)
        if seed == 0:
            names = {"data_name": "toy", "backbone": "mf", "loss": "talos"}
            tracker.record_selection(**names, trials=[trial], metric="ndcg_20", value=0.1)
        if seed == 1:
            (folder / DIAGNOSTICS).write_text('{"gradient": {}}')
            tracker.attach(folder, [folder / DIAGNOSTICS])
    return uri


def test_each_metric_by_epoch_and_nothing_for_what_was_not_measured(uri):
    results = read_results(uri, "duel")
    by_seed = {trial.seed: trial.hash for trial in results.trials}
    wanted = ["valid/ndcg_20", "train/threshold", "valid/unknown_5"]
    assert read_histories(uri, results, [by_seed[0], by_seed[1], "another"], wanted) == {
        by_seed[0]: {"valid/ndcg_20": {5: 0.05, 10: 0.1}},
        by_seed[1]: {"valid/ndcg_20": {5: 1.05, 10: 1.1}, "train/threshold": {5: -0.5, 10: -1.0}},
    }
    assert read_histories(uri, results, [by_seed[2]], wanted) == {}


def test_evidence_holds_what_confirmations_left_in_both_stores(uri):
    results = read_results(uri, "duel")
    [confirmed] = [trial.hash for trial in results.trials if trial.seed == 1]
    evidence = read_evidence(uri, results)
    assert evidence.histories[confirmed]["train/threshold"] == {5: -0.5, 10: -1.0}
    assert list(evidence.histories) == [confirmed]
    assert evidence.diagnostics == {confirmed: {"gradient": {}}}
