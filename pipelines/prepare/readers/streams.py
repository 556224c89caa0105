"""The bytes of a file, packed or not, as pieces of whole lines in bounded memory."""

import gzip
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import zstandard

from recloss.errors import InputError

BLOCK_BYTES = 16 * 2**20
"""Unpacked bytes that are parsed at a time."""
LONGEST_LINE = 256 * 2**20
BOM = b"\xef\xbb\xbf"
PACKINGS: dict[bytes, Literal["gz", "zst"]] = {b"\x1f\x8b": "gz", b"\x28\xb5\x2f\xfd": "zst"}


@dataclass(frozen=True)
class File:
    """A file on disk, or one member of a zip archive."""

    path: Path
    packing: Literal["plain", "gz", "zst", "zip"] = "plain"
    member: str = ""

    @property
    def name(self) -> str:
        """How messages call it: ``ratings.csv.gz`` or ``ml.zip: ratings.csv``."""
        return f"{self.path.name}: {self.member}" if self.member else self.path.name

    @property
    def inner(self) -> str:
        """The name of what is inside, without folders and without the suffix of a packing."""
        name = self.member.rpartition("/")[2] or self.path.name
        return name.removesuffix(f".{self.packing}") if self.packing in ("gz", "zst") else name

    def pieces(self, size: int, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Unpacked bytes in pieces of about ``size``; a range is possible in a plain file only.

        Raises:
            InputError: the file cannot be read, or is packed and cut off or damaged.
        """
        try:
            if self.packing == "plain":
                yield from _range(self.path, size, start, end)
            else:
                yield from {"gz": _gzip, "zst": _zstandard, "zip": _member}[self.packing](self, size)
        except EOFError:
            raise InputError(f"{self.name}: is cut off") from None
        except (zlib.error, gzip.BadGzipFile, zstandard.ZstdError, zipfile.BadZipFile) as error:
            raise InputError(f"{self.name}: is damaged ({' '.join(str(error).split())})") from None
        except (NotImplementedError, RuntimeError) as error:  # a method zipfile does not know; a password
            raise InputError(f"{self.name}: cannot be unpacked ({error})") from None
        except OSError as error:
            raise InputError(f"{self.name}: cannot be read ({error.strerror or error})") from None


def magic(path: Path) -> bytes:
    """The first bytes of a file, which tell what it is.

    Raises:
        InputError: the file cannot be read.
    """
    return next(File(path).pieces(4), b"")[:4]


def packed(path: Path) -> File:
    """The file ``path``, its packing told by its first bytes; a zip archive is opened by ``folders.listing``."""
    start = magic(path)
    found = (packing for begins, packing in PACKINGS.items() if start.startswith(begins))
    return File(path, next(found, "plain"))


def whole_lines(file: File, header: int, start: int = 0, end: int | None = None) -> Iterator[tuple[int, bytes]]:
    """Pieces of whole lines and how many lines (from ``start``) come before each.

    At the beginning of a file its byte order mark and ``header`` lines are left out, at its end blank lines.
    """
    if file.packing == "plain" and end is None:
        end = _content_end(file.path)
    line, rest = 0, b""
    beginning = start == 0
    for piece in file.pieces(BLOCK_BYTES, start, end):
        rest = rest + piece if rest else piece
        if beginning:
            if len(rest) < len(BOM) or rest.count(b"\n", 0, 2**24) < header:
                _check_length(file, rest, line)
                continue
            rest, line, beginning = body(rest, header), header, False
        # of a packed file the last line stays: only blank lines may follow it
        cut = (rest.rstrip(b"\r\n") if end is None else rest).rfind(b"\n") + 1
        if cut:
            lines = rest[:cut]
            yield line, lines
            line += line_ends(lines)
            rest = rest[cut:]
        _check_length(file, rest, line)
    if beginning:
        rest, line = body(rest, header), header
    last = rest.rstrip(b"\r\n") if end is None else rest
    if last:
        yield line, last if last == rest else last + b"\n"


def cuts(file: File, header: int, size: int) -> list[tuple[int, int | None]]:
    """Ranges of a plain file, each of about ``size`` bytes of whole lines, all lines but the header in one of them."""
    with file.path.open("rb") as stream:
        if stream.read(len(BOM)) != BOM:
            stream.seek(0)
        for _ in range(header):
            stream.readline()
        start, end = stream.tell(), _content_end(file.path)
        starts = [start]
        while (after := starts[-1] + size) < end:
            stream.seek(after - 1)
            stream.readline()
            if stream.tell() >= end:
                break
            starts.append(stream.tell())
    return list(zip(starts, [*starts[1:], None], strict=True))


def line_ends(text: bytes) -> int:
    """Number of line ends (faster than ``bytes.count``)."""
    return int(np.count_nonzero(np.frombuffer(text, np.uint8) == ord("\n")))


def lines_before(file: File, offset: int) -> int:
    """Number of line ends in the first ``offset`` bytes of a plain file."""
    return sum(line_ends(piece) for piece in file.pieces(BLOCK_BYTES, 0, offset)) if offset else 0


def _range(path: Path, size: int, start: int, end: int | None) -> Iterator[bytes]:
    with path.open("rb") as stream:
        stream.seek(start)
        left = float("inf") if end is None else end - start
        while left > 0 and (piece := stream.read(int(min(size, left)))):
            left -= len(piece)
            yield piece


def _gzip(file: File, size: int) -> Iterator[bytes]:
    with gzip.open(file.path) as stream:
        while piece := stream.read(size):
            yield piece


def _zstandard(file: File, size: int) -> Iterator[bytes]:
    """Frame by frame, because the library's stream reader takes the end of a cut file for its end."""
    with file.path.open("rb") as stream:
        unread, frame = b"", None
        while chunk := unread or stream.read(min(size, 2**18)):
            frame = frame or zstandard.ZstdDecompressor().decompressobj()
            if piece := frame.decompress(chunk):
                yield piece
            unread = frame.unused_data if frame.eof else b""
            frame = None if frame.eof else frame
        if frame:
            raise EOFError


def _member(file: File, size: int) -> Iterator[bytes]:
    with zipfile.ZipFile(file.path) as archive, archive.open(file.member) as stream:
        while piece := stream.read(size):
            yield piece


def body(text: bytes, header: int) -> bytes:
    """``text`` without byte order mark and header lines."""
    at = len(BOM) if text.startswith(BOM) else 0
    for _ in range(header):
        at = text.find(b"\n", at) + 1 or len(text)
    return text[at:]


def _check_length(file: File, rest: bytes, line: int) -> None:
    if len(rest) > LONGEST_LINE:
        raise InputError(f"{file.name}, line {line + 1}: longer than {LONGEST_LINE // 2**20} MiB; is this a text file?")


def _content_end(path: Path) -> int:
    """Where the last line that is not blank ends."""
    with path.open("rb") as stream:
        at = stream.seek(0, 2)
        while at:
            size = min(at, 2**16)
            stream.seek(at - size)
            text = stream.read(size)
            if kept := text.rstrip(b"\r\n"):
                end = at - size + len(kept)
                stream.seek(end)
                return end + len(stream.readline())
            at -= size
    return 0
