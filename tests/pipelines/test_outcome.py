"""What a user of MLflow finds: prepared datasets as inputs, the main table, scores of cells, descriptions."""

import json
import shutil
from contextlib import contextmanager
from pathlib import Path

import mlflow
import pytest

from pipelines.report import build_report, log_outcome, make_report
from pipelines.settings import SweepSettings, make_trial, parse
from pipelines.tracking import open_tracker, read_results
from pipelines.tracking.store import contact
from pipelines.train import journal
from recloss.errors import InputError

FINGERPRINT = "ab" * 32
MANIFEST = {"fingerprint": FINGERPRINT, "settings": {}, "sizes": {"users": 5, "items": 6, "train": 7}}
PREPARED = ("ml-100k", Path("s3://me:secret@host/prepared/ml-100k"), MANIFEST)
T0 = 1_750_000_000.25


@pytest.fixture
def uri(empty_store, tmp_path):
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


class Sweep:
    """BPR and Talos on MF, confirmed on two seeds, recorded as a driver does it."""

    def __init__(self, uri, tmp_path):
        raw = {
            "name": "duel",
            "data": [{"name": "ml-100k", "path": "prepared/ml-100k"}],
            "backbones": {"mf": None},
            "losses": {"bpr": None, "talos": None},
            "baselines": ["bpr"],
            "confirm_seeds": [1, 2],
        }
        self.settings = parse(SweepSettings, raw, "test").model_dump(mode="json")
        self.uri, self.root = uri, tmp_path

    def record(self, scores, manifests=(PREPARED,)):
        """Confirmation scores by loss."""
        tracker = open_tracker(self.uri, "duel", self.root / "artifacts")
        tracker.sweep_started(self.settings, [])
        tracker.sweep_data(manifests)
        for loss, values in scores.items():
            chosen = make_trial(FINGERPRINT, "mf", loss, {}, seed=0)
            tracker.record_trial(self.folder(chosen), data_name="ml-100k", stage="grid")
            names = {"data_name": "ml-100k", "backbone": "mf", "loss": loss}
            tracker.record_selection(**names, trials=[chosen], metric="ndcg_20", value=0.3)
            for seed, value in zip((1, 2), values, strict=True):
                trial = make_trial(FINGERPRINT, "mf", loss, {}, seed=seed)
                tracker.record_trial(self.folder(trial, value), data_name="ml-100k", stage="confirm")
        tracker.sweep_ended("FINISHED")

    def folder(self, trial, value=None):
        start = {"event": "start", "time": T0, "trial": trial.model_dump(mode="json"), "environment": {"host": "h"}}
        finish = {"event": "finish", "time": T0 + 9, "best_epoch": 5, "best": 0.3, "epochs": 9, "seconds": 1.5}
        test = {"event": "test", "time": T0 + 10, "metrics": {"test/ndcg_20": value}}
        folder = self.root / "storage" / trial.hash
        folder.mkdir(parents=True, exist_ok=True)
        journal.rewrite(folder, [start, finish] if value is None else [start, finish, test])
        return folder

    def outcome(self):
        log_outcome(self.uri, build_report(read_results(self.uri, "duel"), ["ndcg_20"]))

    def runs(self):
        """By name and kind, as MLflow returns them."""
        with contact(self.uri, create=False) as client:
            found = client.search_runs([client.get_experiment_by_name("duel").experiment_id])
            return [(run.data.tags["recloss.kind"], run.info.run_name, run) for run in found]

    def run(self, kind, beginning=""):
        (run,) = (run for k, name, run in self.runs() if k == kind and name.startswith(beginning))
        return run


@pytest.fixture
def sweep(uri, tmp_path):
    return Sweep(uri, tmp_path)


@contextmanager
def client_of_the_process(sweep):
    """MLflow's ``load_table`` asks the store of the process, whatever the client's own is."""
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(sweep.uri)
    try:
        yield mlflow.MlflowClient()
    finally:
        mlflow.set_tracking_uri(before)


