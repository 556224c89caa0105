"""Time RecBole, LensKit and implicit against recloss: training epochs and full-ranking evaluation.

    RECLOSS_DATA=FOLDER python benchmarks/peers/run.py [--quick] [--out ROWS.json] [--install]

RECLOSS_DATA has the folders `ml-100k` (`ua.base`, `ua.test` as published) and, without `--quick`, `gowalla`
(`train.txt.gz`, `test.txt.gz`: `user item item ...` per line). Every peer gets an environment of its own in
`~/.cache/recloss/peers` (or RECLOSS_CACHE/peers, or `--envs`), installed once from `NAME.txt` beside this file, about
3.5 GB together with the CPU build of torch; from then on no network is needed. `--install` stops after that.

All sides get the same pairs, d = 64, one negative per positive, the same batch, the same number of threads, and Adam or
AdamW with lr 0.001, except implicit, which does SGD sample by sample. What an epoch of each is stands at the head of
its `time_NAME.py`. Peers are run the way that is fastest for them where that changes no mathematics (blocks of users in
RecBole's evaluation, one OpenBLAS thread per implicit thread, torch.compile in LensKit), and as they come too where
that is a lot slower.

Both sides start, read the data and warm up; then they take turns, one working while the other sleeps, in an order that
alternates. A turn is one epoch (or one evaluation), or as many as fit into half a second, of which the median counts.
`ratio` is the median over turns of theirs / ours of that turn, so above 1 recloss is ahead; `spread` is the smallest
and the largest of these. `theirs_s` and `ours_s` are medians of wall seconds, `cpu_s` of CPU seconds of all threads.
The note says how many cores other processes used meanwhile: with more than a few hundredths, compare CPU seconds. In an
evaluation both sides rank the same embeddings, and a row whose NDCG@20 differ says so.

A row that could not be measured has no figures, and its note says why.
"""

import argparse
import gzip
import hashlib
import json
import os
import selectors
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import IO, Any

import numpy as np

HERE = Path(__file__).parent
PEERS = ("recbole", "lenskit", "implicit")
DIM = 64
PATIENCE = 1800
"""Seconds a program may take for its start and warm-up, or for a turn."""
ENOUGH, AT_LEAST = 120, 3
"""Seconds after which a row takes no more pairs of turns, if it has had this many."""


@dataclass(frozen=True)
class Measurement:
    """One row: a task of `turns.TASKS` on a data set, by a peer and by us."""

    what: str
    task: str
    data: str
    peer: str
    note: str = ""
    variant: str = ""
    peer_environment: dict[str, str] = field(default_factory=dict)


BPR, GCN, RANK = "BPR-MF epoch", "LightGCN epoch, 3 layers", "full ranking, top 20"
TORCH_1 = {"LK_NUM_BACKEND_THREADS": "1"}
SGD = "SGD by sample, popular negatives"
QUICK = (
    Measurement(BPR, "mf", "ml-100k", "recbole"),
    Measurement(BPR, "mf", "ml-100k", "lenskit", "FlexMF"),
    Measurement(BPR, "mf", "ml-100k", "lenskit", "FlexMF, its default of 1 torch thread", "", TORCH_1),
    Measurement(BPR, "mf", "ml-100k", "implicit", SGD),
    Measurement(GCN, "lightgcn", "ml-100k", "recbole"),
    Measurement(GCN, "lightgcn", "ml-100k", "lenskit", "FlexMF", "flexmf"),
    Measurement(
        GCN,
        "lightgcn",
        "ml-100k",
        "lenskit",
        "PyTorch Geometric; its graph has one direction of each edge, all weights come out 0",
        "pyg",
    ),
    Measurement(RANK, "evaluate", "ml-100k", "recbole", "256 users a block", "blocks"),
    Measurement(RANK, "evaluate", "ml-100k", "implicit"),
)
FULL = (
    *(m for m in QUICK if m.task != "evaluate"),
    Measurement(BPR, "mf", "gowalla", "recbole"),
    Measurement(BPR, "mf", "gowalla", "lenskit", "FlexMF"),
    Measurement(BPR, "mf", "gowalla", "implicit", SGD),
    Measurement(RANK, "evaluate", "gowalla", "recbole", "256 users a block", "blocks"),
    Measurement(RANK, "evaluate", "gowalla", "recbole", "its default of 1 user a block"),
    Measurement(RANK, "evaluate", "gowalla", "implicit"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="ML-100K only, few turns")
    parser.add_argument("--out", type=Path, help="JSON file for the rows")
    parser.add_argument("--envs", type=Path, default=default_folder(), help="folder of the peers' environments")
    parser.add_argument("--install", action="store_true", help="install the environments and stop")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=PEERS)
    parser.add_argument("--turns", type=int, help="pairs of turns of a row (default: 7, quick 3)")
    parser.add_argument("--batch", type=int, default=2048)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    settings = parser.parse_args()
    settings.turns = settings.turns or (3 if settings.quick else 7)

    pythons = {peer: environment(peer, settings.envs) for peer in settings.peers}
    if settings.install:
        return
    plan = [
        m
        for m in (QUICK if settings.quick else FULL)
        if m.peer in settings.peers and not (settings.threads == 1 and m.peer_environment == TORCH_1)
    ]
    with tempfile.TemporaryDirectory(prefix="recloss-peers-") as folder:
        work = Path(folder)
        files = {name: prepare(name, work) for name in dict.fromkeys(m.data for m in plan)}
        rows = []
        for m in plan:
            print(f"{m.what} · {m.data} · {m.peer} {m.note}", file=sys.stderr, flush=True)
            rows.append(row(m, pythons[m.peer], files[m.data], work, settings))
    if settings.out is not None:
        settings.out.write_text(json.dumps(rows, indent=1) + "\n")
    print(table(rows))


