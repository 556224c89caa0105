"""Stores are built from fabricated journals; nothing is trained."""

import contextlib
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time

import pytest

from pipelines.report import build_report, build_table, write_report
from pipelines.settings import SweepSettings, make_trial, parse
from pipelines.tracking import experiments, open_tracker, read_results, store, ui_command
from pipelines.tracking.store import contact, redact
from pipelines.train import journal
from recloss.errors import InputError

FINGERPRINT = "ab" * 32
T0 = 1_750_000_000.25
ENVIRONMENT = {"git_commit": "c0ffee", "threads": "1", "device": "x86_64", "versions": {"torch": "2.13"}}


@pytest.fixture
def uri(empty_store, tmp_path):
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.fixture
def tracker(uri, tmp_path):
    return open_tracker(uri, "duel", tmp_path / "artifacts")


def settings(**changes):
    raw = {
        "name": "duel",
        "data": [{"name": "ml-100k", "path": "prepared/ml-100k"}],
        "backbones": {"mf": None},
        "losses": {"bpr": None, "talos": None},
        "baselines": ["bpr"],
        "confirm_seeds": [1, 2],
    }
    return parse(SweepSettings, raw | changes, "test").model_dump(mode="json")


def trial(loss="talos", seed=0, **dotted):
    return make_trial(FINGERPRINT, "mf", loss, {key.replace("__", "."): v for key, v in dotted.items()}, seed=seed)


def start(a_trial, at=T0):
    return {"event": "start", "time": at, "trial": a_trial.model_dump(mode="json"), "environment": ENVIRONMENT}


def valid(epoch, ndcg, at=None, seconds=None):
    metrics = {"valid/ndcg_20": ndcg, "train/loss": 1 / epoch} | ({"train/seconds": seconds} if seconds else {})
    return {"event": "valid", "time": at or T0 + epoch, "epoch": epoch, "metrics": metrics}


def finish(best_epoch=10, best=0.3, at=T0 + 20):
    numbers = {"best_epoch": best_epoch, "best": best, "epochs": 15, "seconds": 12.5}
    return {"event": "finish", "time": at, **numbers}


def fail(error="DivergedError: loss is nan"):
    return {"event": "fail", "time": T0 + 7, "kind": "diverged", "error": error}


def scored(ndcg, at=T0 + 30):
    return {"event": "test", "time": at, "metrics": {"test/ndcg_20": ndcg, "test/recall_20": ndcg / 2}}


def write(root, a_trial, *events):
    folder = root / a_trial.hash
    folder.mkdir(parents=True, exist_ok=True)
    journal.rewrite(folder, list(events))
    return folder


def dump(uri):
    """All the store says about runs, row by row; but not when a sweep or an interrupted trial ended: that is now."""
    ended = "case when name = 'sweep' or status = 'KILLED' then 0 else end_time end"
    with contextlib.closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as connection:
        columns = {
            "runs": f"run_uuid, name, status, start_time, {ended}, lifecycle_stage, experiment_id, artifact_uri",
            "metrics": "run_uuid, key, step, value, timestamp, is_nan",
            "latest_metrics": "run_uuid, key, step, value, timestamp, is_nan",
            "params": "*",
            "tags": "*",
            "experiments": "*",
        }
        return {
            table: sorted(connection.execute(f"select {c} from {table}").fetchall()) for table, c in columns.items()
        }


def history(uri, metric):
    """(step, value, unix ms) of a metric, of all runs."""
    return sorted(row[2:5] for row in dump(uri)["metrics"] if row[1] == metric)


def runs(uri):
    """Trials by hash."""
    return {t.hash: t for t in read_results(uri, "duel").trials}


