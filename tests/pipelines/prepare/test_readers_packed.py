import gzip
import io
import struct
import zipfile
from pathlib import Path

import pytest
import zstandard

from pipelines.prepare.readers import sources, streams
from pipelines.settings import PrepareSettings
from recloss.errors import InputError

U_DATA = "".join(f"{n}\t{n * n}\t3\t{n}\n" for n in range(1000)).encode()
ITEMS = [str(n * n) for n in range(1000)]


def zipped(**members):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def zstd(content):
    return zstandard.ZstdCompressor().compress(content)


PACKED = {
    "u.data.gz": gzip.compress(U_DATA),
    "two members.gz": gzip.compress(U_DATA[:1000]) + gzip.compress(U_DATA[1000:]),
    "u.data.zst": zstd(U_DATA),
    "two frames.zst": zstd(U_DATA[:1000]) + zstd(U_DATA[1000:]),
    "ml.zip": zipped(**{"ml-100k/": b"", "ml-100k/README": b"...", "ml-100k/u.data": U_DATA, "__MACOSX/u.data": b"x"}),
    "stored.zip": zipped(**{"u.data": U_DATA}),
}


@pytest.mark.parametrize("name", PACKED)
@pytest.mark.parametrize("size", [None, 1000, 50])
def test_packed_files(write, read, monkeypatch, name, size):
    if size:
        monkeypatch.setattr(streams, "BLOCK_BYTES", size)
        monkeypatch.setattr(streams, "LONGEST_LINE", 1000)
    assert read(write(name, PACKED[name]))["item"] == ITEMS


@pytest.mark.parametrize("name", PACKED)
def test_packed_files_are_not_divided(write, name):
    (source,) = sources(write(name, PACKED[name]), PrepareSettings(), lambda _: None)
    assert source.parts(100) == [source]


@pytest.mark.parametrize("name", [name for name in PACKED if name.endswith((".gz", ".zst"))])
@pytest.mark.parametrize("left", [0.3, 0.99])
@pytest.mark.parametrize("on_bad_row", ["error", "skip"])
def test_cut_off(write, read, name, left, on_bad_row):
    data = PACKED[name]
    with pytest.raises(InputError) as raised:
        read(write(name, data[: int(len(data) * left)]), on_bad_row, format="movielens")
    assert str(raised.value) == f"{name}: is cut off"


def test_cut_off_at_the_end_of_a_zstd_frame_header_or_inside_its_last_bytes(write, read):
    data = PACKED["u.data.zst"]
    for length in (5, len(data) - 1):
        with pytest.raises(InputError, match=r"^u\.data\.zst: is cut off$"):
            read(write("u.data.zst", data[:length]), format="movielens")


def test_cut_off_zip(write, read):
    with pytest.raises(InputError, match=r"^ml\.zip: the zip archive is cut off or damaged \(its directory is missing"):
        read(write("ml.zip", PACKED["ml.zip"][:-30]))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("u.data.gz", r"^u\.data\.gz: is (damaged \(.+\)|cut off)$"),
        ("u.data.zst", r"^u\.data\.zst: is (damaged \(.+\)|cut off)$"),
        ("ml.zip", r"^ml\.zip: ml-100k/u\.data: is damaged \(.+\)$"),
    ],
)
@pytest.mark.parametrize("on_bad_row", ["error", "skip"])
def test_damaged(write, read, name, message, on_bad_row):
    data = bytearray(PACKED[name])
    at = len(data) // 2
    data[at : at + 8] = bytes(byte ^ 0xFF for byte in data[at : at + 8])
    with pytest.raises(InputError, match=message):
        read(write(name, bytes(data)), on_bad_row, format="movielens")


@pytest.mark.parametrize("name", ["../x.csv", "a/../../x.csv", "/etc/x.csv", "..\\x.csv", "C:/x.csv"])
def test_members_with_names_that_lead_out_are_refused(write, read, name):
    path = write("evil.zip", zipped(**{"u.data": U_DATA, name: b"user,item\n1,2\n"}))
    with pytest.raises(InputError) as raised:
        read(path)
    assert str(raised.value) == f"evil.zip: refused, its member {name!r} has a name that leads out of it"


def test_several_members_and_how_to_name_one(write, read, tmp_path):
    path = write("two.zip", zipped(**{"a.csv": "user,item\n1,2\n", "b/b.csv": "user,item\n3,4\n", "c.txt": "no log"}))
    with pytest.raises(
        InputError, match=r"several members can be read \(a\.csv, b/b\.csv\); give one as .*two\.zip/a\.csv"
    ):
        read(path)
    assert read(path / "b" / "b.csv")["user"] == ["3"]
    with pytest.raises(
        InputError,
        match=r"two\.zip: unknown member 'd\.csv'; did you mean 'a\.csv'\? \(accepted: a\.csv, b/b\.csv, c\.txt\)",
    ):
        read(path / "d.csv")


def test_a_member_that_needs_a_password(write, read):
    data = bytearray(zipped(**{"u.data": U_DATA}))
    for signature, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = data.index(signature) + at
        data[start : start + 2] = struct.pack("<H", 1)
    with pytest.raises(InputError, match=r"^ml\.zip: u\.data: cannot be unpacked \(.*password.*\)$"):
        read(write("ml.zip", bytes(data)))


def test_messages_name_archive_member_and_line(write, read):
    path = write("ml.zip", zipped(**{"a/ratings.csv": "userId,movieId,rating,timestamp\n1,2,3,4\n1,2,x,4\n"}))
    with pytest.raises(InputError, match=r"^ml\.zip: a/ratings\.csv, line 3: rating 'x' is not a number$"):
        read(path)


def test_the_same_file_packed_and_unpacked(write, read, tmp_path):
    write("u.data", U_DATA)
    write("u.data.gz", gzip.compress(U_DATA))
    with pytest.raises(InputError, match=r"^u\.data and u\.data\.gz are the same file; give the one to read$"):
        read(tmp_path)


@pytest.mark.parametrize("name", ["empty.gz", "empty.zst"])
def test_packed_nothing(write, read, name):
    pack = gzip.compress if name.endswith("gz") else zstd
    with pytest.raises(InputError, match=f"^{name}: the file is empty$"):
        read(write(name, pack(b"")))


def test_a_zip_without_files(write, read):
    with pytest.raises(InputError, match=r"no\.zip: no file here is named u\.data"):
        read(write("no.zip", zipped()))


def test_a_packed_parquet_file(write, read):
    with pytest.raises(InputError, match=r"^x\.parquet\.gz: a packed Parquet file cannot be read; unpack it$"):
        read(write("x.parquet.gz", gzip.compress(b"PAR1")))


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file whose first bytes cannot be read")
def test_a_file_that_cannot_be_read(read, tmp_path):
    (tmp_path / "u.data").symlink_to("/proc/self/mem")
    with pytest.raises(InputError, match=r"^u\.data: cannot be read \(Input/output error\)$"):
        read(tmp_path / "u.data")


def test_a_line_that_does_not_end(write, read, monkeypatch):
    monkeypatch.setattr(streams, "LONGEST_LINE", 10_000)
    monkeypatch.setattr(streams, "BLOCK_BYTES", 1000)
    path = write("u.data", U_DATA + b"1" * 20_000)
    with pytest.raises(InputError, match=r"^u\.data, line 1001: longer than 0 MiB; is this a text file\?$"):
        read(path, format="movielens")
