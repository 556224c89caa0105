"""Prepares every data set in RECLOSS_DATA with the options of docs/data_sets.yaml, compares users, items and rows with
the known counts, and writes the table of docs/data.md: `python docs/make_data_table.py`. A count that differs is a
failure, and nothing is written.
"""

import contextlib
import io
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from pipelines.commands import run

DOCS = Path(__file__).parent
PAGE = DOCS / "data.md"
BEGIN, END = "<!-- begin: written by docs/make_data_table.py -->\n", "<!-- end -->\n"
HEAD = """\
| `recloss prepare --raw` ... | read: users / items / rows | left: users / items / rows | train / validation / test |
|---|---:|---:|---:|
"""


def data_sets() -> list[dict[str, Any]]:
    """The entries of docs/data_sets.yaml."""
    return yaml.safe_load((DOCS / "data_sets.yaml").read_text())


def rows(data: Path) -> Iterator[tuple[str, list[str]]]:
    """A line of the table per entry, and what differs from the known counts."""
    for known in data_sets():
        with tempfile.TemporaryDirectory() as folder:
            said, out = io.StringIO(), Path(folder) / "out"
            with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                code = run(["prepare", "--raw", str(data / known["raw"]), *known["options"].split(), "--out", str(out)])
            command = f"{known['raw']} {known['options']}".strip()
            if code:
                yield command, [f"{command}: {said.getvalue().splitlines()[-1]}"]
                continue
            manifest = json.loads((out / "manifest.json").read_text())
        found = counts(manifest)
        wrong = [
            f"{command}: {what} {found[what]}, known {known[what]}"
            for what in found
            if found[what] != known.get(what, found[what])
        ]
        left = known.get("left", known["read"])
        wrong += [] if found["left"] == left else [f"{command}: left {found['left']}, known {left}"]
        sizes = manifest["sizes"]
        splits = f"{sizes['train']:,} / {sizes['valid']:,} / {sizes['test']:,}"
        yield f"| `{command}` | {joined(found['read'])} | {joined(found['left'])} | {splits} |\n", wrong


def counts(manifest: dict[str, Any]) -> dict[str, list[int]]:
    """What an entry may state."""
    sizes, read = manifest["sizes"], manifest["steps"][0]
    parts = [sizes[split] for split in ("train", "valid", "test")]
    return {
        "read": [read[what] for what in ("users", "items", "rows")],
        "left": [sizes["users"], sizes["items"], sum(parts)],
        "fit_valid_test": parts,
        "train_test": [parts[0] + parts[1], parts[2]],
    }


def joined(numbers: list[int]) -> str:
    """``943 / 1,682 / 100,000``."""
    return " / ".join(f"{number:,}" for number in numbers)


def main() -> int:
    """Run everything, compare, write."""
    if "RECLOSS_DATA" not in os.environ:
        sys.exit("RECLOSS_DATA is not set: it names the folder of real data sets")
    lines, wrong = zip(*rows(Path(os.environ["RECLOSS_DATA"])), strict=True)
    if any(wrong):
        sys.exit("\n".join(line for entry in wrong for line in entry))
    page = PAGE.read_text()
    table = BEGIN + HEAD + "".join(lines) + END
    PAGE.write_text(re.sub(f"{re.escape(BEGIN)}.*?{re.escape(END)}", lambda _: table, page, flags=re.DOTALL))
    return 0


if __name__ == "__main__":
    sys.exit(main())