def dump(sweep):
    """All that MLflow tells of the runs, with the histories of the metrics and the artifacts."""
    told = {}
    with contact(sweep.uri, create=False) as client:
        for _, _, run in sweep.runs():
            i, d = run.info, run.data
            inputs = [(x.dataset.name, x.dataset.digest) for x in run.inputs.dataset_inputs]
            history = {
                m: [(p.value, p.step, p.timestamp) for p in client.get_metric_history(i.run_id, m)] for m in d.metrics
            }
            files = {f.path: f.file_size for f in client.list_artifacts(i.run_id)}
            told[i.run_id] = str((i.run_name, d.tags, d.params, history, sorted(inputs), files))
    return told


def test_prepared_datasets_are_inputs_of_the_sweep_and_its_trials(sweep):
    sweep.record({"bpr": (0.1, 0.2)})
    kinds = {}
    for kind, _, run in sweep.runs():
        kinds.setdefault(kind, []).append([x.dataset for x in run.inputs.dataset_inputs])
    assert [len(found) for found in kinds["sweep"]] == [1]
    assert [len(found) for found in kinds["trial"]] == [1, 1, 1]
    (dataset,) = kinds["sweep"][0]
    assert (dataset.name, dataset.digest) == ("ml-100k", FINGERPRINT[:36])
    assert json.loads(dataset.profile) == {"fingerprint": FINGERPRINT, "users": 5, "items": 6, "train": 7}
    assert "secret" not in dataset.source
    assert mlflow.data.get_source(dataset).uri.endswith("host/prepared/ml-100k")


def test_another_content_is_another_input(sweep):
    sweep.record({})
    sweep.record({}, [PREPARED, ("ml-100k", Path("elsewhere"), MANIFEST | {"fingerprint": "cd" * 32})])
    assert {x.dataset.digest[:2] for x in sweep.run("sweep").inputs.dataset_inputs} == {"ab", "cd"}


def test_the_main_table_is_what_log_table_makes(sweep):
    sweep.record({"bpr": (0.1, 0.3), "talos": (0.3, 0.4)})
    sweep.outcome()
    run = sweep.run("sweep")
    expected = {
        "Family": ["pointwise and pairwise", "top-K accuracy", ""],
        "Loss": ["BPR", "Talos", "Imp.%"],
        "ml-100k | MF | NDCG@20": ["0.2000 ±0.1414", "0.3500 ±0.0707", "+75.00"],
    }
    with client_of_the_process(sweep) as client:
        found = client.load_table(run.info.experiment_id, "table.json", [run.info.run_id])
        other = client.create_run(run.info.experiment_id).info.run_id
        client.log_table(other, expected, "table.json")
        tag = client.get_run(other).data.tags["mlflow.loggedArtifacts"]
        theirs = client.load_table(run.info.experiment_id, "table.json", [other])
        client.delete_run(other)
    assert found.to_dict("list") == expected
    assert found.equals(theirs)
    assert run.data.tags["mlflow.loggedArtifacts"] == tag


def test_cells_have_their_mean_test_scores(sweep):
    sweep.record({"bpr": (0.1, 0.3), "talos": (0.3, 0.4)})
    sweep.outcome()
    cell = sweep.run("cell", "ml-100k | mf | talos").data
    assert cell.params == {"data_name": "ml-100k", "backbone": "mf", "loss": "talos"}
    metrics = cell.metrics
    assert metrics["test/ndcg_20"] == pytest.approx(0.35)
    assert metrics["test/ndcg_20_std"] == pytest.approx(0.1 / 2**0.5)


def test_a_finished_sweep_again_changes_nothing(sweep):
    scores = {"bpr": (0.1, 0.3), "talos": (0.3, 0.4)}
    sweep.record(scores)
    sweep.outcome()
    once = dump(sweep)
    sweep.record(scores)
    sweep.outcome()
    assert dump(sweep) == once


def test_a_new_result_replaces_the_table_and_the_scores(sweep):
    sweep.record({"bpr": (0.1, 0.3), "talos": (0.3, 0.4)})
    sweep.outcome()
    tracker = open_tracker(sweep.uri, "duel", sweep.root / "artifacts")
    other = make_trial(FINGERPRINT, "mf", "talos", {"loss.tau": 0.7}, seed=0)
    tracker.record_trial(sweep.folder(other), data_name="ml-100k", stage="grid")
    names = {"data_name": "ml-100k", "backbone": "mf", "loss": "talos"}
    tracker.record_selection(**names, trials=[other], metric="ndcg_20", value=0.4)
    sweep.outcome()
    run = sweep.run("sweep")
    with client_of_the_process(sweep) as client:
        found = client.load_table(run.info.experiment_id, "table.json", [run.info.run_id])
    assert found.iloc[:, 2].to_list() == ["0.2000 ±0.1414", "--", "--"]
    gone = sweep.run("cell", "ml-100k | mf | talos").data.metrics["test/ndcg_20"]
    assert gone != gone, "MLflow forgets no metric, so it becomes NaN"