def default_folder() -> Path:
    return Path(os.environ.get("RECLOSS_CACHE") or Path.home() / ".cache" / "recloss") / "peers"


def environment(peer: str, folder: Path) -> Path | str:
    """The Python of a peer's environment, made if it is not there as its requirements say; a text if that failed."""
    requirements = HERE / f"{peer}.txt"
    python, complete = folder / peer / "bin" / "python", folder / peer / "complete"
    wanted = f"{sys.version.split()[0]} {hashlib.sha256(requirements.read_bytes()).hexdigest()}\n"
    if complete.exists() and complete.read_text() == wanted:
        return python
    print(f"installing {peer} into {folder / peer}", file=sys.stderr, flush=True)
    shutil.rmtree(folder / peer, ignore_errors=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(requirements)]
    for command in ([sys.executable, "-m", "venv", str(folder / peer)], pip):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            print(done.stdout + done.stderr, file=sys.stderr)
            return f"not installed: {last_line(done.stderr)}"
    complete.write_text(wanted)
    return python


def prepare(name: str, work: Path) -> Path:
    """The .npz file of a data set, see `turns.load`; its embeddings make the test items rank high, for some users."""
    if "RECLOSS_DATA" not in os.environ:
        sys.exit("RECLOSS_DATA is not set: it names the folder with the data sets")
    train, test = PAIRS[name](Path(os.environ["RECLOSS_DATA"]) / name)
    n_users, n_items = (np.concatenate([train, test]).max(0) + 1).tolist()
    random = np.random.default_rng(0)
    item = random.standard_normal((n_items, DIM), np.float32)
    user = random.standard_normal((n_users, DIM), np.float32)
    np.add.at(user, test[:, 0], item[test[:, 1]])
    path = work / f"{name}.npz"
    np.savez(
        path, train_user=train[:, 0], train_item=train[:, 1], test_user=test[:, 0], test_item=test[:, 1],
        user=user, item=item, n_users=n_users, n_items=n_items,
    )  # fmt: skip
    return path


def ml_100k(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    train, test = (np.loadtxt(folder / f"ua.{part}", np.int64, usecols=(0, 1)) - 1 for part in ("base", "test"))
    return train, test


def gowalla(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    train, test = (_adjacency(folder / f"{part}.txt.gz") for part in ("train", "test"))
    return train, test


def _adjacency(path: Path) -> np.ndarray:
    with gzip.open(path, "rt") as lines:
        rows = [np.array(line.split(), np.int64) for line in lines]
    return np.concatenate([np.stack([np.full(len(row) - 1, row[0]), row[1:]], 1) for row in rows if len(row) > 1])


PAIRS = {"ml-100k": ml_100k, "gowalla": gowalla}


class ProgramError(RuntimeError):
    """A timing program ended or kept silent; the message is its last line of standard error."""


class Program:
    """A timing program that has been started; `facts` is the first thing it says, when it is warm."""

    def __init__(self, process: subprocess.Popen[str], log: IO[str]) -> None:
        self.process, self.log = process, log
        self.facts = self._read()

    def turn(self) -> dict[str, Any]:
        """The seconds of its next turn, and how many cores other processes used meanwhile."""
        assert self.process.stdin is not None
        start, busy = time.perf_counter(), busy_seconds()
        print("go", file=self.process.stdin, flush=True)
        line = self._read()
        others = (busy_seconds() - busy - sum(line["cpu"])) / (time.perf_counter() - start)
        return {"seconds": median(line["seconds"]), "cpu": median(line["cpu"]), "others": max(others, 0.0)}

    def _read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            line = self.process.stdout.readline() if selector.select(PATIENCE) else ""
        if not line:
            self.process.kill()
            self.log.seek(0)
            raise ProgramError(last_line(self.log.read()))
        return json.loads(line)


@contextmanager
def program(
    python: Path | str, name: str, m: Measurement, file: Path, work: Path, settings: argparse.Namespace
) -> Iterator[Program]:
    """`time_NAME.py` at work on a measurement; ended on leaving."""
    threads = str(settings.threads)
    environ = os.environ | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads, "CUDA_VISIBLE_DEVICES": ""}
    if name == "lenskit":
        environ |= {"LK_NUM_THREADS": threads, "LK_NUM_BACKEND_THREADS": threads}
    if name == "implicit":
        environ["OPENBLAS_NUM_THREADS"] = "1"
        environ.pop("OPENBLAS_CORETYPE", None)
        environ.pop("OPENBLAS_L2_SIZE", None)
    if name != "recloss":
        environ |= m.peer_environment
    command = [str(python), str(HERE / f"time_{name}.py"), str(file), m.task]
    command += ["--variant", m.variant, "--batch", str(settings.batch), "--threads", threads]
    with tempfile.TemporaryFile("w+", dir=work) as log:
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, cwd=work, env=environ, stdin=pipe, stdout=pipe, stderr=log, text=True)
        try:
            yield Program(process, log)
            process.communicate(timeout=60)
        finally:
            process.kill()
            process.wait()


