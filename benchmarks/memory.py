"""Goal 2: peak extra memory of a training step, per loss, against 8 x B x N x 4 bytes plus a stated workspace.

    python benchmarks/memory.py [--quick] [--out FILE]

Each loss trains in a fresh process at B = N = 1,024 (GuidedRec at its N = 9), MF with d = 64, on data of 8,693 items,
and the other two catalogues for the losses of goal 1 unless --quick. Extra is the resident set's high-water mark over
five epochs of a few steps, hooks such as threshold refreshes included, above what is held between two epochs: data,
tables, optimiser state, the loss's state. So the gradients of all tables count as extra; what the allocator keeps
(`recloss.native.keep_freed_memory`) does not. The workspace stands for what does not grow with N: copies of rows and
single columns.
"""

from common import Row, main
from data_sets import load, subset
from epochs import BATCH, NEGATIVES, loss_for, run
from peaks import Peak, fresh

from recloss.backbones.mf import MF
from recloss.context import Context
from recloss.interactions import Interactions
from recloss.losses import LOSSES

BOUND = 8
WORKSPACE_MB = 16
OWN_NEGATIVES = {"guidedrec": 9}
STEPS, EPOCHS = 2, 7


def extra(name: str, train: Interactions) -> float:
    """MiB above what is held between epochs; to be called in a fresh process."""
    n_negatives = OWN_NEGATIVES.get(name, NEGATIVES)
    backbone, loss = MF(train.n_users, train.n_items), loss_for(name, train, n_negatives)
    peaks: list[Peak] = []
    found: list[float] = []
    hook = loss.on_epoch_start

    def watched(context: Context) -> None:
        if context.epoch <= 2:  # from the first epoch on, memory is given back; from the second, it is measured
            backbone.zero_grad()
            loss.zero_grad()
            peaks.append(Peak())
        if context.epoch == EPOCHS:
            found.append(peaks[-1].mib)
        hook(context)

    loss.on_epoch_start = watched
    run(backbone, loss, train, EPOCHS, n_negatives=n_negatives, valid_every=EPOCHS)
    return found[0]


def benchmark(quick: bool) -> list[Row]:
    cases = [(name, "beauty") for name in LOSSES]
    if not quick:
        cases += [(name, data) for data in ("health", "gowalla-40988") for name in ("sl", "psl", "slatk", "talos")]
    rows, over, worst = [], [], (0.0, "")
    for name, data in cases:
        n_items = load(data).train.n_items
        n_negatives = OWN_NEGATIVES.get(name, NEGATIVES)
        unit = BATCH * n_negatives * 4 / 2**20
        mb = fresh(extra, name, subset(load(data).train, STEPS * BATCH))
        title = f"{LOSSES[name].title}, {n_items:,} items"
        scores = f"{mb / unit:.1f} × B × N × 4 bytes" if name not in OWN_NEGATIVES else f"at N = {n_negatives}"
        rows.append(Row(2, title, f"{mb:.1f} MiB", scores))
        print(f"{title}: {mb:.1f} MiB, {scores}", flush=True)
        above = mb - WORKSPACE_MB
        if above > BOUND * unit:
            over.append(title)
        worst = max(worst, (mb / unit, title)) if name not in OWN_NEGATIVES else worst
    measured = f"most: {worst[1]}, {worst[0]:.1f} ×; {len(rows) - len(over)} of {len(rows)} within"
    detail = f"over: {'; '.join(over)}" if over else ""
    wanted = f"≤ {BOUND} × B × N × 4 bytes + {WORKSPACE_MB} MiB"
    return [*rows, Row(2, "extra memory of a step", measured, detail, wanted, not over)]


if __name__ == "__main__":
    main(benchmark, __doc__)
