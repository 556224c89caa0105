"""Run every benchmark of the fast core in turn and write RESULTS.md; `make bench` runs the short version.

    python benchmarks/run_all.py [--quick] [--only NAME ...] [--keep FOLDER] [--results FILE]

Each script is a process of its own and writes its rows (see `common.py`) to FOLDER, a temporary one unless given; a
script that --only leaves out is reported from the rows that FOLDER holds of an earlier run, if it does.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import BUSY, Others, Row, machine, verdict

HERE = Path(__file__).parent
SCRIPTS = {
    "training_step": "training_step.py",
    "memory": "memory.py",
    "sampling": "sampling.py",
    "evaluation": "evaluation.py",
    "propagation": "propagation.py",
    "parallel": "parallel.py",
    "peers": "peers/run.py",
    "roofline": "roofline.py",
    "prepare": "prepare.py",
}
GOALS = {
    1: "training step against the naive way",
    2: "memory of a training step",
    3: "sampling's share of the step",
    4: "full-ranking evaluation",
    5: "LightGCN and XSimGCL",
    6: "data-parallel by user",
    7: "peers",
    8: "preparing a raw log",
}
WHY = {
    2: "SmoothI@K keeps one (B, N) tensor for each of its K ranks until the backward pass. The lambda losses rank "
    "among all items and sort a block of rows' scores for it; they are meant for one negative per positive.",
    4: "beyond a normalised row and its metrics, a user costs the normalised table's own temporary memory.",
    6: "two processes on two cores are slower than one on a catalogue of 41,000 items: each normalises all items and "
    "takes their Adam step, and gloo sums 10 MB a step through the loopback device.",
    7: "implicit's BPR is another algorithm: Hogwild SGD by sample, without batches and without Adam, whose dense step "
    "alone costs more than its epoch. LensKit on one thread compiles its step; ours is bound by the fixed cost of "
    "about forty calls a step at one negative.",
}
"""Known reasons, shown where a goal is not met; goal 6 sets no goal for speed, so its reason is always shown."""
HEAD = """# Benchmarks of the fast core

Written by `{command}`; each script's docstring says what it measures and how. Readings are medians (and ranges) of
rounds in which the sides alternate; a ratio is taken round by round. Before and after each script the machine is
watched for a second: where others use more than {busy:.0%} of the cores, timings are not to be trusted. The load
average holds the benchmark before.
"""


@dataclass(frozen=True)
class Section:
    """A script that was run: its rows, or why it has none."""

    name: str
    command: str
    rows: list[Row]
    note: str


def run(name: str, quick: bool, folder: Path) -> Section:
    """Run a script and read its rows, which are kept with how they came about."""
    out, about = folder / f"{name}.json", folder / f"{name}.about.json"
    shown = ["python", f"benchmarks/{SCRIPTS[name]}", *(["--quick"] if quick else [])]
    out.unlink(missing_ok=True)
    before, started = Others.now(), time.monotonic()
    said = subprocess.run([sys.executable, HERE / SCRIPTS[name], *shown[2:], "--out", out])
    note = f"{time.monotonic() - started:.0f} s; before: {before}; after: {Others.now()}"
    note += f"; failed with exit code {said.returncode}" if said.returncode else ""
    about.write_text(json.dumps({"command": shlex.join(shown), "note": note}))
    return kept(name, folder)


def kept(name: str, folder: Path) -> Section:
    """A script's rows of this or an earlier run."""
    out, about = folder / f"{name}.json", folder / f"{name}.about.json"
    said = json.loads(about.read_text()) if about.exists() else {"command": SCRIPTS[name], "note": "not run"}
    rows = [from_json(row) for row in json.loads(out.read_text())] if out.exists() else []
    return Section(name, said["command"], rows, said["note"])


def from_json(row: dict[str, Any]) -> Row:
    """A row as `common.py` describes it, or as `peers/run.py` writes it."""
    if "peer" not in row:
        return Row(**row)
    what, wanted = f"{row['what']}, {row['data']}, {row['peer']}", "ahead: > 1×"
    if row["ratio"] is None:
        return Row(7, what, "–", row["note"], wanted)
    low, high = row["spread"]
    sides = ", ".join(f"{side} {row[f'{side}_s']:.3g} s (CPU {row['cpu_s'][side]:.3g})" for side in ("theirs", "ours"))
    measured = f"{row['ratio']:.3g}× ({low:.3g}–{high:.3g})"
    return Row(7, what, measured, f"{sides}; {row['note']}", wanted, row["ratio"] > 1)


def page(sections: Sequence[Section], about: dict[str, str], command: str) -> str:
    """RESULTS.md."""
    rows = [row for section in sections for row in section.rows]
    summary = [goal_line(goal, [row for row in rows if row.goal == goal and row.wanted]) for goal in GOALS]
    parts = [HEAD.format(command=command, busy=BUSY), markdown(("machine", ""), about.items()), "## Goals\n"]
    parts.append(markdown(("goal", "wanted", "measured", "met?"), summary))
    missed = [goal for goal, line in zip(GOALS, summary, strict=True) if line[-1] != "yes" or goal == 6]
    parts += ["".join(f"* Goal {goal}: {WHY[goal]}\n" for goal in missed if goal in WHY)]
    for section in sections:
        cells = [(r.what, r.measured, r.wanted, verdict(r.met, r.wanted), r.detail) for r in section.rows]
        parts += [f"## {section.name}\n", f"`{section.command}`: {section.note}.\n"]
        parts += [markdown(("what", "measured", "wanted", "met?", "detail"), cells)] if cells else []
    return "\n".join(parts)


def goal_line(goal: int, rows: Sequence[Row]) -> tuple[str, str, str, str]:
    """One line of the goals' table, of the rows that decide the goal."""
    wanted = "; ".join(dict.fromkeys(row.wanted for row in rows))
    measured = "<br>".join(f"{row.what}: {row.measured}" for row in rows)
    met = sum(row.met is True for row in rows)
    whole = "yes" if met == len(rows) else "no" if {row.met for row in rows} == {False} else f"{met} of {len(rows)}"
    return f"{goal}. {GOALS[goal]}", wanted or "–", measured or "–", whole if rows else "not measured"


def markdown(head: Sequence[str], lines: Any) -> str:
    table = [head, ["---"] * len(head), *lines]
    return "".join(f"| {' | '.join(str(cell).replace('|', chr(92) + '|') for cell in line)} |\n" for line in table)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the short version of each")
    parser.add_argument("--only", nargs="+", choices=SCRIPTS, default=list(SCRIPTS), metavar="NAME")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where the rows are kept")
    parser.add_argument("--results", type=Path, default=HERE / "RESULTS.md")
    arguments = parser.parse_args()
    others = Others.now(3)
    if others.share > BUSY or others.load > 0.5 * (os.cpu_count() or 1):
        print(f"WARNING: {others}: timings taken now are not to be trusted", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        sections = []
        for name, script in SCRIPTS.items():
            chosen = name in arguments.only and (HERE / script).exists()
            print(f"=== {name}", flush=True)
            sections.append(run(name, arguments.quick, folder) if chosen else kept(name, folder))
    command = shlex.join(["python", "benchmarks/run_all.py", *sys.argv[1:]])
    arguments.results.write_text(page(sections, machine(), command))
    print(arguments.results)
    return int(any("failed" in section.note for section in sections))


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    sys.exit(main())
