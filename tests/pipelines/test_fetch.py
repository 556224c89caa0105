"""Fetching public data sets, from a server on this machine that misbehaves on request."""

import io
import json
import os
import subprocess
import sys
import threading
import time
import zipfile
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from pipelines.public import download, fetch, named, prepare_command, public_datasets, readable
from pipelines.settings import DataSettings, PrepareSettings, PublicDataset
from pipelines.sweep.data import prepare_data
from recloss.errors import InputError

CONTENT = b"196\t242\t3\t881250949\n186\t302\t3\t891717742\n" * 20_000
HEADER = b"user_id:token\titem_id:token\trating:float\ttimestamp:float\n"
INTER = "recbole/dataset_example/ml-100k/ml-100k.inter"
DIGEST = sha256(CONTENT).hexdigest()


def archive(**members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return buffer.getvalue()


class Server(ThreadingHTTPServer):
    """Serves CONTENT at any address; the path says what goes wrong, ``asked`` what came in."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked = []
        self.changed = False

    def handle_error(self, *_):
        """A client that went away is no news."""

    def url(self, path):
        return f"http://127.0.0.1:{self.server_address[1]}/{path}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        kind = self.path.strip("/").split("/")[0]
        wanted = self.headers.get("Range")
        self.server.asked.append((self.path, wanted))
        first_time = len([path for path, _ in self.server.asked if path == self.path]) == 1
        content = archive(**{"in/u.data": CONTENT}) if kind == "zip" else CONTENT
        if kind == "moved":
            self.send_response(302)
            self.send_header("Location", "/plain/u.data")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if kind == "missing":
            self.send_error(404, "Not Found")
            return
        etag = '"one"'
        if kind == "replaced" and not first_time:
            etag, content = '"two"', CONTENT[::-1]
        begin = 0
        if wanted and self.headers.get("If-Range") == etag and kind != "forgetful":
            begin = int(wanted.removeprefix("bytes=").rstrip("-"))
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        if kind != "anonymous":
            self.send_header("ETag", etag)
        self.send_header("Content-Length", str(len(content) - begin))
        self.end_headers()
        body = content[begin:]
        if kind in ("cut", "replaced", "forgetful", "anonymous") and first_time:
            body = body[: len(body) // 2]
        if kind == "always-cut":
            body = body[:1000]
        if kind == "stalling" and first_time:
            self.wfile.write(body[:1000])
            self.wfile.flush()
            time.sleep(1.5)
            return
        self.wfile.write(body)
        self.close_connection = len(body) + begin < len(content)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download, "PAUSE", 0.01)
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def entry(monkeypatch):
    """Put a data set into the table; pip never reaches the network."""
    monkeypatch.setattr(subprocess, "run", lambda command, **_: pip_fails(command))
    known = dict(public_datasets())
    monkeypatch.setattr("pipelines.public.registry.public_datasets", lambda: known)

    def put(name="toy", **changes):
        about = {"title": "Toy", "homepage": "https://x", "licence": "free", "cite": "Me", "format": "movielens"}
        known[name] = PublicDataset.model_validate(about | {"file": "u.data"} | changes)

    return put


def pip_fails(command):
    return subprocess.CompletedProcess(command, 1, "", "WARNING: x\nERROR: No matching distribution found\n")


def pip_that_saves(wheel):
    def run(command, **_):
        assert command[:4] == [sys.executable, "-m", "pip", "download"]
        assert command[-1] == "recbole==1.2.1"
        Path(command[command.index("--dest") + 1], "recbole-1.2.1-py3-none-any.whl").write_bytes(wheel)
        return subprocess.CompletedProcess(command, 0, "", "")

    return run


def files(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def refused(name, folder) -> str:
    with pytest.raises(InputError) as raised:
        fetch(name, folder=folder)
    assert "\n" not in str(raised.value)
    return str(raised.value)


class TestDownload:
    @pytest.mark.parametrize("path", ["plain/u.data", "moved/u.data"])
    def test_plain_and_redirected(self, server, entry, tmp_path, path):
        entry(sha256=DIGEST, sources=[{"url": server.url(path)}])
        said = []
        file = fetch("toy", folder=tmp_path, on_step=said.append)
        assert file == tmp_path / "toy" / "u.data"
        assert file.read_bytes() == CONTENT
        assert files(tmp_path) == ["u.data"]
        assert said[0] == "Toy: free (https://x)"
        assert said[-1] == f"toy: {len(CONTENT):,} bytes in {tmp_path / 'toy'}"

    def test_a_cut_connection_is_taken_up_where_it_broke(self, server, entry, tmp_path):
        entry(sha256=DIGEST, sources=[{"url": server.url("cut/u.data")}])
        said = []
        assert fetch("toy", folder=tmp_path, on_step=said.append).read_bytes() == CONTENT
        assert [wanted for _, wanted in server.asked] == [None, f"bytes={len(CONTENT) // 2}-"]
        assert any(f"after {len(CONTENT) // 2:,} bytes, trying again" in line for line in said)

    @pytest.mark.parametrize("kind", ["forgetful", "anonymous"])
    def test_a_server_that_cannot_continue_is_asked_for_all_of_it(self, server, entry, tmp_path, kind):
        entry(sha256=DIGEST, sources=[{"url": server.url(f"{kind}/u.data")}])
        assert fetch("toy", folder=tmp_path).read_bytes() == CONTENT
        assert len(server.asked) == 2

    def test_a_file_replaced_between_two_attempts_is_never_mixed(self, server, entry, tmp_path):
        entry(sources=[{"url": server.url("replaced/u.data")}])
        assert fetch("toy", folder=tmp_path).read_bytes() == CONTENT[::-1]

    def test_a_connection_that_stalls_counts_as_broken(self, server, entry, tmp_path, monkeypatch):
        monkeypatch.setattr(download, "TIMEOUT", 0.3)
        entry(sha256=DIGEST, sources=[{"url": server.url("stalling/u.data")}])
        assert fetch("toy", folder=tmp_path).read_bytes() == CONTENT
        assert len(server.asked) == 2

    def test_giving_up_leaves_nothing(self, server, entry, tmp_path):
        entry(sha256=DIGEST, bytes=len(CONTENT), sources=[{"url": server.url("always-cut/u.data")}])
        message = refused("toy", tmp_path)
        assert len(server.asked) == download.ATTEMPTS
        assert f"the connection ended after {1000 * download.ATTEMPTS:,} of {len(CONTENT):,} bytes" in message
        assert files(tmp_path) == []

    def test_the_next_source_is_tried(self, server, entry, tmp_path):
        addresses = [server.url("missing/a"), "http://127.0.0.1:9/closed", server.url("plain/b")]
        entry(sha256=DIGEST, sources=[{"url": address} for address in addresses])
        assert fetch("toy", folder=tmp_path).read_bytes() == CONTENT

    def test_not_found_is_not_tried_again(self, server, entry, tmp_path):
        entry(sources=[{"url": server.url("missing/u.data")}])
        assert "HTTP Error 404: Not Found" in refused("toy", tmp_path)
        assert len(server.asked) == 1

    def test_another_size_or_content_is_refused(self, server, entry, tmp_path):
        entry(sources=[{"url": server.url("plain/u.data"), "bytes": 7}])
        assert f"the file has {len(CONTENT):,} bytes, expected 7" in refused("toy", tmp_path)
        entry(sha256="0" * 64, sources=[{"url": server.url("plain/u.data")}])
        assert f"the SHA-256 is {DIGEST}, expected {'0' * 64}" in refused("toy", tmp_path)
        entry(sources=[{"url": server.url("plain/u.data"), "sha256": "0" * 64}])
        assert f"the SHA-256 is {DIGEST}, expected {'0' * 64}" in refused("toy", tmp_path)
        assert files(tmp_path) == []

    def test_more_than_the_limit_is_refused(self, server, entry, tmp_path, monkeypatch):
        monkeypatch.setattr(download, "LIMIT_BYTES", 1000)
        entry(sources=[{"url": server.url("plain/u.data")}])
        assert f"the file has {len(CONTENT):,} bytes, more than the limit of 1,000" in refused("toy", tmp_path)
        monkeypatch.setattr("pipelines.public.fetching.LIMIT_BYTES", 1000)
        monkeypatch.setattr(download, "LIMIT_BYTES", 10**6)
        entry(sources=[{"url": server.url("zip/in.zip"), "member": "in/u.data"}])
        assert f"in/u.data has {len(CONTENT):,} bytes, more than the limit of 1,000" in refused("toy", tmp_path)
        assert files(tmp_path) == []

    def test_progress_is_told(self, server, entry, tmp_path, monkeypatch):
        monkeypatch.setattr(download, "SAY_EVERY", 0)
        monkeypatch.setattr(download, "CHUNK", 500_000)
        entry(sources=[{"url": server.url("plain/u.data")}])
        said = []
        fetch("toy", folder=tmp_path, on_step=said.append)
        assert "download: 1 of 1 MB" in said


class TestArchive:
    def test_the_member_of_a_zip_is_unpacked(self, server, entry, tmp_path):
        zipped = archive(**{"in/u.data": CONTENT})
        entry(sources=[{"url": server.url("zip/in.zip"), "member": "in/u.data", "bytes": len(zipped)}])
        assert fetch("toy", folder=tmp_path).read_bytes() == CONTENT
        assert files(tmp_path) == ["u.data", "u.data.sha256"]

    def test_no_zip_and_no_such_member(self, server, entry, tmp_path):
        entry(sources=[{"url": server.url("plain/in.zip"), "member": "in/u.data"}])
        assert "File is not a zip file" in refused("toy", tmp_path)
        entry(sources=[{"url": server.url("zip/in.zip"), "member": "in/v.data"}])
        assert "in/v.data" in refused("toy", tmp_path)
        assert files(tmp_path) == []


class TestByHand:
    """No source answers: what the user puts into the folder counts."""

    URL = "http://127.0.0.1:9/there/in.zip"

    def test_what_to_do_is_said_exactly(self, entry, tmp_path):
        entry(sources=[{"url": self.URL, "member": "in/u.data"}])
        message = refused("toy", tmp_path)
        assert message.startswith(f"toy cannot be fetched ({self.URL}: ")
        place = tmp_path / "toy"
        assert message.endswith(f"; download {self.URL} and put its in/u.data (or in.zip as it is) into {place}")
        entry(by_hand="fill in the form")
        assert refused("toy", tmp_path) == f"toy cannot be fetched by a program; fill in the form into {place}"

    def test_the_archive_as_it_is(self, entry, tmp_path):
        (tmp_path / "toy").mkdir()
        zipped = archive(**{"in/u.data": CONTENT})
        (tmp_path / "toy" / "in.zip").write_bytes(zipped)
        entry(sources=[{"url": self.URL, "member": "in/u.data", "sha256": sha256(zipped).hexdigest()}])
        assert fetch("toy", folder=tmp_path).read_bytes() == CONTENT
        assert files(tmp_path) == ["in.zip", "u.data", "u.data.sha256"]
        (tmp_path / "toy" / "u.data").unlink()
        entry(sources=[{"url": self.URL, "member": "in/u.data", "sha256": "0" * 64}])
        assert f"in.zip: the SHA-256 is {sha256(zipped).hexdigest()}, expected {'0' * 64}" in refused("toy", tmp_path)

    def test_a_damaged_archive(self, entry, tmp_path):
        (tmp_path / "toy").mkdir()
        zipped = bytearray(archive(**{"in/u.data": os.urandom(5000)}))
        zipped[1000] ^= 255
        (tmp_path / "toy" / "in.zip").write_bytes(zipped)
        entry(sources=[{"url": self.URL, "member": "in/u.data"}])
        assert "in.zip: " in refused("toy", tmp_path)
        assert files(tmp_path) == ["in.zip"]

    def test_a_file_of_known_checksum(self, entry, tmp_path):
        (tmp_path / "toy").mkdir()
        (tmp_path / "toy" / "u.data").write_bytes(CONTENT)
        entry(sha256=DIGEST, by_hand="x")
        said = []
        assert fetch("toy", folder=tmp_path, on_step=said.append).read_bytes() == CONTENT
        assert said[1:] == [f"toy: already in {tmp_path / 'toy'}"]
        (tmp_path / "toy" / "u.data").write_bytes(CONTENT + b"\n")
        entry(sha256=DIGEST, sources=[{"url": self.URL}])
        found = sha256(CONTENT + b"\n").hexdigest()
        assert f"u.data as it is there: the SHA-256 is {found}, expected {DIGEST};" in refused("toy", tmp_path)
        assert files(tmp_path) == ["u.data"]

    def test_a_file_of_unknown_checksum_is_recorded_and_later_compared(self, entry, tmp_path):
        (tmp_path / "toy").mkdir()
        (tmp_path / "toy" / "u.data").write_bytes(CONTENT)
        entry(sources=[{"url": self.URL}])
        said = []
        fetch("toy", folder=tmp_path, on_step=said.append)
        assert said[-1] == f"toy: SHA-256 {DIGEST} (none is published; recorded in u.data.sha256)"
        assert (tmp_path / "toy" / "u.data.sha256").read_text() == f"{DIGEST}  u.data\n"
        (tmp_path / "toy" / "u.data").write_bytes(CONTENT[1:])
        assert f"expected {DIGEST} as u.data.sha256 says" in refused("toy", tmp_path)


class TestMovieLens100K:
    """Out of a public package: what the demo uses where GroupLens cannot be reached."""

    @pytest.fixture(autouse=True)
    def small(self, server, entry):
        raw = named("ml-100k").model_dump()
        wheel, _ = raw["sources"]
        sources = [wheel, {"url": server.url("zip/ml-100k.zip"), "member": "in/u.data"}]
        entry("ml-100k", **raw | {"bytes": len(CONTENT), "sha256": DIGEST, "sources": sources})

    def test_from_the_wheel(self, tmp_path, monkeypatch):
        monkeypatch.setattr(subprocess, "run", pip_that_saves(archive(**{INTER: HEADER + CONTENT})))
        said = []
        file = fetch("ml-100k", folder=tmp_path, on_step=said.append)
        assert file.read_bytes() == CONTENT
        assert files(tmp_path) == ["u.data"]
        assert said[0].startswith("MovieLens 100K: for research; cite Harper and Konstan (TiiS 2015); no redistr")
        end = f"ml-100k: {len(CONTENT):,} bytes in {file.parent}"
        assert said[1:] == ["ml-100k: trying pip download recbole==1.2.1", end]

    @pytest.mark.parametrize("wheel", [archive(**{INTER: HEADER + b"1\t1\t1\t1\n"}), archive(other=b""), b"not a zip"])
    def test_the_address_when_the_wheel_is_not_what_it_was(self, tmp_path, monkeypatch, wheel, server):
        monkeypatch.setattr(subprocess, "run", pip_that_saves(wheel))
        assert fetch("ml-100k", folder=tmp_path).read_bytes() == CONTENT
        assert server.asked == [("/zip/ml-100k.zip", None)]

    def test_a_damaged_file_is_replaced(self, tmp_path, monkeypatch):
        (tmp_path / "ml-100k").mkdir()
        target = tmp_path / "ml-100k" / "u.data"
        target.write_bytes(CONTENT[:-5])
        said = []
        fetch("ml-100k", folder=tmp_path, on_step=said.append)
        assert said[1] == f"ml-100k: {target} is damaged, fetching it again"
        assert target.read_bytes() == CONTENT


def test_a_sweep_reads_what_it_fetches_without_being_told_how(tmp_path, monkeypatch):
    monkeypatch.setenv("RECLOSS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "cache" / "yelp"
    folder.mkdir(parents=True)
    rows = [
        {
            "review_id": "x",
            "user_id": f"u{user}",
            "business_id": f"b{item}",
            "stars": 4.0,
            "date": "2018-07-07 22:09:11",
        }
        for user in range(9)
        for item in range(user, user + 9)
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "yelp_academic_dataset_review.json").write_text(text)
    data = DataSettings(name="yelp", path=tmp_path / "out", fetch="yelp", prepare={"split": "leave_last"})
    made = prepare_data(data, print)
    assert (made.n_users, made.n_items, len(made.test[0])) == (9, 17, 9)
    assert made.manifest["settings"]["columns"]["timestamp"] == "date"
    assert prepare_data(data, print).fingerprint == made.fingerprint, "found again, not refused as other settings"


def test_settings_that_name_a_format_keep_it():
    asked = PrepareSettings(format="pairs", columns={"user": "who", "item": "what"})
    assert readable("yelp", asked) == asked
    assert readable("ml-100k", PrepareSettings()).content() == PrepareSettings().content()


def test_interruption_while_writing_leaves_nothing(server, entry, tmp_path, monkeypatch):
    entry(sources=[{"url": server.url("plain/u.data")}])

    def interrupt(self, target):
        assert self.read_bytes() == CONTENT
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        fetch("toy", folder=tmp_path)
    assert files(tmp_path) == []


def test_what_a_killed_run_left_is_removed(server, entry, tmp_path):
    left = tmp_path / "toy" / ".u.data.partial-12345678"
    left.mkdir(parents=True)
    (left / "download").write_bytes(CONTENT[:100])
    entry(sha256=DIGEST, sources=[{"url": server.url("plain/u.data")}])
    fetch("toy", folder=tmp_path)
    assert files(tmp_path) == ["u.data"]


def test_a_cache_that_cannot_be_written(server, entry, tmp_path):
    (tmp_path / "file").write_text("")
    entry(sources=[{"url": server.url("plain/u.data")}])
    message = refused("toy", tmp_path / "file")
    assert message.endswith("u.data: cannot be written (Not a directory); set RECLOSS_CACHE to another folder")


def test_a_full_disk_is_named_before_anything_is_written(server, entry, tmp_path, monkeypatch):
    entry(sources=[{"url": server.url("plain/u.data")}])
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10})())
    assert f"the file has {len(CONTENT):,} bytes, 10 are free on the disk" in refused("toy", tmp_path)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_disk_that_fills_up_in_the_middle_is_named(server, tmp_path):
    full = tmp_path / "u.data"
    full.symlink_to("/dev/full")
    with pytest.raises(InputError, match=r"u\.data: cannot be written \(No space left on device\); set RECLOSS_CACHE"):
        download.download(server.url("plain/u.data"), full, size=None, say=print)


def test_the_cache_folder_comes_from_the_environment(server, entry, tmp_path, monkeypatch):
    entry(sources=[{"url": server.url("plain/u.data")}])
    monkeypatch.setenv("RECLOSS_CACHE", str(tmp_path / "there"))
    assert fetch("toy") == tmp_path / "there" / "toy" / "u.data"
    monkeypatch.delenv("RECLOSS_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert fetch("toy") == tmp_path / "home" / ".cache" / "recloss" / "toy" / "u.data"


def test_unknown_name(tmp_path):
    assert refused("ml-100", tmp_path).startswith(
        "unknown public data set 'ml-100'; did you mean 'ml-100k'? (accepted:"
    )


@pytest.mark.parametrize("name", public_datasets())
def test_every_entry_is_complete(name):
    dataset = named(name)
    for source in dataset.sources:
        assert source.url is None or source.url.startswith("https://")
    known = [dataset.sha256, *(source.sha256 for source in dataset.sources)]
    assert any(known) == (dataset.checked != "address"), "a checksum and how it was checked belong together"
    addresses = [source.url for source in dataset.sources if source.url]
    for address in addresses:
        if dataset.sources[0].member is None:
            assert address.endswith(f"/{dataset.file}")
    assert "None" not in prepare_command(name, Path(dataset.file))


def test_addresses_are_not_repeated():
    addresses = [source.url for dataset in public_datasets().values() for source in dataset.sources]
    assert len(set(addresses)) == len(addresses)


@pytest.mark.parametrize("name", ["ml-100k", "citeulike-a"])
def test_checksum_and_size_are_those_of_the_file(name, recloss_data):
    dataset = named(name)
    content = (recloss_data / name / dataset.file).read_bytes()
    assert (dataset.sha256, dataset.bytes) == (sha256(content).hexdigest(), len(content))


@pytest.mark.slow
def test_real_pip(tmp_path, monkeypatch):
    monkeypatch.setattr("urllib.request.urlopen", None)
    file = fetch("ml-100k", folder=tmp_path)
    assert os.listdir(file.parent) == ["u.data"]
    assert file.stat().st_size == 1_979_173