class TestTrials:
    def test_finished_trial_is_read_back_whole(self, tracker, uri, tmp_path):
        tracker.sweep_started(settings())
        t = trial(loss__tau=0.1, seed=3)
        folder = write(tmp_path, t, start(t), valid(5, 0.2), valid(10, 0.3), valid(15, 0.25), finish(), scored(0.28))
        tracker.record_trial(folder, data_name="ml-100k", stage="confirm")
        (run,) = read_results(uri, "duel").trials
        assert (run.hash, run.data, run.fingerprint) == (t.hash, "ml-100k", FINGERPRINT)
        assert (run.backbone, run.loss, run.seed, run.stages) == ("mf", "talos", 3, ("confirm",))
        assert (run.status, run.start, run.end, run.error) == ("FINISHED", T0, T0 + 30, None)
        assert run.params == {key: str(value) for key, value in t.flat().items()}
        assert run.environment == {
            "git_commit": "c0ffee", "threads": "1", "device": "x86_64", "versions.torch": "2.13"
        }  # fmt: skip
        assert run.epoch_seconds == 12.5 / 15
        assert run.metrics == {
            "valid/ndcg_20": 0.25, "train/loss": 1 / 15, "best_epoch": 10, "best": 0.3, "epochs": 15,
            "seconds": 12.5, "test/ndcg_20": 0.28, "test/recall_20": 0.14,
        }  # fmt: skip
        assert history(uri, "valid/ndcg_20") == [
            (step, value, round((T0 + step) * 1000)) for step, value in ((5, 0.2), (10, 0.3), (15, 0.25))
        ]
        assert history(uri, "test/ndcg_20") == [(10, 0.28, round((T0 + 30) * 1000))]

    def test_runs_are_nested_and_tagged(self, tracker, uri, tmp_path):
        tracker.sweep_started(settings())
        t = trial(loss__tau=0.1)
        tracker.record_trial(write(tmp_path, t, start(t)), data_name="ml-100k", stage="grid")
        tags = {}
        for key, value, run in dump(uri)["tags"]:
            tags.setdefault(run, {})[key] = value
        ids = {t["recloss.kind"]: run for run, t in tags.items()}
        assert "mlflow.parentRunId" not in tags[ids["sweep"]]
        assert tags[ids["cell"]]["mlflow.parentRunId"] == ids["sweep"]
        assert tags[ids["trial"]]["mlflow.parentRunId"] == ids["cell"]
        assert tags[ids["cell"]]["mlflow.runName"] == "ml-100k | mf | talos"
        assert tags[ids["trial"]]["mlflow.runName"].startswith("talos ")
        assert tags[ids["trial"]]["mlflow.runName"].endswith(" lr=0.01 seed=0")
        assert " tau=0.1 " in tags[ids["trial"]]["mlflow.runName"]
        assert tags[ids["trial"]]["recloss.env.git_commit"] == "c0ffee"
        assert tags[ids["trial"]]["recloss.env.versions.torch"] == "2.13"
        assert all("@" not in row[0] for row in dump(uri)["metrics"])

    def test_recording_twice_changes_nothing(self, tracker, uri, tmp_path):
        def record(tracker):
            tracker.sweep_started(settings())
            for folder, stage in folders:
                tracker.record_trial(folder, data_name="ml-100k", stage=stage)
            tracker.record_selection(
                data_name="ml-100k", backbone="mf", loss="talos", trials=[done], metric="ndcg_20", value=0.3
            )
            tracker.attach(folders[0][0], [folders[0][0] / journal.FILE])
            tracker.close_stale(set())
            tracker.sweep_ended("FINISHED")

        done, failed, cut = trial(), trial(loss__tau=0.2), trial(loss__tau=0.3)
        folders = [
            (write(tmp_path, done, start(done), valid(5, float("nan")), valid(10, 0.3), finish(), scored(0.2)), "grid"),
            (write(tmp_path, failed, start(failed), valid(5, 0.1), fail()), "grid"),
            (write(tmp_path, cut, start(cut), valid(5, 0.1)), "grid"),
        ]
        record(tracker)
        once = dump(uri)
        record(tracker)
        assert dump(uri) == once
        record(open_tracker(uri, "duel", tmp_path / "artifacts"))
        assert dump(uri) == once
        for run in list(tracker._runs.values()):  # and where MLflow itself must recognise the measurements
            run.tags.pop("recloss.journal", None)
            run.logged = {}
        record(tracker)
        assert dump(uri) == once

    def test_more_measurements_than_one_batch_takes(self, tracker, uri, tmp_path):
        tracker.sweep_started(settings())
        t = trial()
        folder = write(tmp_path, t, start(t), *(valid(epoch, epoch / 1000) for epoch in range(1, 701)), finish())
        tracker.record_trial(folder, data_name="ml-100k", stage="grid")
        assert [step for step, *_ in history(uri, "valid/ndcg_20")] == list(range(1, 701))

    def test_running_then_resumed_then_finished(self, tracker, uri, tmp_path):
        tracker.sweep_started(settings())
        t = trial()
        folder = write(tmp_path, t, start(t), valid(5, 0.2), valid(10, 0.3, seconds=3))
        tracker.record_trial(folder, data_name="ml-100k", stage="grid")
        assert runs(uri)[t.hash].status == "RUNNING"
        assert runs(uri)[t.hash].metrics == {}
        tracker.close_stale({t.hash})
        assert runs(uri)[t.hash].status == "RUNNING"
        tracker.close_stale(set())
        assert runs(uri)[t.hash].status == "KILLED"
        # the checkpoint was of epoch 5: epoch 10 is measured again, later
        write(tmp_path, t, start(t), valid(5, 0.2), valid(10, 0.3, T0 + 500, seconds=4), finish(at=T0 + 600))
        again = open_tracker(uri, "duel", tmp_path / "artifacts")
        again.record_trial(folder, data_name="ml-100k", stage="grid")
        assert (runs(uri)[t.hash].status, runs(uri)[t.hash].end) == ("FINISHED", T0 + 600)
        assert [point[:2] for point in history(uri, "valid/ndcg_20")] == [(5, 0.2), (10, 0.3)]
        assert [point[:2] for point in history(uri, "train/seconds")] == [(10, 3)]

    def test_failed_trial_has_an_error_and_no_score(self, tracker, uri, tmp_path):
        tracker.sweep_started(settings())
        t = trial()
        folder = write(tmp_path, t, start(t), valid(5, 0.2), fail("E" * 2000))
        tracker.record_trial(folder, data_name="ml-100k", stage="grid")
        assert (runs(uri)[t.hash].status, runs(uri)[t.hash].metrics) == ("FAILED", {})
        assert runs(uri)[t.hash].error == "E" * 499 + "…"
        assert dump(uri)["metrics"] == []
        write(tmp_path, t, start(t), valid(5, 0.2), finish())
        tracker.record_trial(folder, data_name="ml-100k", stage="grid")
        assert (runs(uri)[t.hash].status, runs(uri)[t.hash].error) == ("FINISHED", None)
        assert runs(uri)[t.hash].metrics["best"] == 0.3

    def test_trial_that_fails_after_it_was_seen_running_shows_no_score(self, tracker, uri, tmp_path):
        tracker.sweep_started(settings())
        t = trial()
        for events in ([start(t), valid(5, 0.2)], [start(t), valid(5, 0.2), fail()]):
            tracker.record_trial(write(tmp_path, t, *events), data_name="ml-100k", stage="grid")
        assert (runs(uri)[t.hash].status, runs(uri)[t.hash].metrics) == ("FAILED", {})

    def test_trial_of_both_stages(self, tracker, uri, tmp_path):
        tracker.sweep_started(settings())
        t = trial()
        folder = write(tmp_path, t, start(t), finish())
        for stage in ("confirm", "grid", "confirm"):
            tracker.record_trial(folder, data_name="ml-100k", stage=stage)
        assert runs(uri)[t.hash].stages == ("grid", "confirm")

    def test_no_journal_no_run(self, tracker, uri, tmp_path):
        tracker.sweep_started(settings())
        tracker.record_trial(tmp_path, data_name="ml-100k", stage="grid")
        assert runs(uri) == {}

    def test_run_deleted_by_hand_is_made_again(self, tracker, uri, tmp_path):
        tracker.sweep_started(settings())
        t = trial()
        folder = write(tmp_path, t, start(t), finish())
        tracker.record_trial(folder, data_name="ml-100k", stage="grid")
        with contact(uri, create=False) as client:
            client.delete_run(tracker._runs["trial", t.hash].id)
        assert runs(uri) == {}
        open_tracker(uri, "duel", tmp_path).record_trial(folder, data_name="ml-100k", stage="grid")
        assert runs(uri)[t.hash].status == "FINISHED"

    def test_two_names_for_one_content_are_refused(self, tracker, tmp_path):
        t = trial()
        folder = write(tmp_path, t, start(t))
        tracker.record_trial(folder, data_name="ml-100k", stage="grid")
        with pytest.raises(InputError, match="'ml-100k' and 'movies' have the same content"):
            tracker.record_trial(folder, data_name="movies", stage="grid")

    def test_artifacts_are_written_once(self, tracker, tmp_path):
        t = trial()
        folder = write(tmp_path / "storage", t, start(t), finish())
        tracker.record_trial(folder, data_name="ml-100k", stage="confirm")
        files = [folder / "trial.json", folder / "model.pt"]
        for file in files:
            file.write_text("12345")
        tracker.attach(folder, files)
        placed = {p.name: p for p in (tmp_path / "artifacts").rglob("*") if p.is_file()}
        assert placed.keys() == {"trial.json", "model.pt"}
        placed["model.pt"].write_text("54321")  # a second copy would show
        files[0].write_text("123456")
        tracker.attach(folder, files)
        assert (placed["model.pt"].read_text(), placed["trial.json"].read_text()) == ("54321", "123456")


