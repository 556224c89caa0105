import dataclasses
import io
import os
import subprocess
import sys
import urllib.error
import urllib.request
import zipfile
from hashlib import sha256
from pathlib import Path

import pytest

from pipelines import fetch as module
from pipelines.fetch import PUBLIC, fetch, table
from recloss.errors import InputError

CONTENT = b"196\t242\t3\t881250949\n186\t302\t3\t891717742\n"
HEADER = b"user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
INTER = "recbole/dataset_example/ml-100k/ml-100k.inter"


@pytest.fixture(autouse=True)
def small_dataset(monkeypatch):
    """ML-100K with other content, and no way out to the network."""
    dataset = dataclasses.replace(PUBLIC["ml-100k"], bytes=len(CONTENT), sha256=sha256(CONTENT).hexdigest())
    monkeypatch.setitem(PUBLIC, "ml-100k", dataset)

    def offline(*_, **__):
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(urllib.request, "urlopen", offline)
    monkeypatch.setattr(subprocess, "run", lambda command, **_: pip_fails(command))


def pip_fails(command):
    return subprocess.CompletedProcess(command, 1, "", "WARNING: x\nERROR: No matching distribution found\n")


def archive(**members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return buffer.getvalue()


def pip_that_saves(wheel):
    def run(command, **_):
        assert command[:4] == [sys.executable, "-m", "pip", "download"]
        assert command[-1] == "recbole==1.2.1"
        Path(command[command.index("--dest") + 1], "recbole-1.2.1-py3-none-any.whl").write_bytes(wheel)
        return subprocess.CompletedProcess(command, 0, "", "")

    return run


def everything_below(folder):
    return list(folder.rglob("*"))


def test_from_the_wheel(tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, "run", pip_that_saves(archive(**{INTER: HEADER + CONTENT})))
    said = []
    folder = fetch("ml-100k", folder=tmp_path, on_step=said.append)
    assert folder == tmp_path / "ml-100k"
    assert (folder / "u.data").read_bytes() == CONTENT
    assert everything_below(tmp_path) == [folder, folder / "u.data"]
    assert said[0].startswith("MovieLens 100K: for research; cite Harper and Konstan (TiiS 2015); no redistribution")
    assert said[1:] == ["ml-100k: trying pip download recbole==1.2.1", f"ml-100k: {len(CONTENT)} bytes in {folder}"]


@pytest.mark.parametrize("wheel", [archive(**{INTER: HEADER + b"1\t1\t1\t1\n"}), archive(other=b""), b"not a zip"])
def test_from_grouplens_when_the_wheel_is_not_what_it_was(tmp_path, monkeypatch, wheel):
    monkeypatch.setattr(subprocess, "run", pip_that_saves(wheel))
    zipped = archive(**{"ml-100k/u.data": CONTENT})
    monkeypatch.setattr(urllib.request, "urlopen", lambda url, timeout: io.BytesIO(zipped))
    assert (fetch("ml-100k", folder=tmp_path) / "u.data").read_bytes() == CONTENT


def test_cache_needs_no_source(tmp_path):
    (tmp_path / "ml-100k").mkdir()
    (tmp_path / "ml-100k" / "u.data").write_bytes(CONTENT)
    said = []
    assert fetch("ml-100k", folder=tmp_path, on_step=said.append) == tmp_path / "ml-100k"
    assert said[-1] == f"ml-100k: already in {tmp_path / 'ml-100k'}"


def test_damaged_cache_is_reported_and_replaced(tmp_path, monkeypatch):
    (tmp_path / "ml-100k").mkdir()
    target = tmp_path / "ml-100k" / "u.data"
    target.write_bytes(CONTENT[:-5])
    monkeypatch.setattr(subprocess, "run", pip_that_saves(archive(**{INTER: HEADER + CONTENT})))
    said = []
    fetch("ml-100k", folder=tmp_path, on_step=said.append)
    assert said[1] == f"ml-100k: {target} is damaged, fetching it again"
    assert target.read_bytes() == CONTENT


def test_offline_names_every_source_and_what_to_do_by_hand(tmp_path):
    with pytest.raises(InputError) as raised:
        fetch("ml-100k", folder=tmp_path)
    assert str(raised.value) == (
        "ml-100k cannot be fetched (pip download recbole==1.2.1: ERROR: No matching distribution found; "
        "https://files.grouplens.org/datasets/movielens/ml-100k.zip: <urlopen error Name or service not known>); "
        "download https://files.grouplens.org/datasets/movielens/ml-100k.zip and put its ml-100k/u.data "
        f"into {tmp_path / 'ml-100k'}"
    )
    assert everything_below(tmp_path) == []


def test_tampered_content_is_refused_and_leaves_nothing(tmp_path, monkeypatch):
    other = archive(**{"ml-100k/u.data": CONTENT + b"\n"})
    monkeypatch.setattr(urllib.request, "urlopen", lambda url, timeout: io.BytesIO(other))
    expected, found = sha256(CONTENT).hexdigest(), sha256(CONTENT + b"\n").hexdigest()
    with pytest.raises(InputError, match=rf"ml-100k\.zip: the SHA-256 is {found}, expected {expected}\); download"):
        fetch("ml-100k", folder=tmp_path)
    assert everything_below(tmp_path) == []


def test_connection_that_breaks_off_leaves_nothing(tmp_path, monkeypatch):
    whole = archive(**{"ml-100k/u.data": CONTENT})

    class Broken(io.BytesIO):
        def read(self, *_):
            raise ConnectionResetError("Connection reset by peer")

    monkeypatch.setattr(urllib.request, "urlopen", lambda url, timeout: Broken(whole))
    with pytest.raises(InputError, match=r"ml-100k\.zip: Connection reset by peer\); download"):
        fetch("ml-100k", folder=tmp_path)
    monkeypatch.setattr(urllib.request, "urlopen", lambda url, timeout: io.BytesIO(whole[:-30]))
    with pytest.raises(InputError, match=r"ml-100k\.zip: File is not a zip file\); download"):
        fetch("ml-100k", folder=tmp_path)
    assert everything_below(tmp_path) == []


def test_interruption_while_writing_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, "run", pip_that_saves(archive(**{INTER: HEADER + CONTENT})))

    def interrupt(self, target):
        assert self.read_bytes() == CONTENT
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fetch("ml-100k", folder=tmp_path)
    assert [path for path in everything_below(tmp_path) if path.is_file()] == []


