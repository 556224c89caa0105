"""A served model answers over HTTP: MLflow's scoring server in this process, and `mlflow models serve` (slow)."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

import mlflow
import pandas as pd
import pytest
import uvicorn
from mlflow.pyfunc import scoring_server

from pipelines.serving.register import register_selected
from pipelines.tracking.models import save_model


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def ask(port: int, question: dict | str, status: int = 200) -> dict:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/invocations",
        question.encode() if isinstance(question, str) else json.dumps(question).encode(),
        {"Content-Type": "application/json"},
    )
    try:
        answer = urllib.request.urlopen(request, timeout=30)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        body = json.load(answer)
    assert answer.status == status, body
    return body


def split(*users) -> dict:
    return {"dataframe_split": {"columns": ["user"], "data": [[user] for user in users]}}


@pytest.fixture
def ranking(serve, a_trial):
    return serve(a_trial())


@pytest.fixture
def port(ranking, tmp_path):
    """Of MLflow's scoring server in a thread of this process."""
    save_model(tmp_path / "ranking", tmp_path / "model")
    app = scoring_server.init(mlflow.pyfunc.load_model(str(tmp_path / "model")))
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield port
    server.should_exit = True
    thread.join()


def test_the_server_answers_as_the_ranking(port, ranking):
    asked = ask(port, split("u1", "u7", "nobody") | {"params": {"k": 4}})
    assert asked == {"predictions": ranking.recommend(["u1", "u7", "nobody"], 4).to_dict("records")}
    assert asked["predictions"][0].keys() == {"user", "item", "rank", "score", "fallback"}
    whole = ask(port, split("u1") | {"params": {"k": 40, "hide_seen": False}})["predictions"]
    assert sorted(row["item"] for row in whole) == sorted(f"i{i}" for i in range(40))
    assert [row["rank"] for row in ask(port, split("u1"))["predictions"]] == list(range(1, 21)), "k is 20 by default"


@pytest.mark.parametrize(
    "question",
    [
        {"dataframe_records": [{"user": "u1"}, {"user": "u7"}]},
        {"inputs": {"user": ["u1", "u7"]}},
        {"inputs": [{"user": "u1"}, {"user": "u7"}]},
        split("u1", "u7") | {"dataframe_split": {"columns": ["age", "user"], "data": [[5, "u1"], [6, "u7"]]}},
    ],
)
def test_every_form_that_mlflow_takes(question, port, ranking):
    expected = ranking.recommend(["u1", "u7"], 3).to_dict("records")
    assert ask(port, question | {"params": {"k": 3}})["predictions"] == expected


def test_strange_users_are_unknown_users(port):
    strange = [1, 2.5, None, True, "", " u1", "ü", "'; DROP TABLE users", {"user": "u1"}]
    rows = ask(port, split(*strange) | {"params": {"k": 1}})["predictions"]
    assert len(rows) == len(strange)
    assert all(row["fallback"] for row in rows)


def test_no_user_no_prediction(port):
    assert ask(port, split())["predictions"] == []


@pytest.mark.parametrize(
    ("question", "message"),
    [
        (split("u1") | {"params": {"k": 41}}, "k must lie in 1..40 (the catalogue), got 41"),
        (split("u1") | {"params": {"k": 0}}, "k must lie in 1..40"),
        (split("u1") | {"params": {"k": "many"}}, "Can not safely convert"),
        ({"dataframe_split": {"columns": ["usr"], "data": [["u1"]]}}, "Model is missing inputs ['user']"),
        ("{", "Ensure that input is a valid JSON"),
    ],
)
def test_a_wrong_request_is_answered_with_400_and_the_reason(question, message, port):
    assert message in ask(port, question, 400)["message"]


def test_many_users_at_once_from_many_threads(port, ranking):
    users = [f"u{i}" for i in range(60)]
    expected = {user: ranking.recommend([user], 5)["item"].tolist() for user in users}
    answers: dict[str, list[str]] = {}

    def one(user):
        rows = ask(port, split(user) | {"params": {"k": 5}})["predictions"]
        answers[user] = [row["item"] for row in rows]

    threads = [threading.Thread(target=one, args=(user,)) for user in users]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == expected


@pytest.mark.slow
def test_mlflow_models_serve_serves_the_selected_model(storage, tmp_path, monkeypatch):
    uri = f"sqlite:///{storage}/mlflow.db"
    register_selected(uri, "toy", ["toy/mf/sl"], False, [], print)
    port, scripts = free_port(), os.path.dirname(sys.executable)
    environment = os.environ | {"MLFLOW_TRACKING_URI": uri, "PATH": f"{scripts}:{os.environ['PATH']}"}
    place = ["--host", "127.0.0.1", "--port", str(port), "--env-manager", "local"]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", "models:/toy.toy.mf.sl@selected", *place]
    with open(tmp_path / "serve.log", "wb") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        until = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5).close()
                break
            except OSError:
                assert time.monotonic() < until, (tmp_path / "serve.log").read_text()
                assert server.poll() is None, (tmp_path / "serve.log").read_text()
                time.sleep(0.5)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        model = mlflow.pyfunc.load_model("models:/toy.toy.mf.sl@selected")
        expected = model.predict(pd.DataFrame({"user": ["u1", "nobody"]}), params={"k": 3}).to_dict("records")
        assert ask(port, split("u1", "nobody") | {"params": {"k": 3}}) == {"predictions": expected}
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)