class TestSweep:
    def test_settings_are_read_back(self, tracker, uri):
        tracker.sweep_started(settings(confirm_seeds=[7]))
        tracker.sweep_started(settings(confirm_seeds=[8]))
        assert read_results(uri, "duel").settings == settings(confirm_seeds=[8])
        assert experiments(uri) == ["duel"]

    def test_every_manifest_it_was_started_on_is_kept(self, tracker, uri):
        first, second = ({"fingerprint": letter * 64, "settings": {"k_core": k}} for letter, k in (("a", 5), ("b", 10)))
        tracker.sweep_started(settings())
        assert read_results(uri, "duel").manifests == {}
        tracker.sweep_started(settings(), [first])
        tracker.sweep_started(settings(), [first | {"settings": {}}, second])
        assert read_results(uri, "duel").manifests == {"a" * 64: first, "b" * 64: second}

    def test_selection_replaces_an_earlier_one(self, tracker, uri):
        cell = {"data_name": "ml-100k", "backbone": "mf", "loss": "talos"}
        tracker.sweep_started(settings())
        tracker.record_selection(**cell, trials=[trial()], metric="ndcg_20", value=0.5)
        chosen = [trial(loss__tau=0.2, seed=seed) for seed in (0, 1)]
        tracker.record_selection(**cell, trials=chosen, metric="ndcg_20", value=0.25)
        selection = read_results(uri, "duel").selections["ml-100k", "mf", "talos"]
        assert selection.trials == tuple(t.hash for t in chosen)
        assert (selection.metric, selection.value) == ("valid/ndcg_20", 0.25)
        assert selection.configuration["loss.tau"] == "0.2"
        assert "seed" not in selection.configuration

    @pytest.mark.parametrize(("status", "cell"), [("FINISHED", "FAILED"), ("KILLED", "KILLED"), ("FAILED", "FAILED")])
    def test_nothing_is_left_running(self, tracker, uri, tmp_path, status, cell):
        tracker.sweep_started(settings())
        t = trial()
        tracker.record_trial(write(tmp_path, t, start(t)), data_name="ml-100k", stage="grid")
        tracker.close_stale(set())
        tracker.sweep_ended(status)
        assert sorted(row[2] for row in dump(uri)["runs"]) == sorted([status, cell, "KILLED"])
        tracker.sweep_started(settings())
        assert sorted(row[2] for row in dump(uri)["runs"]) == ["KILLED", "RUNNING", "RUNNING"]

    def test_report_needs_nothing_but_the_store(self, tracker, uri, tmp_path):
        tracker.sweep_started(settings())
        for loss, scores in (("bpr", (0.1, 0.3)), ("talos", (0.3, 0.4))):
            chosen = trial(loss)
            tracker.record_trial(
                write(tmp_path / "storage", chosen, start(chosen), finish()), data_name="ml-100k", stage="grid"
            )
            tracker.record_selection(
                data_name="ml-100k", backbone="mf", loss=loss, trials=[chosen], metric="ndcg_20", value=0.3
            )
            for seed, score in zip((1, 2), scores, strict=True):
                t = trial(loss, seed)
                folder = write(tmp_path / "storage", t, start(t), finish(), scored(score))
                tracker.record_trial(folder, data_name="ml-100k", stage="confirm")
        shutil.rmtree(tmp_path / "storage")
        results = read_results(uri, "duel")
        table = build_table(results, ["ndcg_20"])
        assert [row.scores[0].mean for row in table.rows] == pytest.approx([0.2, 0.35])
        assert [row.scores[0].mark for row in table.rows] == ["second", "best"]
        assert table.improvements[0].percent == pytest.approx(75)
        (page,) = write_report(build_report(results, ["ndcg_20"]), tmp_path / "out", ["md"])
        assert "| Talos | **0.3500** ±0.0707 |" in page.read_text(encoding="utf-8")


