"""Public data sets: fetched from where they are published, checked and cached. None is part of recloss."""

import os
import subprocess
import sys
import tempfile
import urllib.request
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from http.client import HTTPException
from io import BytesIO
from pathlib import Path

from recloss.errors import InputError, choices

GROUPLENS = "https://files.grouplens.org/datasets/movielens/ml-100k.zip"
WHEEL = "recbole==1.2.1"

Content = Callable[[], bytes]


def _ml_100k_from_wheel() -> bytes:
    """The copy inside a public package, downloaded with the user's own pip; it has a header line more."""
    with tempfile.TemporaryDirectory() as folder:
        options = [
            "--no-deps",
            "--only-binary=:all:",
            "--disable-pip-version-check",
            "--retries=1",
            "--timeout=30",
        ]
        pip = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-input",
            *options,
            "--dest",
            folder,
            WHEEL,
        ]
        done = subprocess.run(pip, capture_output=True, text=True)
        if done.returncode:
            raise OSError((done.stderr.strip().splitlines() or ["pip failed without a message"])[-1])
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
            return wheel.read("recbole/dataset_example/ml-100k/ml-100k.inter").partition(b"\n")[2]


def _ml_100k_from_grouplens() -> bytes:
    with (
        urllib.request.urlopen(GROUPLENS, timeout=60) as response,
        zipfile.ZipFile(BytesIO(response.read())) as archive,
    ):
        return archive.read("ml-100k/u.data")


@dataclass(frozen=True)
class PublicDataset:
    """What is known of a public data set, and where its raw file comes from."""

    name: str
    title: str
    licence: str
    """The terms of use in a sentence; shown whenever the data set is asked for."""
    homepage: str
    file: str
    bytes: int
    sha256: str
    sources: tuple[tuple[str, Content], ...]
    """(name for messages, function that returns the content of ``file``), in the order they are tried."""
    by_hand: str
    """What to download from where if every source fails."""


PUBLIC = {
    "ml-100k": PublicDataset(
        name="ml-100k",
        title="MovieLens 100K",
        licence="for research; cite Harper and Konstan (TiiS 2015); no redistribution and no commercial use "
        "without permission of GroupLens, no claim of its endorsement",
        homepage="https://grouplens.org/datasets/movielens/100k/",
        file="u.data",
        bytes=1_979_173,
        sha256="06416e597f82b7342361e41163890c81036900f418ad91315590814211dca490",
        sources=((f"pip download {WHEEL}", _ml_100k_from_wheel), (GROUPLENS, _ml_100k_from_grouplens)),
        by_hand=f"download {GROUPLENS} and put its ml-100k/u.data",
    )
}
"""The data sets that ``fetch`` knows, by name."""


def fetch(name: str, *, folder: Path | None = None, on_step: Callable[[str], None] | None = None) -> Path:
    """Return the folder ``<folder>/<name>`` with the raw file, downloaded if it is not there or damaged.

    ``folder`` defaults to the environment variable RECLOSS_CACHE, then to ``~/.cache/recloss``. A file
    appears there only when its SHA-256 is right.

    Raises:
        InputError: unknown name; every source failed (each is named with its reason); the cache cannot be
            written.
    """
    if name not in PUBLIC:
        raise InputError(choices("public data set", name, PUBLIC))
    dataset = PUBLIC[name]
    say = on_step or (lambda _: None)
    say(f"{dataset.title}: {dataset.licence} ({dataset.homepage})")
    cache = folder or Path(os.environ.get("RECLOSS_CACHE") or Path.home() / ".cache" / "recloss")
    target = cache.expanduser() / name / dataset.file
    if target.is_file():
        if _is_right(target.read_bytes(), dataset):
            say(f"{name}: already in {target.parent}")
            return target.parent
        say(f"{name}: {target} is damaged, fetching it again")
    content = _download(dataset, target, say)
    partial = target.with_name(f".{target.name}.partial-{os.getpid()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.write_bytes(content)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(
            f"{target}: cannot be written ({error.strerror}); set RECLOSS_CACHE to another folder"
        ) from None
    say(f"{name}: {dataset.bytes:,} bytes in {target.parent}")
    return target.parent


def table() -> list[PublicDataset]:
    """The known data sets in the order of their names."""
    return [PUBLIC[name] for name in sorted(PUBLIC)]


def _is_right(content: bytes, dataset: PublicDataset) -> bool:
    return sha256(content).hexdigest() == dataset.sha256


def _download(dataset: PublicDataset, target: Path, say: Callable[[str], None]) -> bytes:
    """The content from the first source that gives the right bytes."""
    failed = []
    for source, get in dataset.sources:
        say(f"{dataset.name}: trying {source}")
        try:
            content = get()
        except (OSError, HTTPException, zipfile.BadZipFile, KeyError, StopIteration) as error:
            failed.append(f"{source}: {' '.join(str(error).split()) or type(error).__name__}")
            continue
        if _is_right(content, dataset):
            return content
        failed.append(f"{source}: the SHA-256 is {sha256(content).hexdigest()}, expected {dataset.sha256}")
    reasons = "; ".join(failed)
    raise InputError(f"{dataset.name} cannot be fetched ({reasons}); {dataset.by_hand} into {target.parent}")
