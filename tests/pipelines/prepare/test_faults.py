"""What goes wrong outside of the log's content: one clear line, nothing half-written, and a rerun completes."""

import gzip
import os
import resource
import signal
import subprocess
import sys

import numpy as np
import psutil
import pytest

from pipelines.commands import run
from pipelines.prepare import load, prepare
from pipelines.prepare.verify import verify
from pipelines.settings import PrepareSettings
from recloss.errors import InputError

HEADER = "user,item\n"


def pairs(n=60_000, users=2000, items=500):
    draw = np.random.default_rng(0)
    return HEADER + "".join(
        f"{u},{i}\n" for u, i in zip(draw.integers(0, users, n), draw.integers(0, items, n), strict=True)
    )


@pytest.fixture
def log(write):
    return write("log.csv", pairs())


def command(raw, out, *options):
    return [sys.executable, "-m", "pipelines.cli", "prepare", "--raw", str(raw), "--out", str(out), *options]


def left(folder):
    return sorted(path.name for path in folder.iterdir())


# --- where it is written


@pytest.fixture
def mounted(tmp_path):
    """A function that mounts a file system in memory of a size, with options, as a folder."""
    places = []

    def mount(options):
        place = tmp_path / f"mounted-{len(places)}"
        place.mkdir()
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"a file system cannot be mounted here: {done.stderr.strip()}")
        places.append(place)
        return place

    yield mount
    for place in places:
        subprocess.run(["umount", place], check=True)


def test_a_disk_that_becomes_full(log, mounted, capsys):
    place = mounted("size=100k")
    assert run(["prepare", "--raw", str(log), "--out", str(place / "out")]) == 2
    assert (
        capsys.readouterr().err
        == f"recloss: {place / 'out'}: cannot be written (No space left on device); nothing was kept\n"
    )
    assert left(place) == []


def test_a_limit_on_the_size_of_files(log, tmp_path):
    done = subprocess.run(
        command(log, tmp_path / "out"),
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000)),
    )
    assert done.returncode == 2
    assert done.stderr == f"recloss: {tmp_path / 'out'}: cannot be written (File too large); nothing was kept\n"
    assert left(tmp_path) == ["log.csv"]


def test_a_read_only_target(log, mounted, capsys):
    place = mounted("ro")
    assert run(["prepare", "--raw", str(log), "--out", str(place / "out")]) == 2
    assert capsys.readouterr().err == f"recloss: {place / 'out'}: cannot be written (Read-only file system)\n"


# --- the run is ended

KILLED = """
import os, signal, sys
from pipelines.prepare import folder
from pipelines.cli import main
write, written = folder.write, []
def dying(table, file):
    write(table, file)
    written.append(file)
    if len(written) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
folder.write = dying
main()
"""


def test_a_run_that_is_killed_while_it_writes(log, tmp_path):
    # two runs die, so that there is more than one thing to clean up
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", KILLED, *command(log, tmp_path / "out")[3:]], capture_output=True)
        assert done.returncode == -signal.SIGKILL, done.stderr
    litter = [path for path in tmp_path.iterdir() if path.name.startswith(".out.partial-")]
    assert len(litter) == 1, "the second run has removed what the first left"
    assert any(litter[0].rglob("*.parquet"))
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match=r"not a prepared dataset, it has no manifest\.json"):
        load(litter[0])
    prepare(log, tmp_path / "out", PrepareSettings())
    assert left(tmp_path) == ["log.csv", "out"]
    assert all(check.ok for check in verify(tmp_path / "out"))


SLOW = """
import sys, time
from pipelines.prepare import blocks
from pipelines.cli import main
distinct = blocks.distinct
def slow(block, **broadcast):
    print("in the middle", flush=True)
    time.sleep(1)
    return distinct(block, **broadcast)
blocks.distinct = slow
main()
"""


def test_ctrl_c_in_the_middle(log, tmp_path):
    arguments = [sys.executable, "-c", SLOW, *command(log, tmp_path / "out")[3:]]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while "in the middle" not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (130, "\nrecloss: interrupted\n")
    assert left(tmp_path) == ["log.csv"]


@pytest.mark.slow
def test_a_run_on_ray_that_is_killed_leaves_no_process_and_no_data(log, tmp_path):
    arguments = command(log, tmp_path / "out", "--engine", "ray")
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        while not (line := process.stdout.readline()).startswith("read"):
            assert line, "it ended"
        children = psutil.Process(process.pid).children(recursive=True)
        assert any("raylet" in child.name() for child in children)
        process.kill()
    _, alive = psutil.wait_procs(children, timeout=300)  # Ray's agents take more than a minute
    assert not alive
    assert not (tmp_path / "out").exists()
    prepare(log, tmp_path / "out", PrepareSettings())
    assert left(tmp_path) == ["log.csv", "out"]


# --- the log

CHANGES = {
    "grows": lambda path: path.write_text(pairs() + "1,2\n"),
    "is replaced by one of the same size": lambda path: path.write_text(pairs().replace("1", "2")),
    "disappears": lambda path: path.unlink(),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_log_that_changes_while_it_is_read(log, tmp_path, change):
    def meanwhile(message):
        if message.startswith("distinct"):
            change(log)

    with pytest.raises(InputError) as raised:
        prepare(log, tmp_path / "out", PrepareSettings(), on_step=meanwhile)
    assert str(raised.value) == "log.csv: changed while it was read; prepare it again when nothing writes to it"
    assert left(tmp_path) == (["log.csv"] if log.exists() else [])


def test_a_log_that_disappears_before_it_is_read(log, tmp_path, monkeypatch):
    from pipelines.prepare import engines

    usual = engines._parts
    monkeypatch.setattr(engines, "_parts", lambda sources: (usual(sources), log.unlink())[0])
    with pytest.raises(InputError) as raised:
        prepare(log, tmp_path / "out", PrepareSettings())
    assert str(raised.value) == "log.csv: cannot be read (No such file or directory)"
    assert left(tmp_path) == []


def cut_off(data):
    return gzip.compress(data.encode())[:-200]


FAULTS = {
    "empty": ("log.csv", "", "log.csv: the file is empty"),
    "header only": ("log.csv", HEADER, "log.csv: no interactions after the header line"),
    "truncated gzip": ("log.csv.gz", cut_off(pairs()), "log.csv.gz: is cut off"),
    "nothing left": (
        "log.csv",
        HEADER + "1,2\n1,3\n",
        "log.csv: nothing is left after the step k_core (k 3, passes 1); "
        "before it: 2 interactions of 1 users and 2 items",
    ),
}


@pytest.mark.parametrize("engine", ["local", "ray"])
@pytest.mark.parametrize("name", FAULTS)
def test_logs_that_give_nothing(request, write, tmp_path, capsys, name, engine):
    if engine == "ray":
        request.getfixturevalue("ray_local")
    file, content, message = FAULTS[name]
    raw = write(file, content)
    k = "3" if name == "nothing left" else "1"
    assert run(["prepare", "--raw", str(raw), "--out", str(tmp_path / "out"), "--engine", engine, "--k-core", k]) == 2
    error = capsys.readouterr().err
    assert error.replace(str(tmp_path) + os.sep, "") == f"recloss: {message}\n"
    assert left(tmp_path) == [file]


def test_one_user_only(write, tmp_path):
    raw = write("log.csv", HEADER + "".join(f"only,{item}\n" for item in range(10)))
    manifest = prepare(raw, tmp_path / "out", PrepareSettings())
    assert manifest["sizes"] == {"users": 1, "items": 10, "train": 7, "valid": 1, "test": 2}
    assert all(check.ok for check in verify(tmp_path / "out"))