class TestStore:
    def test_unknown_sweep_names_the_nearest(self, tracker, uri):
        tracker.sweep_started(settings())
        with pytest.raises(InputError, match=r"unknown sweep 'dule'; did you mean 'duel'\? \(accepted: duel\)"):
            read_results(uri, "dule")

    def test_store_without_a_sweep(self, uri):
        assert experiments(uri) == []
        with pytest.raises(InputError, match="holds no sweep yet"):
            read_results(uri, "duel")

    def test_trials_outside_a_sweep(self, tracker, uri, tmp_path):
        t = trial()
        tracker.record_trial(write(tmp_path, t, start(t), finish()), data_name="ml-100k", stage="grid")
        assert [row[2] for row in dump(uri)["runs"]] == ["FINISHED"]
        assert experiments(uri) == []
        with pytest.raises(InputError, match="experiment 'duel' holds no sweep, so there is nothing to compare"):
            read_results(uri, "duel")

    def test_reading_makes_no_store(self, tmp_path):
        with pytest.raises(InputError, match="no tracking store at"):
            experiments(f"sqlite:///{tmp_path}/nowhere/mlflow.db")
        assert list(tmp_path.iterdir()) == []

    def test_deleted_experiment(self, tracker, uri, tmp_path):
        with contact(uri, create=False) as client:
            client.delete_experiment(tracker._experiment_id)
        for attempt in (lambda: open_tracker(uri, "duel", tmp_path), lambda: read_results(uri, "duel")):
            with pytest.raises(
                InputError, match=r"'duel' was deleted in MLflow; restore it \(mlflow experiments restore"
            ):
                attempt()

    def test_lost_artifact_store(self, tracker, uri, tmp_path):
        tracker.sweep_started(settings())
        shutil.rmtree(tmp_path / "artifacts")
        with pytest.raises(InputError, match=r"sweep\.json cannot be read from the artifact store"):
            read_results(uri, "duel")

    @pytest.mark.parametrize(
        ("uri", "message"),
        [
            ("mlruns", "unknown scheme"),
            ("", "unknown scheme"),
            ("ftp://me:secret@host/x", "unknown scheme"),
            ("sqlite:/x.db", "is malformed"),
            ("sqlite://", "names no file"),
            ("sqlite:////proc/no/such/mlflow.db", "cannot be opened: .*No such file"),
            (f"sqlite:///{__file__}", "cannot be opened: file is not a database"),
            ("http://", "is malformed"),
            ("http://me:secret@[host", "is malformed"),
            ("postgresql:me:secret@host", "is malformed"),
            ("postgresql://me:secret@127.0.0.1:9/db?password=secret", "cannot be opened: .*refused"),
        ],
    )
    def test_bad_uri_is_one_line(self, uri, message, tmp_path):
        begin = time.monotonic()
        with pytest.raises(InputError, match=message) as caught:
            open_tracker(uri, "duel", tmp_path)
        assert "\n" not in str(caught.value)
        assert "secret" not in str(caught.value)
        assert time.monotonic() - begin < 15

    def test_server_that_refuses(self, tmp_path, monkeypatch):
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            uri = f"http://me:secret@127.0.0.1:{free.getsockname()[1]}"
        begin = time.monotonic()
        with pytest.raises(InputError, match=r"'http://\*\*\*@127.0.0.1:\d+' cannot be used: .*refused") as caught:
            open_tracker(uri, "duel", tmp_path)
        assert time.monotonic() - begin < 15
        assert "secret" not in str(caught.value)
        assert "\n" not in str(caught.value)
        assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "77"
        assert "MLFLOW_HTTP_REQUEST_MAX_RETRIES" not in os.environ

    def test_server_that_stays_silent(self, tmp_path, monkeypatch):
        monkeypatch.setattr(store, "_CONTACT_SECONDS", 1)
        with socket.create_server(("127.0.0.1", 0)) as silent:
            accepted = []
            threading.Thread(target=lambda: accepted.append(silent.accept()), daemon=True).start()
            begin = time.monotonic()
            with pytest.raises(InputError, match=r"cannot be used: .*timed out"):
                open_tracker(f"http://127.0.0.1:{silent.getsockname()[1]}", "duel", tmp_path)
            assert time.monotonic() - begin < 10

    def test_credentials_are_hidden_anywhere(self):
        text = "cannot reach https://me:pa:ss@w@host:1/x?token=abc or postgresql+psycopg2://a:b@h/db"
        assert redact(text) == "cannot reach https://***@host:1/x?*** or postgresql+psycopg2://***@h/db"

    def test_fresh_store_is_set_up_in_silence(self, tmp_path):
        """In a process of its own: what a user's terminal shows, what lands in the working folder."""
        code = (
            "import sys; from pathlib import Path; from pipelines.tracking import open_tracker;"
            "assert 'mlflow' not in sys.modules;"
            "open_tracker('sqlite:///stores/mlflow.db', 'duel', Path('artifacts'))"
        )
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert [p.name for p in tmp_path.iterdir()] == ["stores"]
        with contextlib.closing(sqlite3.connect(tmp_path / "stores" / "mlflow.db")) as connection:
            ((place,),) = connection.execute("select artifact_location from experiments where name = 'duel'")
        assert place == str(tmp_path / "artifacts")

    def test_ui_command(self, uri):
        command, environment = ui_command(uri, port=5001)
        assert command[:4] == [sys.executable, "-m", "mlflow", "server"]
        assert command[4:] == ["--host", "127.0.0.1", "--port", "5001", "--workers", "1"]
        assert environment["MLFLOW_BACKEND_STORE_URI"] == uri
        with pytest.raises(InputError, match="is an MLflow server already"):
            ui_command("http://host:5000")


@pytest.mark.parametrize(
    ("text", "uri", "shown"),
    [
        ("sqlite:///runs/mlflow.db", "", "sqlite:///runs/mlflow.db"),
        ("http://host:5000", "", "http://host:5000"),
        ("postgresql://ann:p%40ss/w@db:5432/x", "", "postgresql://***@db:5432/x"),
        ("refused p@ss and p%40ss", "postgresql://ann:p%40ss@db", "refused *** and ***"),
        ("bad token t0k", "https://t0k@host", "bad token ***"),
        ("https://host/x?user=ann&access_token=t0k&n=1", "", "https://host/x?***"),
    ],
)
def test_credentials_are_never_shown(text, uri, shown):
    assert redact(text, uri) == shown
