"""Per-user scores and other files of trials, read back from a real store; nothing is trained."""

import dataclasses
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.settings import SweepSettings, make_trial, parse
from pipelines.tracking import open_tracker, read_results
from pipelines.tracking.artifacts import read_artifacts, read_test_users
from pipelines.tracking.store import UI_ENVIRONMENT
from pipelines.train import journal
from pipelines.train.folder import TEST_USERS
from recloss.errors import InputError

SWEEP = {
    "name": "duel",
    "data": [{"name": "toy", "path": "prepared/toy"}],
    "backbones": {"mf": None},
    "losses": {"bpr": None, "talos": None},
    "confirm_seeds": [1, 2],
}


def record(uri, root, n=3):
    """A sweep of scored trials in the store; their hashes, by seed."""
    tracker = open_tracker(uri, "duel", root / "kept here, 100% of it")
    tracker.sweep_started(parse(SweepSettings, SWEEP, "test").model_dump(mode="json"))
    hashes = []
    for seed in range(n):
        trial = make_trial("ab" * 32, "mf", "talos", {}, seed=seed)
        folder = root / trial.hash
        folder.mkdir()
        start = {"event": "start", "time": 1.0, "trial": trial.model_dump(mode="json"), "environment": {}}
        journal.rewrite(folder, [start, {"event": "finish", "time": 2.0, "best": 0.1, "best_epoch": 1, "seconds": 1.0}])
        pq.write_table(users(seed), folder / TEST_USERS)
        (folder / "diagnostics.json").write_text(f'{{"seed": {seed}}}')
        tracker.record_trial(folder, data_name="toy", stage="confirm")
        tracker.attach(folder, [folder / TEST_USERS, folder / "diagnostics.json"])
        hashes.append(trial.hash)
    return hashes


def users(seed):
    tail = pa.array([0.5, None, 1.0])
    return pa.table({"user": pa.array([0, 2, 7], pa.int32()), "ndcg_20": [seed, 0.25, 1.0], "recall_tail_20": tail})


def kept(results, trial, name=TEST_USERS):
    """Where the artifact store has a file."""
    (run,) = [t for t in results.trials if t.hash == trial]
    return os.path.join(run.artifacts, name)


@pytest.fixture
def uri(empty_store, tmp_path):
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


@pytest.fixture
def hashes(uri, tmp_path):
    return record(uri, tmp_path)


def test_users_are_read_back_whole(uri, hashes):
    results = read_results(uri, "duel")
    found = read_test_users(uri, results, [*hashes, "not a trial"])
    assert found == {trial: users(seed) for seed, trial in enumerate(hashes)}
    (one,) = read_test_users(uri, results, [hashes[1]], ["recall_tail_20", "mrr_20"]).values()
    assert one == users(1).select(["user", "recall_tail_20"])


def test_any_file_is_read_back_byte_by_byte(uri, hashes):
    found = read_artifacts(uri, read_results(uri, "duel"), "diagnostics.json", hashes[:2])
    assert found == {hashes[0]: b'{"seed": 0}', hashes[1]: b'{"seed": 1}'}


def test_a_store_without_trials(uri, hashes):
    results = dataclasses.replace(read_results(uri, "duel"), trials=())
    assert read_artifacts(uri, results, "diagnostics.json", hashes) == {}


@pytest.mark.parametrize("through_mlflow", [False, True])
def test_a_missing_file_is_absent(uri, hashes, through_mlflow):
    results = read_results(uri, "duel")
    os.remove(kept(results, hashes[1]))
    if through_mlflow:
        results = remote(results)
    found = read_test_users(uri, results, hashes)
    assert found == {hashes[0]: users(0), hashes[2]: users(2)}


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b[:40] + bytes(60) + b[100:]])
def test_a_damaged_file_is_absent_and_named(uri, hashes, damage, caplog):
    results = read_results(uri, "duel")
    file = kept(results, hashes[1])
    with open(file, "rb") as whole:
        content = whole.read()
    with open(file, "wb") as broken:
        broken.write(damage(content))
    assert read_test_users(uri, results, hashes).keys() == {hashes[0], hashes[2]}
    assert [hashes[1] in r.getMessage() and "damaged" in r.getMessage() for r in caplog.records] == [True]


def test_a_table_without_users_is_damaged(uri, hashes, caplog):
    results = read_results(uri, "duel")
    pq.write_table(pa.table({"ndcg_20": [0.5]}), kept(results, hashes[0]))
    assert hashes[0] not in read_test_users(uri, results, hashes)
    assert "no column user" in caplog.text


def test_a_file_that_may_not_be_read_is_named_in_one_line(uri, hashes):
    results = read_results(uri, "duel")
    file = kept(results, hashes[1], "diagnostics.json")
    os.remove(file)
    os.mkdir(file)
    with pytest.raises(InputError, match="diagnostics.json cannot be read") as caught:
        read_artifacts(uri, results, "diagnostics.json", hashes)
    assert "\n" not in str(caught.value)


def remote(results):
    """As if the artifacts were not on this machine: MLflow fetches them."""
    trials = [dataclasses.replace(t, artifacts=f"runs:/{t.run_id}") for t in results.trials]
    return dataclasses.replace(results, trials=tuple(trials))


def test_artifacts_elsewhere_are_fetched(uri, hashes):
    results = remote(read_results(uri, "duel"))
    assert read_test_users(uri, results, hashes) == {trial: users(seed) for seed, trial in enumerate(hashes)}
    assert read_artifacts(uri, results, "no such file", hashes) == {}


def test_a_store_that_does_not_answer_is_one_line(uri, hashes):
    results = remote(read_results(uri, "duel"))
    with pytest.raises(InputError, match="tracking store") as caught:
        read_test_users("http://user:secret@127.0.0.1:9", results, hashes)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_real_server_hands_them_out(empty_store, tmp_path, free_port):
    shutil.copy(empty_store, tmp_path / "server.db")
    uri = f"http://127.0.0.1:{free_port}"
    store = ["--backend-store-uri", f"sqlite:///{tmp_path}/server.db", "--artifacts-destination", str(tmp_path / "a")]
    place = ["--host", "127.0.0.1", "--port", str(free_port), "--workers", "1"]
    server = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", *place, *store],
        env=os.environ | UI_ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(uri)
        hashes = record(uri, tmp_path, 2)
        results = read_results(uri, "duel")
        assert {t.artifacts.partition(":")[0] for t in results.trials} == {"mlflow-artifacts"}
        assert read_test_users(uri, results, hashes) == {trial: users(seed) for seed, trial in enumerate(hashes)}
        assert read_artifacts(uri, results, "no such file", hashes) == {}
    finally:
        server.terminate()
        server.wait(30)


def wait_for(uri):
    deadline = time.monotonic() + 120
    while True:
        try:
            urllib.request.urlopen(f"{uri}/health", timeout=2).close()
            return
        except OSError:
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.2)


@pytest.fixture
def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
