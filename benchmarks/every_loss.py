"""Train every loss of tune_spaces/sweeps/every_loss.yaml and write docs/results/every_loss.md.

    python benchmarks/every_loss.py [STORAGE]

Each row is what `recloss train` makes of the same settings: the same trial, in the same folder. A trial that is
finished is not trained again. STORAGE is `runs` unless given.
"""

import inspect
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipelines.search.cell import Cell
from pipelines.settings import SweepSettings, Trial, read
from pipelines.single import train_single
from pipelines.sweep.data import prepare_data
from pipelines.sweep.plan import plan
from pipelines.train import journal
from pipelines.train.tasks.pairs import build, training_splits
from recloss.evaluation import evaluate
from recloss.losses import LOSSES, get

ROOT = Path(__file__).parents[1]
SWEEP = ROOT / "tune_spaces" / "sweeps" / "every_loss.yaml"
PAGE = ROOT / "docs" / "results" / "every_loss.md"


def main(storage: Path) -> None:
    sweep = read(SweepSettings, SWEEP)
    (data,) = sweep.data
    prepared = prepare_data(data, print)
    cells = plan(sweep, {data.name: prepared.fingerprint})
    missing = sorted(LOSSES.keys() - {cell.loss for cell in cells})
    if missing:
        sys.exit(f"{SWEEP}: no entry for {', '.join(missing)}")
    rows = [_row(trial, cell, data.path, storage) for cell in cells for trial in cell.grid]
    environment = rows[0]["environment"]
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(
        HEAD.format(
            users=prepared.n_users, items=prepared.n_items, pairs=len(prepared.train[0]),
            machine=f"{os.cpu_count()} CPU cores ({environment['device']}), {environment['threads']} threads, "
            f"torch {environment['torch']}, kernel: {environment['kernel']}",
        )
        + "\n".join([_line(COLUMNS), _line(["---"] * len(COLUMNS)), *(row["line"] for row in rows)])
        + "\n"
    )  # fmt: skip
    print(PAGE)


HEAD = """# Every loss, trained once

Written by `python benchmarks/every_loss.py`, from [`every_loss.yaml`](../../tune_spaces/sweeps/every_loss.yaml).

MF (d = 64) on MovieLens-100K, 10-core, ratings of 3 and more: {users} users, {items:,} items, {pairs:,} training pairs.
One seed; metrics on the validation split, before training and at the best epoch. Each row is what
`recloss train --data data/ml-100k --backbone mf --loss NAME` trains with a `--set` for what its second and third
columns say and for the file's `settings`. Settings were chosen by hand on validation data: **this table shows that
and how fast each loss trains; it does not rank losses.** A comparison is a sweep with equal search and several seeds.
Talos' `no_denominator` is there to collapse, as its paper has it: all cosines rise towards 1 and the ranking is lost.

{machine}. Seconds per epoch include sampling and thresholds, not validation.

"""
COLUMNS = (
    "loss", "hyper-parameters", "lr, weight decay, negatives", "Recall@20 at start", "best", "NDCG@20 at start", "best",
    "best epoch", "last NDCG@20", "s / epoch",
)  # fmt: skip


def _row(trial: Trial, cell: Cell, data: Path, storage: Path) -> dict[str, Any]:
    settings = {key: value for key, value in trial.flat().items() if "." in key}
    print(f"{trial.loss.name} {trial.loss.params}", flush=True)
    folder = train_single(
        data, trial.backbone.name, trial.loss.name, settings, seed=trial.seed, workers=1, test=False, storage=storage,
        tracking_uri=f"sqlite:///{storage.absolute() / 'mlflow.db'}", spaces=None, say=print,
    )  # fmt: skip
    assert folder.name == trial.hash
    events = journal.read(folder)
    finish = journal.last(events, "finish")
    best = next(e for e in events if e["event"] == "valid" and e["epoch"] == finish["best_epoch"])["metrics"]
    train, valid = training_splits(data, trial.data)
    backbone, loss = build(trial, train)
    start = evaluate(backbone, loss.similarity, valid, [train], trial.protocol.cutoffs).mean()
    own = ", ".join(f"{k} {v}" for k, v in trial.loss.params.items() if v != _default(trial.loss.name, k))
    negatives = trial.train.negatives if loss.sampled else "all items"
    shared = f"{trial.optim.lr:g}, {trial.optim.weight_decay:g}, {negatives}"
    metrics = [f"{x:.4f}" for key in ("recall_20", "ndcg_20") for x in (start[key], best[f"valid/{key}"])]
    last = journal.last(events, "valid")["metrics"]["valid/ndcg_20"]
    seconds = finish["seconds"] / finish["epochs"]
    cells = [get(cell.loss).title, own or "–", shared, *metrics, finish["best_epoch"], f"{last:.4f}", f"{seconds:.2f}"]
    return {"line": _line(cells), "environment": journal.last(events, "start")["environment"]}


def _line(cells: Sequence[Any]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _default(loss: str, parameter: str) -> Any:
    return inspect.signature(get(loss)).parameters[parameter].default


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs"))
