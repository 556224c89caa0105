"""SASRec on ML-1M: batches of training timed against RecBole's, and what an epoch takes.

    RECLOSS_DATA=FOLDER python benchmarks/sasrec_recbole.py [--quick] [--out FILE] [--envs FOLDER] [--batch ROWS]

RECLOSS_DATA has the folder `ml-1m` (`ml-1m.inter.gz`). RecBole runs in an environment of its own, which is installed
where it is missing (see peers/run.py). Both train SASRec with d = 64, 2 blocks, 2 heads, a network of width 64 with
ReLU, dropout 0.2, the last 50 items, Adam at 0.001, the last two items of each user held out, the same threads.

An epoch is not the same work on both sides by default. RecBole makes a row of each item but a user's first: a window
of 50 for one target. So do we with positions "sliding": equal rows, and these decide. With "all", our default and the
SASRec paper's, a user is one window of at most 50 targets: its epoch has fewer targets and far less work. So rows (a
row is a target) per second are told beside the seconds of an epoch, which are extrapolated from the batches of a turn.
With --quick it is 200 of the users, so epochs are shorter.

* CE: softmax over all items, for each row.
* BPR: one sampled negative, for each row.

The losses are the same functions; the blocks differ in where they normalise (RecBole after each part, we before it),
which is the same work. Both sides warm up, then take turns, as in peers/run.py; a ratio is of the seconds per row of
one turn, so above 1 recloss is ahead.
"""

import gzip
import os
import sys
import tempfile
from argparse import Namespace
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import numpy as np
from common import Row, main
from peers.run import Measurement, Program, ProgramError, default_folder, environment, program

VARIANTS = ("ce sliding", "bpr sliding", "ce all")
THREADS = (1, 2)
TURNS, BATCHES = 5, 8
QUICK_TURNS, QUICK_BATCHES, QUICK_USERS = 1, 1, 200


def benchmark(quick: bool, envs: Path, batch: int) -> list[Row]:
    python = environment("recbole", envs)
    if isinstance(python, str):
        return [Row(7, "SASRec against RecBole", "–", python, "ahead: > 1×")]
    with tempfile.TemporaryDirectory(prefix="recloss-sasrec-") as folder:
        file = Path(folder) / "ml-1m.npz"
        np.savez(file, **sequences(QUICK_USERS if quick else None), batches=QUICK_BATCHES if quick else BATCHES)
        return [
            row(variant, threads, python, file, QUICK_TURNS if quick else TURNS, batch)
            for variant in VARIANTS
            for threads in THREADS
            if threads <= len(os.sched_getaffinity(0))
        ]


def sequences(users: int | None) -> dict[str, np.ndarray]:
    """Items of the first users of ML-1M by time (equal times as in the file), numbered; users one after the other."""
    if "RECLOSS_DATA" not in os.environ:
        sys.exit("RECLOSS_DATA is not set: it names the folder with the data sets")
    path = Path(os.environ["RECLOSS_DATA"]) / "ml-1m" / "ml-1m.inter.gz"
    with gzip.open(path, "rt") as lines:
        user, item, time = np.loadtxt(lines, np.int64, skiprows=1, usecols=(0, 1, 2)).T
    _, user = np.unique(user, return_inverse=True)
    user, item, time = (column[user < (users or len(user))] for column in (user, item, time))
    ids, item = np.unique(item, return_inverse=True)
    order = np.lexsort([time, user])
    offsets = np.concatenate([[0], np.bincount(user).cumsum()])
    return {"items": item[order].astype(np.int64), "offsets": offsets, "n_items": np.int64(len(ids))}


def row(variant: str, threads: int, python: Path, file: Path, turns: int, batch: int) -> Row:
    """Turns of both sides at a variant."""
    loss, positions = variant.split()
    what = f"SASRec, ML-1M, {loss.upper()}, positions {positions}, {threads} thread{'s' * (threads > 1)}"
    wanted = "ahead: > 1×" if positions == "sliding" else ""
    print(what, file=sys.stderr, flush=True)
    settings, m = Namespace(threads=threads, batch=batch), Measurement(what, "sasrec", "ml-1m", "recbole", "", variant)
    try:
        with ExitStack() as stack:
            sides = [
                stack.enter_context(program(who, name, m, file, file.parent, settings))
                for who, name in ((python, "recbole_sasrec"), (sys.executable, "recloss_sasrec"))
            ]
            timed = [{side: side.turn() for side in (sides if number % 2 else sides[::-1])} for number in range(turns)]
    except ProgramError as error:
        return Row(7, what, "–", f"failed: {error}", wanted)
    theirs, ours = sides
    seconds = [[turn[side]["seconds"] / side.facts["rows"] for turn in timed] for side in sides]
    ratios = [a / b for a, b in zip(*seconds, strict=True)]
    others = median(turn[side]["others"] for turn in timed for side in sides)
    told = (said("theirs", theirs, median(seconds[0])), said("ours", ours, median(seconds[1])))
    detail = "; ".join([*told, theirs.facts["versions"], f"others used {others:.2f} cores"])
    measured = f"{median(ratios):.3g}× ({min(ratios):.3g}–{max(ratios):.3g})"
    return Row(7, what, measured, detail, wanted, median(ratios) > 1 if wanted else None)


def said(who: str, side: Program, per_row: float) -> str:
    return (
        f"{who} {1 / per_row:,.0f} rows/s, an epoch of {side.facts['epoch_rows']:,} rows "
        f"{per_row * side.facts['epoch_rows']:,.0f} s (from {side.facts['rows']:,} rows)"
    )


if __name__ == "__main__":
    main(
        benchmark,
        __doc__,
        envs={"type": Path, "default": default_folder(), "help": "folder of the peers' environments"},
        batch={"type": int, "default": 1024, "help": "rows per step"},
    )