def test_descriptions_are_renewed_and_those_of_a_user_kept(sweep):
    sweep.record({"bpr": (0.1, 0.3), "talos": (0.3, 0.4)})
    note = "mlflow.note.content"
    assert "A trial of the confirmation: `talos` on `mf`, data set `ml-100k`, seed 2." in [
        run.data.tags[note].split("\n\n")[1].partition(" Its")[0] for kind, _, run in sweep.runs() if kind == "trial"
    ]
    cell = sweep.run("cell", "ml-100k | mf | bpr").info.run_id
    with contact(sweep.uri, create=False) as client:
        client.set_tag(cell, note, "mine")
    for _ in range(2):
        sweep.outcome()
    assert "| Talos | **0.3500** ±0.0707 |" in sweep.run("sweep").data.tags[note]
    assert "Talos on MF" in sweep.run("cell", "ml-100k | mf | talos").data.tags[note]
    assert sweep.run("cell", "ml-100k | mf | bpr").data.tags[note] == "mine"


def test_mlflow_shows_the_experiment_as_one_that_trains_models(sweep):
    sweep.record({})
    with contact(sweep.uri, create=False) as client:
        kind = client.get_experiment_by_name("duel").tags["mlflow.experimentKind"]
    assert kind == "custom_model_development"


def test_names_of_runs_tell_them_apart_in_a_comparison(sweep):
    sweep.record({"bpr": (0.1, 0.3)})
    names = [name for kind, name, _ in sweep.runs() if kind == "trial"]
    assert len(set(names)) == 3
    assert all(name.startswith("bpr mf ml-100k ") for name in names)


def test_a_report_of_an_empty_sweep(sweep):
    sweep.record({})
    report = make_report(sweep.uri, "duel")
    assert [score.mean for row in report.table.rows for score in row.scores] == [None] * 4
    assert set(report.table.notes) == {"no trial yet", "no improvement is told before every baseline is ranked"}
    log_outcome(sweep.uri, report)
    assert sweep.run("sweep").data.tags["recloss.table"]


def test_a_report_without_the_files_per_user_has_no_statistics(sweep):
    sweep.record({"bpr": (0.1, 0.3), "talos": (0.3, 0.4)})
    report = make_report(sweep.uri, "duel", ["ndcg_20"])
    assert [row.scores[0].mean for row in report.table.rows] == pytest.approx([0.2, 0.35])
    assert report.comparisons == ()
    assert any("BPR is not compared: no readable scores per user" in line for line in report.uncompared)
    assert not any(row.scores[0].significant for row in report.table.rows)


def test_a_damaged_store_is_one_line(sweep):
    sweep.record({})
    Path(sweep.uri.removeprefix("sqlite:///")).write_bytes(b"not a database" * 100)
    with pytest.raises(InputError, match="cannot be (opened|used)"):
        make_report(sweep.uri, "duel")


@pytest.mark.parametrize(
    ("address", "server"),
    [
        ("sqlite:///x/mlflow.db", ""),
        ("postgresql://me:secret@db/x", ""),
        ("http://host:5000/", "http://host:5000"),
        ("https://me:secret@host/mlflow?token=secret", "https://host/mlflow"),
    ],
)
def test_links_lead_to_a_server_and_hold_no_password(address, server, sweep, monkeypatch):
    sweep.record({})
    results = read_results(sweep.uri, "duel")
    monkeypatch.setattr("pipelines.report.report.read_results", lambda *_: results)
    monkeypatch.setattr("pipelines.report.report.read_test_users", lambda *_: {})
    report = make_report(address, "duel")
    assert report.server == server
    expected = f"{server}/#/experiments/{results.experiment_id}/runs/abc" if server else ""
    assert report.link("abc") == expected
    assert report.link("") == ""