def row(m: Measurement, python: Path | str, file: Path, work: Path, settings: argparse.Namespace) -> dict[str, Any]:
    """The row of a measurement."""
    result: dict[str, Any] = {"what": m.what, "data": m.data, "peer": f"{m.peer} ({m.note})" if m.note else m.peer}
    figures: dict[str, Any] = dict.fromkeys(("theirs_s", "ours_s", "ratio", "spread", "cpu_s"))
    if isinstance(python, str):
        return result | figures | {"note": python}
    try:
        with ExitStack() as stack:
            theirs = stack.enter_context(program(python, m.peer, m, file, work, settings))
            ours = stack.enter_context(program(sys.executable, "recloss", m, file, work, settings))
            sides = (theirs, ours)
            pairs: list[list[dict[str, Any]]] = []
            end = time.perf_counter() + ENOUGH
            for number in range(settings.turns):
                if number >= AT_LEAST and time.perf_counter() > end:
                    break
                turns = {side: side.turn() for side in (sides if number % 2 else sides[::-1])}
                pairs.append([turns[side] for side in sides])
    except ProgramError as error:
        return result | figures | {"note": f"failed: {error}"}
    seconds, cpu = ([median(pair[i][key] for pair in pairs) for i in (0, 1)] for key in ("seconds", "cpu"))
    ratios = [a["seconds"] / b["seconds"] for a, b in pairs]
    return result | {
        "theirs_s": seconds[0],
        "ours_s": seconds[1],
        "ratio": median(ratios),
        "spread": [min(ratios), max(ratios)],
        "cpu_s": {"theirs": cpu[0], "ours": cpu[1]},
        "note": "; ".join(remarks(m, theirs, ours, seconds, pairs, file)),
    }


def remarks(
    m: Measurement,
    theirs: Program,
    ours: Program,
    seconds: list[float],
    pairs: list[list[dict[str, Any]]],
    file: Path,
) -> Iterator[str]:
    """What the note of a row says."""
    yield theirs.facts["versions"]
    threads = {theirs.facts["threads"], ours.facts["threads"]}
    if len(threads) == 1:
        yield f"threads: {threads.pop()}"
    else:
        yield f"threads: theirs {theirs.facts['threads']}, ours {ours.facts['threads']}"
    if m.task == "evaluate":
        with np.load(file) as data:
            users = len(np.unique(data["test_user"]))
        yield f"users/s: theirs {users / seconds[0]:,.0f}, ours {users / seconds[1]:,.0f}"
        ndcg = theirs.facts["ndcg"], ours.facts["ndcg"]
        if abs(ndcg[0] - ndcg[1]) > 1e-4:
            yield f"NDCG@20 DIFFERS: theirs {ndcg[0]:.5f}, ours {ndcg[1]:.5f}"
    yield f"others used {median(turn['others'] for pair in pairs for turn in pair):.2f} cores"


def busy_seconds() -> float:
    """CPU seconds that all processes of this machine have used."""
    user, nice, system, _, _, irq, softirq, steal = map(int, Path("/proc/stat").read_text().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def last_line(text: str) -> str:
    """The last line that is not empty."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "no output")


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as a Markdown table."""
    head = ("what", "data", "peer", "theirs s", "ours s", "ratio", "spread", "CPU s: theirs", "ours", "note")
    lines = [head, ["---"] * len(head)]
    for r in rows:
        figures = ["–"] * 6
        if r["ratio"] is not None:
            spread = "–".join(f"{x:.2f}" for x in r["spread"])
            cpu = [f"{r['cpu_s'][side]:.3g}" for side in ("theirs", "ours")]
            figures = [f"{r['theirs_s']:.3g}", f"{r['ours_s']:.3g}", f"{r['ratio']:.2f}", spread, *cpu]
        lines.append([r["what"], r["data"], r["peer"], *figures, r["note"]])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()
