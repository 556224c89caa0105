"""Goal 1: one epoch of MF (d = 64, batch 1,024, N = 1,024) with SL, PSL, SL@K and Talos, against the naive way.

    python benchmarks/training_step.py [--quick] [--out FILE]

Ours is `recloss.training.fit`, the other side is `naive.py`; both are checked to give the same loss and gradients for
the same negatives before anything is timed. Steps are timed and extrapolated to the epoch: ours over the pairs of a
random part of the users (--quick) or of all, the naive ones over a few random batches of all pairs. SL@K's thresholds
are refreshed every 5 epochs, so a fifth of a refresh of all users is added to an epoch, on both sides.
"""

import time

import torch
from common import Row, Seconds, main, paired, ratio, timed, walls
from data_sets import load, subset
from epochs import BATCH, NEGATIVES, loss_for, step_seconds, steps_of
from naive import Naive

from recloss.backbones.mf import MF
from recloss.context import Context
from recloss.interactions import Interactions
from recloss.losses import Batch
from recloss.similarity import prepare, sampled_scores, segment_scores

LOSSES = {"sl": "SL", "psl": "PSL", "slatk": "SL@K", "talos": "Talos"}
WANTED = {"health": 20, "beauty": 20, "gowalla-40988": 10}
REFRESH = 5
PARAMS = {"slatk": {"samples": NEGATIVES, "refresh": REFRESH}}


def check(name: str, train: Interactions, n_negatives: int = 50, rows: int = 64) -> None:
    """Ours and the naive side give the same loss and gradients of the same negatives, to 1e-5 of the largest.

    Raises:
        AssertionError: naming what differs.
    """
    torch.manual_seed(0)
    naive = Naive(name, train, n_negatives)
    batch = torch.randint(len(train), (rows,))
    users, items = train.user[batch], train.item[batch]
    negatives = naive.negatives(users)
    assert not train.contains(users[:, None], negatives).any()
    user, item = (table.detach().clone().requires_grad_() for table in (naive.user, naive.item))
    u_UD, v_ID = prepare(user, "cosine"), prepare(item, "cosine")
    loss = loss_for(name, train, n_negatives, **PARAMS.get(name, {}))
    if name in ("slatk", "talos"):
        naive.beta.data = torch.rand(train.n_users) / 4
        loss.threshold.value.data = naive.beta.data.clone()
    if name == "slatk":
        everyone = torch.arange(train.n_users)
        context = Context(REFRESH, train, lambda: (u_UD, v_ID))
        loss.on_epoch_start(context)
        naive.refresh(everyone, context.negatives(everyone, NEGATIVES, "threshold"))
        torch.testing.assert_close(naive.beta.detach(), loss.threshold.value, msg="thresholds differ")
    scores = sampled_scores(u_UD[users], v_ID, torch.cat([items[:, None], negatives], 1))
    positives = train.of(users)
    positives = positives.with_values(segment_scores(u_UD[users], v_ID, positives.values, positives.offsets))
    ours = loss(Batch(scores[:, 0], scores[:, 1:], user=users, positives=positives))
    theirs = naive.loss(users, items, negatives)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6, msg=f"{name}: {ours} and {theirs}")
    ours.backward()
    theirs.backward()
    pairs = [(user.grad, naive.user.grad), (item.grad, naive.item.grad)]
    pairs += [(loss.threshold.value.grad, naive.beta.grad)] if name == "talos" else []
    for one, other in pairs:
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5 * float(other.abs().max()), msg=f"{name}: gradients")


def compare(name: str, train: Interactions, quick: bool) -> dict[str, list[Seconds]]:
    """Seconds per step of both sides, a fifth of the thresholds' refresh among them."""
    steps, rounds, ours_on = (5, 2, subset(train, 32 * BATCH)) if quick else (10, 5, train)
    epoch = steps_of(train)

    def ours() -> Seconds:
        backbone, loss = MF(train.n_users, train.n_items), loss_for(name, ours_on, **PARAMS.get(name, {}))
        step = step_seconds(backbone, loss, ours_on)
        if name != "slatk":
            return step
        context = Context(REFRESH, train, lambda: tuple(prepare(e.detach(), "cosine") for e in backbone.embed()))
        return _sum(step, timed(lambda: loss.on_epoch_start(context))() / (REFRESH * epoch))

    naive = Naive(name, train, NEGATIVES)

    def theirs() -> Seconds:
        batches = torch.randperm(len(train))[: steps * BATCH].split(BATCH)
        step = timed(lambda: [naive.step(train.user[b], train.item[b]) for b in batches])() / len(batches)
        if name != "slatk":
            return step
        block, blocks = torch.randperm(train.n_users)[:BATCH], train.n_users / BATCH
        return _sum(step, timed(lambda: naive.refresh(block))() / (REFRESH * epoch / blocks))

    return paired({"naive": theirs, "ours": ours}, rounds)


def _sum(a: Seconds, b: Seconds) -> Seconds:
    return Seconds(a.wall + b.wall, a.cpu + b.cpu)


def benchmark(quick: bool) -> list[Row]:
    rows = []
    for data, wanted in WANTED.items():
        train = load(data).train
        epoch, medians = steps_of(train), {}
        for name, title in LOSSES.items():
            check(name, train)
            started = time.perf_counter()
            taken = compare(name, train, quick)
            times = ratio(taken["naive"], taken["ours"])
            cpu = ratio(taken["naive"], taken["ours"], "cpu")
            naive, ours = (walls(taken[side]) for side in ("naive", "ours"))
            medians[title] = times.median
            detail = (
                f"epoch of {epoch} steps {ours.median * epoch:.3g} s, naive {naive.median * epoch:.3g} s; "
                f"step {ours.show(' ms', 1e3)}, naive {naive.show(' ms', 1e3)}; CPU seconds {cpu.show('×')}"
            )
            rows.append(Row(1, f"{title}, {train.n_items:,} items", times.show("×"), detail))
            print(f"{rows[-1].what}: {rows[-1].measured} in {time.perf_counter() - started:.0f} s", flush=True)
        each = ", ".join(f"{title} {median:.3g}×" for title, median in medians.items())
        met = min(medians.values()) >= wanted
        rows.append(Row(1, f"training step, {train.n_items:,} items", each, "medians", f"each ≥ {wanted}×", met))
    return rows


if __name__ == "__main__":
    main(benchmark, __doc__)
