"""Streamed against in-memory training: loss curves over seeds, and memory and speed on many pairs; writes the page.

    python benchmarks/streaming.py DATA [--seeds 10] [--pairs 50000000] [--scratch FOLDER]

DATA is the prepared MovieLens-100K of the README. ``--pairs 0`` leaves the second part out. The made data set and its
cache go to a temporary folder below ``--scratch``, 40 bytes per pair.
"""

import argparse
import json
import multiprocessing
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from common import machine
from numpy.typing import NDArray
from scipy.stats import t as student
from torch import Tensor

from pipelines.cluster import connected
from pipelines.prepare.dataset import SCHEMA_VERSION, read_manifest
from pipelines.settings import Trial, make_trial
from pipelines.train import mapped, stream
from pipelines.train.tasks.base import fit_settings
from pipelines.train.tasks.pairs import build, training_splits
from recloss.randomness import permutation, stream_key
from recloss.training import Positives, fit

PAGE = Path(__file__).parents[1] / "docs" / "results" / "streaming.md"
LOSSES = {
    "sl": {"loss.tau": 0.2, "optim.lr": 0.01},
    "talos": {"loss.tau": 0.1, "optim.lr": 0.01, "loss.threshold_lr": 0.01},
}
SETTINGS = {"train.epochs": 10, "train.valid_every": 1, "train.patience": 10, "train.negatives": 64}
BATCH = 256
RUN, WINDOW = 4, 1024
"""The shares of a pass that a data set of 59 million pairs has by default: windows of 1/56 of it, of 256 runs each."""
SHOWN = (1, 2, 3, 5, 7, 10)

Source = Callable[[Trial, Path], AbstractContextManager[Positives | None]]


def in_memory(trial: Trial, data: Path) -> AbstractContextManager[None]:
    """What `fit` does by itself."""
    return nullcontext()


