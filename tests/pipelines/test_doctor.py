import os
import signal
import socket
import sqlite3
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from mlflow import MlflowClient

from pipelines import doctor
from pipelines.doctor import Check


@pytest.fixture
def listening():
    """A TCP port that accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def closed_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def test_the_whole_report_on_this_machine(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "400")
    monkeypatch.setenv("RECLOSS_DATA", str(tmp_path))
    store, storage = tmp_path / "mlflow.db", tmp_path / "runs"

    found = doctor.checks(f"sqlite:///{store}", storage)

    by_name = {check.name: check for check in found}
    assert [check for check in found if check.required and not check.ok] == []
    assert f"torch {version('torch')}" in by_name["packages"].detail
    assert "first task in" in by_name["Ray"].detail
    assert by_name["tracking"].detail == f"sqlite:///{store}: will be created"
    assert by_name["storage"].detail == f"{storage} will be created in {tmp_path}"
    assert list(tmp_path.iterdir()) == []
    assert doctor.render(found)
    assert "everything required is there" in capsys.readouterr().out


def test_a_failed_required_check_decides_the_verdict_and_shows_its_hint(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")
    fine = Check("fine", True, "as it should be", "unneeded advice")
    slow = Check("slow", False, "small", "pip install 'recloss[pipelines]'", required=False)
    broken = Check("broken", False, "gone", "bring it back")

    assert doctor.render([fine, slow])
    out = capsys.readouterr().out
    assert "warn  slow" in out
    assert "-> pip install 'recloss[pipelines]'" in out
    assert "unneeded advice" not in out

    assert not doctor.render([fine, slow, broken])
    out = capsys.readouterr().out
    assert "FAIL  broken" in out
    assert out.endswith("to mend: broken\n")


def test_a_check_that_breaks_is_a_failed_check(monkeypatch, tmp_path):
    def broken(*_):
        raise RuntimeError("no such luck")

    ready = Check("ready", True, "")
    names = [
        name for name, member in vars(doctor).items() if getattr(member, "__annotations__", {}).get("return") is Check
    ]
    for name in set(names) - {"_guarded"}:
        monkeypatch.setattr(doctor, name, lambda *_, **__: ready)
    monkeypatch.setattr(doctor, "disk", broken)

    failed = [check for check in doctor.checks("sqlite://", tmp_path) if not check.ok]

    assert [(check.name, check.detail) for check in failed] == [("disk", "RuntimeError: no such luck")]


def test_packages_missing_and_out_of_range(monkeypatch):
    real = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: {"ray": "2.9.0", "click": None}.get(name, real(name)))

    check = doctor.packages()

    assert not check.ok
    assert "ray 2.9.0" in check.detail
    assert "click missing" in check.detail
    assert check.hint == "pip install 'ray[data,train,tune]<2.61,>=2.60' 'click>=8.2'"


def test_git_commit_of_a_checkout(tmp_path, monkeypatch):
    (tmp_path / "recloss").mkdir()
    monkeypatch.setattr(doctor.recloss, "__file__", str(tmp_path / "recloss" / "__init__.py"))
    assert doctor.checkout().detail.endswith(f"{tmp_path}, not a git checkout")

    def git(*arguments):
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
        return subprocess.run(
            ["git", "-C", tmp_path, *identity, *arguments], check=True, capture_output=True, text=True
        )

    git("init")
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "-m", "first")
    commit = git("rev-parse", "--short=12", "HEAD").stdout.strip()
    assert doctor.checkout().detail.endswith(f"git {commit}")
    (tmp_path / "file").write_text("two")
    assert doctor.checkout().detail.endswith(f"git {commit}-dirty")


class TestClusterFile:
    @pytest.fixture
    def file(self, tmp_path, monkeypatch):
        monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
        (tmp_path / "ray").mkdir()
        return tmp_path / "ray" / "ray_current_cluster"

    def test_is_where_ray_keeps_it(self, file):
        from ray._common.utils import get_ray_address_file

        assert get_ray_address_file(None) == str(file)

    def test_none(self, file):
        assert doctor.cluster_file().ok

    def test_stale(self, file, closed_port):
        file.write_text(f"127.0.0.1:{closed_port}")
        check = doctor.cluster_file()
        assert not check.ok
        assert not check.required
        assert f"127.0.0.1:{closed_port}" in check.detail
        assert str(file) in check.hint

    def test_unreadable_address(self, file):
        file.write_text("")
        assert not doctor.cluster_file().ok

    def test_alive(self, file, listening):
        file.write_text(f"127.0.0.1:{listening}")
        assert doctor.cluster_file().ok


class TestTracking:
    def test_a_store_that_is_there_answers(self, tmp_path):
        uri = f"sqlite:///{tmp_path}/mlflow.db"
        MlflowClient(uri).create_experiment("sweep", artifact_location=str(tmp_path))
        check = doctor.tracking(uri)
        assert check.ok
        assert check.detail == f"{uri}: answers"

    def test_a_database_of_something_else_is_left_alone(self, tmp_path):
        with sqlite3.connect(tmp_path / "other.db") as database:
            database.execute("create table mine (x)")
        check = doctor.tracking(f"sqlite:///{tmp_path}/other.db")
        assert check.ok
        assert check.detail.endswith("will be created")
        assert database.execute("select name from sqlite_master").fetchall() == [("mine",)]

    def test_a_store_that_cannot_be_made(self, tmp_path):
        (tmp_path / "file").touch()
        check = doctor.tracking(f"sqlite:///{tmp_path}/file/mlflow.db")
        assert not check.ok
        assert "no file can be made" in check.detail

    def test_an_unreachable_server_fails_without_showing_the_password(self, closed_port):
        check = doctor.tracking(f"http://ann:hunter2@127.0.0.1:{closed_port}")
        assert not check.ok
        assert check.detail.startswith(f"http://***@127.0.0.1:{closed_port}: ")
        assert "refused" in check.detail
        assert "hunter2" not in str(check)

    def test_a_server_that_does_not_answer_in_time_is_given_up(self, listening, monkeypatch):
        started = []

        class Recorded(subprocess.Popen):
            def __init__(self, *args, **kwargs):
                super().__init__(*args, **kwargs)
                started.append(self)

        monkeypatch.setattr(doctor.subprocess, "Popen", Recorded)
        check = doctor.tracking(f"http://127.0.0.1:{listening}", seconds=1)
        assert not check.ok
        assert check.detail.endswith("no answer within 1 s")
        assert [process.returncode for process in started] == [-signal.SIGKILL]


def test_a_child_that_dies_is_a_failure(monkeypatch):
    monkeypatch.setattr(doctor.sys, "executable", "/bin/false")
    assert not doctor.ray_starts().ok


class TestStorage:
    def test_writable_and_nothing_left_behind(self, tmp_path):
        check = doctor.writable(tmp_path)
        assert check.ok
        assert check.detail == f"{tmp_path} is writable"
        assert list(tmp_path.iterdir()) == []

    def test_a_file_is_no_storage(self, tmp_path):
        (tmp_path / "file").touch()
        check = doctor.writable(tmp_path / "file")
        assert not check.ok
        assert "Not a directory" in check.detail

    @pytest.mark.skipif(sys.platform != "linux", reason="needs /proc, where not even root makes files")
    def test_a_place_nobody_may_write_to(self):
        check = doctor.writable(Path("/proc/recloss"))
        assert not check.ok
        assert check.hint

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
    def test_a_read_only_folder(self, tmp_path):
        tmp_path.chmod(0o500)
        assert "Permission denied" in doctor.writable(tmp_path / "runs").detail

    def test_disk(self, tmp_path):
        assert doctor.disk(tmp_path / "runs", least=1).ok
        check = doctor.disk(tmp_path / "runs", least=2**50)
        assert not check.ok
        assert check.hint == "checkpoints and Ray's files need at least 1.04858e+06 GiB"


def test_shared_memory_is_never_required(tmp_path):
    small = doctor.shared_memory(tmp_path, least=2**70)
    assert not small.ok
    assert not small.required
    assert doctor.shared_memory(tmp_path / "none").ok


def test_folder_variables(tmp_path, monkeypatch):
    monkeypatch.delenv("RECLOSS_DATA", raising=False)
    assert doctor.folder_variable("RECLOSS_DATA", must_exist=True).detail == "not set"
    monkeypatch.setenv("RECLOSS_DATA", str(tmp_path / "new"))
    assert not doctor.folder_variable("RECLOSS_DATA", must_exist=True).ok
    assert doctor.folder_variable("RECLOSS_DATA", must_exist=False).ok
    (tmp_path / "new").touch()
    assert not doctor.folder_variable("RECLOSS_DATA", must_exist=False).ok
