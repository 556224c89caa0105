"""Whether the features and negatives of a prepared graph are what its manifest says."""

from pathlib import Path

import pyarrow as pa

from pipelines.doctor import Check
from pipelines.prepare.graphs.store import extra_files, read_extra
from recloss.errors import InputError


def extra_checks(path: Path, sizes: dict[str, int]) -> tuple[list[Check], dict[str, pa.Table]]:
    """A check per file, and the content of those that can be read."""
    checks, tables = [], {}
    for file in extra_files(sizes):
        name = file.removesuffix(".parquet")
        try:
            tables[file] = read_extra(path, file, sizes)
        except InputError as error:
            checks.append(Check(name, False, str(error), "remove it and prepare it again"))
            continue
        checks.append(Check(name, True, f"{tables[file].num_rows:,} rows, all in range"))
    return checks, tables
