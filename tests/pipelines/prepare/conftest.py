"""How tests write raw files and read them back."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipelines.prepare.readers import sources
from pipelines.settings import PrepareSettings


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str | bytes], Path]:
    """Write a file of the test's folder."""

    def write_(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write_


def _read(raw: Path, on_bad_row: str = "error", **settings: Any) -> dict[str, list[Any]]:
    log = sources(raw, PrepareSettings(**settings), lambda _: None)
    blocks = [block for source in log for block in source.blocks(on_bad_row)]
    for block in blocks:
        for side in ("user", "item"):
            assert block.schema.field(side).type == pa.dictionary(pa.int32(), pa.string())
    return pa.concat_tables(blocks).to_pydict()


@pytest.fixture
def read() -> Callable[..., dict[str, list[Any]]]:
    """All rows of a log, by column."""
    return _read