def in_another_order(trial: Trial, data: Path) -> AbstractContextManager[Positives]:
    train, _ = training_splits(data, trial.data)

    def positives(epoch: int, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        for pairs in permutation(len(train), stream_key(trial.seed, epoch, "another order")).split(BATCH):
            yield train.user[pairs], train.item[pairs]

    return nullcontext(positives)


def streamed(trial: Trial, data: Path) -> AbstractContextManager[Positives]:
    train, _ = training_splits(data, trial.data)
    pairs = stream.dataset(trial, data, 1, run=RUN, window=WINDOW)
    return stream.reading(pairs, len(train), BATCH)


def in_file_order(trial: Trial, data: Path) -> AbstractContextManager[Positives]:
    train, _ = training_splits(data, trial.data)
    return nullcontext(lambda epoch, number: zip(train.user.split(BATCH), train.item.split(BATCH), strict=True))


SOURCES: dict[str, Source] = {
    "in memory": in_memory,
    "in memory, another order": in_another_order,
    "streamed": streamed,
    "in the order of the file, not shuffled": in_file_order,
}


def curves(data: Path, loss: str, source: Source, seeds: int) -> NDArray[np.float64]:
    """(seeds, epochs, 2): training loss and validation NDCG@20 of every epoch."""
    found = []
    for seed in range(seeds):
        dotted = SETTINGS | LOSSES[loss] | {"train.batch_size": BATCH}
        trial = make_trial(read_manifest(data)["fingerprint"], "mf", loss, dotted, seed=seed)
        train, valid = training_splits(data, trial.data)
        backbone, module = build(trial, train)
        with source(trial, data) as positives:
            result = fit(backbone, module, train, valid, fit_settings(trial), positives=positives)
        found.append([(v.loss, v.metrics["ndcg_20"]) for v in result.history])
        print(loss, source.__name__, seed, found[-1][-1], flush=True)
    return np.array(found)


def comparison(data: Path, loss: str, seeds: int) -> tuple[str, dict[str, tuple[float, float]]]:
    """Tables of a loss; of each source the largest |t|, and the largest difference in standard deviations of seeds."""
    found = {name: curves(data, loss, source, seeds) for name, source in SOURCES.items()}
    parts, largest = [], dict.fromkeys(list(SOURCES)[1:], (0.0, 0.0))
    for column, what in enumerate(("training loss", "validation NDCG@20")):
        header = ["epoch", *SOURCES]
        lines = [header, ["---"] * len(header)]
        base = found["in memory"][:, :, column]
        t = {}
        for name in largest:
            difference = found[name][:, :, column] - base
            t[name] = difference.mean(0) / (difference.std(0, ddof=1) / seeds**0.5)
            spread = np.abs(difference.mean(0)) / base.std(0, ddof=1)
            largest[name] = max(largest[name][0], np.abs(t[name]).max()), max(largest[name][1], spread.max())
        for epoch in SHOWN:
            cells = []
            for name in SOURCES:
                values = found[name][:, epoch - 1, column]
                cell = f"{values.mean():.4f} ± {values.std(ddof=1):.4f}"
                cells.append(cell + (f" (t {t[name][epoch - 1]:+.1f})" if name in t else ""))
            lines.append([str(epoch), *cells])
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        parts.append(f"### {loss}: {what}\n\n{table}\n")
    return "\n".join(parts), largest


def many_pairs(folder: Path, rows: int, n_items: int = 200_000, per_user: int = 100) -> str:
    """Write a prepared dataset of made pairs; its fingerprint, which is made up too."""
    n_users, random = rows // per_user, np.random.default_rng(0)
    for split, users in (("train", n_users), ("valid", 1), ("test", 1)):
        (folder / split).mkdir(parents=True)
        for index, first in enumerate(range(0, users, 40_000)):
            own = np.arange(first, min(first + 40_000, users))
            item = random.integers(1, n_items // per_user, (len(own), per_user)).cumsum(1)
            table = {"user": np.repeat(own, per_user).astype("i4"), "item": item.ravel().astype("i4")}
            pq.write_table(pa.table(table), folder / split / f"part-{index:05}.parquet")
    sizes = {"users": n_users, "items": n_items, "train": n_users * per_user, "valid": per_user, "test": per_user}
    manifest = {"schema_version": SCHEMA_VERSION, "fingerprint": "e" * 64, "sizes": sizes}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return manifest["fingerprint"]


def private_mb() -> float:
    """Memory of this process that is not mapped from files or shared."""
    rollup = Path("/proc/self/smaps_rollup").read_text()
    return int(re.search(r"^Anonymous: +(\d+) kB", rollup, re.MULTILINE)[1]) / 1024


def one_pass(data: Path, fingerprint: str, kind: str, results: multiprocessing.Queue) -> None:
    """Rows per second and MB of private memory of a pass that trains nothing; in a process of its own."""
    trial = make_trial(fingerprint, "mf", "sl", {"train.epochs": 2, "train.stream": True})
    if kind == "mapping":
        started = time.perf_counter()
        mapped.interactions(data, fingerprint, "train")
        between = time.perf_counter()
        stream.shuffled(data, fingerprint)
        results.put((between - started, time.perf_counter() - between))
        return
    with connected():
        train = mapped.interactions(data, fingerprint, "train")
        source = in_another_order(trial, data)
        if kind == "streamed":
            with stream.reading(stream.dataset(trial, data, 1), len(train), 1024) as positives:
                next(iter(positives(1, 0)))  # Ray Data has started
            source = stream.reading(stream.dataset(trial, data, 1), len(train), 1024)
        before, most, seen, started = private_mb(), 0.0, 0, time.perf_counter()
        with source as positives:
            for index, (users, _) in enumerate(positives(1, 0)):
                seen += len(users)
                if index % 2000 == 0:
                    most = max(most, private_mb() - before)
        seconds = time.perf_counter() - started
    assert seen == len(train)
    results.put((seen / seconds, most))


def scale(rows: int, scratch: Path | None) -> str:
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        os.environ["RECLOSS_CACHE"] = str(Path(folder) / "cache")
        data = Path(folder) / "data"
        fingerprint = many_pairs(data, rows)
        context, found = multiprocessing.get_context("spawn"), {}
        for kind in ("mapping", "in memory", "streamed"):
            results = context.Queue()
            process = context.Process(target=one_pass, args=(data, fingerprint, kind, results))
            process.start()
            found[kind] = results.get()
            process.join()
            print(kind, found[kind], flush=True)
    map_s, shuffle_s = found["mapping"]
    lines = [
        f"| {name} | {found[name][0] / 1e6:.1f} million | {found[name][1]:,.0f} MB |"
        for name in ("in memory", "streamed")
    ]
    return SCALE.format(pairs=rows, map_s=map_s, shuffle_s=shuffle_s, lines="\n".join(lines))


HEAD = """# Streamed and in-memory training

Written by `python benchmarks/streaming.py`. {machine}; one thread.

`train.stream=true` reads the training pairs through Ray Data instead of drawing a permutation of all of them. Is it
shuffled well enough? MF on MovieLens-100K (57,133 training pairs, {epochs} epochs of batches of {batch}, {seeds}
seeds), streamed in windows of {window:,} pairs made of {window_runs} random runs of {run}: the shares that windows
(2^20 pairs of 256 runs) have of a data set of 59 million pairs. Model and negatives start from the same seeds in all
columns. Mean ± standard deviation over seeds; t is the mean difference from the first column in standard errors, seed
by seed.

The largest over both losses, both curves and all {epochs} epochs, {tests} comparisons for each column, which are not
independent: they share the first column, and neighbouring epochs. At the 5 % level |t| is significant above {bound:.1f}
(Bonferroni). Standard deviations are those of the first column over its seeds.

| against the first column | largest abs(t) | largest difference in standard deviations |
| --- | --- | --- |
{largest}

The first line, two in-memory runs with different orders, is what chance does; the last says what the comparison finds
where nothing is shuffled.

"""
SCALE = """
## Many pairs

{pairs:,} made pairs. Made once per machine: the mapped pairs in {map_s:.0f} s, their shuffled copy in
{shuffle_s:.0f} s. Then a pass that trains nothing, batches of 1,024, one process; memory is what is private to it,
beyond what it had before the pass (the mapped files are in the page cache, shared, and can be dropped by the kernel at
any time). With 1,000 negatives a step of 1,024 pairs takes about 10 ms of 2 cores: 0.1 million pairs per second.

| order | pairs per second | private memory |
| --- | --- | --- |
{lines}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--pairs", type=int, default=50_000_000)
    parser.add_argument("--scratch", type=Path)
    given = parser.parse_args()
    data = given.data.absolute()
    torch.set_num_threads(1)
    many = scale(given.pairs, given.scratch) if given.pairs else ""
    with connected():
        tables, largest = zip(*(comparison(data, loss, given.seeds) for loss in LOSSES), strict=True)
    worst = {name: np.max([one[name] for one in largest], axis=0) for name in largest[0]}
    epochs = SETTINGS["train.epochs"]
    tests = len(LOSSES) * 2 * epochs
    PAGE.write_text(
        HEAD.format(
            machine=machine()["CPU"], epochs=epochs, batch=BATCH, seeds=given.seeds, window=WINDOW, run=RUN,
            window_runs=WINDOW // RUN, tests=tests, bound=float(student.ppf(1 - 0.05 / tests / 2, given.seeds - 1)),
            largest="\n".join(f"| {name} | {t:.1f} | {spread:.2f} |" for name, (t, spread) in worst.items()),
        )
        + "\n".join(tables)
        + many
    )  # fmt: skip
    print(PAGE)


if __name__ == "__main__":
    main()
