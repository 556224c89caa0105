"""One file over HTTP: streamed to disk within a size limit, taken up again where the connection broke."""

import shutil
import time
import urllib.request
from collections.abc import Callable
from hashlib import sha256
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import BinaryIO
from urllib.error import HTTPError

from recloss.errors import InputError

LIMIT_BYTES = 8 * 2**30
"""Nothing larger is downloaded or unpacked."""
TIMEOUT = 60.0
"""Seconds without a byte after which a connection counts as broken."""
ATTEMPTS = 4
PAUSE = 2.0
"""Seconds before the second attempt; doubled for each further one."""
SAY_EVERY = 5.0
"""Seconds between two lines of progress."""
CHUNK = 2**20


class RefusedError(OSError):
    """What the server offers is not what is wanted; trying again would not help."""


def download(url: str, target: Path, *, size: int | None, say: Callable[[str], None]) -> str:
    """Stream ``url`` into the new file ``target`` and return its SHA-256.

    A connection that breaks in the middle is taken up again where it broke if the server can say that the file is
    still the same one (ETag or Last-Modified), else from the start.

    Args:
        url: http or https; redirects are followed.
        target: a file that may be left half-written when this raises.
        size: its bytes, where known.
        say: hears of progress every few seconds.

    Raises:
        OSError: the server does not answer or refuses, the file has another size or is larger than the limit, the
            disk has no room for it.
        InputError: ``target`` cannot be written.
    """
    transfer = _Transfer(url, target, size, say)
    with target.open("wb", buffering=0) as out:
        for attempt in range(ATTEMPTS):
            try:
                transfer.receive(out)
            except (OSError, HTTPException) as error:
                if not transfer.done or isinstance(error, RefusedError | HTTPError) or attempt == ATTEMPTS - 1:
                    raise
                pause = PAUSE * 2**attempt
                say(f"{url}: {reason(error)} after {transfer.done:,} bytes, trying again in {pause:g} s")
                time.sleep(pause)
            else:
                break
    return transfer.digest.hexdigest()


class _Transfer:
    """What has arrived of a file."""

    def __init__(self, url: str, target: Path, size: int | None, say: Callable[[str], None]):
        self.url, self.target, self.size, self.say = url, target, size, say
        self.total = size
        self.validator: str | None = None
        self._restart()

    def receive(self, out: BinaryIO) -> None:
        """One connection: up to the end of the file, or an exception."""
        request = urllib.request.Request(self.url, headers={"User-Agent": "recloss", "Accept-Encoding": "identity"})
        if self.done and self.validator:
            request.add_header("Range", f"bytes={self.done}-")
            request.add_header("If-Range", self.validator)
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            self._begin(response, out)
            self._copy(response, out)
        if self.total is not None and self.done != self.total:
            raise OSError(f"the connection ended after {self.done:,} of {self.total:,} bytes")

    def _begin(self, response: HTTPResponse, out: BinaryIO) -> None:
        """Compare what the server announces with what is expected, and place ``out``."""
        if response.status == 206:
            if not response.headers.get("Content-Range", "").startswith(f"bytes {self.done}-"):
                raise RefusedError(f"the server continues elsewhere: {response.headers.get('Content-Range')!r}")
            return
        if self.done:
            out.seek(0)
            out.truncate()
            self._restart()
        self.validator = response.headers.get("ETag") or response.headers.get("Last-Modified")
        if (self.validator or "").startswith("W/"):  # a weak tag does not promise the same bytes
            self.validator = response.headers.get("Last-Modified")
        announced = response.headers.get("Content-Length")
        if announced is not None:
            if self.size not in (None, int(announced)):
                raise RefusedError(f"the file has {int(announced):,} bytes, expected {self.size:,}")
            self.total = int(announced)
        if (self.total or 0) > LIMIT_BYTES:
            raise RefusedError(f"the file has {self.total:,} bytes, more than the limit of {LIMIT_BYTES:,}")
        free = shutil.disk_usage(self.target.parent).free
        if (self.total or 0) > free:
            raise RefusedError(f"the file has {self.total:,} bytes, {free:,} are free on the disk")

    def _copy(self, response: HTTPResponse, out: BinaryIO) -> None:
        said = time.monotonic()
        while chunk := response.read1(CHUNK):
            if self.done + len(chunk) > min(LIMIT_BYTES, self.total or LIMIT_BYTES):
                raise RefusedError(f"the file is larger than the {self.total or LIMIT_BYTES:,} bytes that are accepted")
            write(out, chunk, self.target)
            self.digest.update(chunk)
            self.done += len(chunk)
            if time.monotonic() - said > SAY_EVERY:
                said = time.monotonic()
                whole = f" of {self.total / 1e6:,.0f}" if self.total else ""
                self.say(f"{self.target.name}: {self.done / 1e6:,.0f}{whole} MB")

    def _restart(self) -> None:
        self.done = 0
        self.digest = sha256()


def write(out: BinaryIO, data: bytes, target: Path) -> None:
    """Append to an unbuffered file.

    Raises:
        InputError: it cannot be written.
    """
    left = memoryview(data)
    try:
        while left:
            left = left[out.write(left) :]
    except OSError as error:
        raise InputError(
            f"{target.name}: cannot be written ({error.strerror}); set RECLOSS_CACHE to another folder"
        ) from None


def reason(error: Exception) -> str:
    """An exception on one line."""
    return " ".join(str(error).split()) or type(error).__name__