def test_cache_that_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, "run", pip_that_saves(archive(**{INTER: HEADER + CONTENT})))
    (tmp_path / "file").write_text("")
    with pytest.raises(
        InputError, match=r"u\.data: cannot be written \(Not a directory\); set RECLOSS_CACHE to another"
    ):
        fetch("ml-100k", folder=tmp_path / "file")


def test_cache_folder_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.setattr(subprocess, "run", pip_that_saves(archive(**{INTER: HEADER + CONTENT})))
    monkeypatch.setenv("RECLOSS_CACHE", str(tmp_path / "there"))
    assert fetch("ml-100k") == tmp_path / "there" / "ml-100k"
    monkeypatch.delenv("RECLOSS_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert fetch("ml-100k") == tmp_path / "home" / ".cache" / "recloss" / "ml-100k"


def test_unknown_name(tmp_path):
    with pytest.raises(InputError, match=r"unknown public data set 'ml-100'; did you mean 'ml-100k'\? \(accepted: ml-"):
        fetch("ml-100", folder=tmp_path)


def test_table():
    assert [dataset.name for dataset in table()] == sorted(PUBLIC)
    assert all(dataset.name == name and dataset.licence and dataset.homepage for name, dataset in PUBLIC.items())


def test_checksum_is_that_of_the_published_file(recloss_data, monkeypatch):
    monkeypatch.undo()
    published = (recloss_data / "ml-100k" / "u.data").read_bytes()
    assert PUBLIC["ml-100k"].sha256 == sha256(published).hexdigest()
    assert PUBLIC["ml-100k"].bytes == len(published)


@pytest.mark.slow
def test_real_pip(tmp_path, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(module.urllib.request, "urlopen", None)
    folder = fetch("ml-100k", folder=tmp_path)
    assert os.listdir(folder) == ["u.data"]
    assert (folder / "u.data").stat().st_size == 1_979_173
