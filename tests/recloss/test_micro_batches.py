"""Batches in pieces: which losses allow it, and that training on pieces is training on the batch."""

import copy
import inspect
from dataclasses import replace

import pytest
import torch
import torch.multiprocessing as mp
from torch import nn

from recloss import backbones, losses
from recloss.backbones import MF
from recloss.interactions import Interactions, Segments
from recloss.losses import LOSSES, Batch, Loss
from recloss.losses.sl import sl
from recloss.soft_labels import SoftLabels
from recloss.training import FitSettings, fit

USERS, ITEMS, PAIRS, ROWS, N = 5, 30, 12, 23, 6
"""Sizes of a batch in which users and training pairs repeat, within pieces and across them."""

VARIANTS = [
    ("aatp", {"threshold": "monte_carlo"}), ("aatp", {"threshold": "exact"}), ("aatp", {"threshold": "smoothed"}),
    ("bsl", {"variant": "per_sample"}), ("ccl", {"neg_weight": 3.0}), ("drrl", {"solver": "bisect"}),
    ("drrl", {"scope": "row", "solver": "bisect"}), ("drrl", {"scope": "row", "solver": "closed_form"}),
    ("lambdaloss", {"ranks": "sampled"}), ("lambdaloss", {"variant": "ir_benchmark"}),
    ("lambdalossatk", {"ranks": "sampled"}), ("psl", {"activation": "arctan"}), ("psl", {"activation": "relu"}),
    ("rsatk", {"rank_scale": True}), ("sl", {"include_positive": True}), ("sl", {"reduce": "mean"}),
    ("sl", {"over": "all"}), ("sl", {"log_q": True}), ("slatk", {"threshold": "regression"}),
    ("slatk", {"threshold": "smoothed"}), ("smoothiatk", {"variant": "scalar"}), ("sogslatk", {"ema": 1.0}),
    ("songatk", {"threshold": "exact"}), ("talos", {"threshold": "exact"}), ("talos", {"threshold": "smoothed"}),
    ("talos", {"variant": "no_quantile", "threshold": "smoothed"}), ("talos", {"variant": "inner_temperature"}),
    ("talos", {"variant": "no_denominator"}),
]  # fmt: skip
CASES = [*((name, {}) for name in LOSSES), *VARIANTS]
"""Every loss, with what of its settings can matter here."""
PHASES = {"guidedrec": ("bce", "surrogate", "dcg", "fit"), "advinfonce": ("attack", "fit")}


def made(name: str, params: dict) -> Loss:
    sizes = {"n_users": USERS, "n_items": ITEMS, "n_pairs": PAIRS, "n_negatives": N}
    if "k" in inspect.signature(losses.get(name)).parameters:
        params = {"k": 4} | params
    loss = losses.build(name, params, **sizes, seed=0).double().train()
    if hasattr(loss, "threshold"):
        loss.threshold.value.data = torch.linspace(-0.5, 0.5, USERS, dtype=torch.float64)
    return loss


def batch(phase: str = "fit") -> Batch:
    draw = torch.Generator().manual_seed(1)

    def scores(*shape: int) -> torch.Tensor:
        return (2 * torch.rand(*shape, generator=draw, dtype=torch.float64) - 1).requires_grad_()

    def whole(high: int, *shape: int) -> torch.Tensor:
        return torch.randint(high, shape, generator=draw)

    lengths = 1 + whole(7, USERS)
    user = whole(USERS, ROWS)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths[user].cumsum(0)])
    pos, logits = scores(ROWS), scores(ROWS, ITEMS)
    own = scores(int(offsets[-1])).detach()
    own[offsets[:-1]] = pos.detach()
    return Batch(
        pos, scores(ROWS, N), phase,
        user=user, item=whole(ITEMS, ROWS), neg_item=whole(ITEMS, ROWS, N), pair=whole(PAIRS, ROWS),
        n_positives=lengths[user],
        positives=Segments(own, offsets), pos_rank=1 + whole(ITEMS, ROWS), neg_rank=1 + whole(ITEMS, ROWS, N),
        log_q=scores(ROWS, N).detach(), logits=logits,
        soft_targets=SoftLabels(
            Segments(whole(ITEMS // 3, 3 * ROWS) + 10 * torch.arange(3).repeat(ROWS), 3 * torch.arange(ROWS + 1)),
            scores(3 * ROWS).detach().abs(),
        ),
    )  # fmt: skip


def cut(whole: Batch, rows: slice) -> Batch:
    """Some of the rows of a batch; scores keep their graph."""
    fields = {name: value[rows] for name, value in vars(whole).items() if isinstance(value, torch.Tensor)}
    offsets = whole.positives.offsets[rows.start : rows.stop + 1]
    values = whole.positives.values[offsets[0] : offsets[-1]]
    soft = whole.soft_targets
    own = slice(3 * rows.start, 3 * rows.stop)
    soft = SoftLabels(
        Segments(soft.items.values[own], soft.items.offsets[: rows.stop - rows.start + 1]), soft.weights[own]
    )
    return replace(whole, **fields, positives=Segments(values, offsets - offsets[0]), soft_targets=soft)


def outcome(loss: Loss, whole: Batch, cuts: list[int]) -> list[torch.Tensor]:
    """Value, gradients and state after a batch that is given in the pieces between ``cuts``."""
    loss = copy.deepcopy(loss)
    value = torch.zeros((), dtype=torch.float64)
    for first, last in zip([0, *cuts], [*cuts, ROWS], strict=True):
        part = loss(cut(whole, slice(first, last))) * ((last - first) / ROWS)
        part.backward(inputs=[whole.pos, whole.neg, whole.logits, *loss.parameters()])
        value = value + part.detach()
    scores = [x.grad for x in (whole.pos, whole.neg, whole.logits)]
    state = [x for name, x in loss.state_dict().items() if name not in dict(loss.named_parameters())]
    found = [value, *scores, *(p.grad for p in loss.parameters()), *state]
    return [torch.zeros(()) if x is None else x for x in found]


def differences(name: str, params: dict, cuts: list[int]) -> list[float]:
    loss, largest = made(name, params), []
    for phase in PHASES.get(name, ("fit",)):
        left, right = outcome(loss, batch(phase), []), outcome(loss, batch(phase), cuts)
        largest.append(max(float((a - b).abs().max()) for a, b in zip(left, right, strict=True)))
    return largest


@pytest.mark.filterwarnings("ignore:.*is for cosines")
@pytest.mark.parametrize("cuts", [[1], [8, 16], list(range(1, ROWS))], ids=["uneven", "three", "rows"])
@pytest.mark.parametrize(("name", "params"), CASES)
def test_a_loss_says_whether_the_pieces_of_a_batch_add_up_to_it(name, params, cuts):
    difference = max(differences(name, params, cuts))
    assert difference < 1e-9 if made(name, params).per_row else difference > 1e-6


def test_those_that_do_not_are_known():
    together = {(name, *params.values()) for name, params in CASES if not made(name, params).per_row}
    assert {case for case in together if len(case) == 1} == {
        ("bsl",), ("drrl",), ("sogclr",), ("sogslatk",), ("song",), ("songatk",),
    }  # fmt: skip
    assert {case for case in together if "smoothed" in case} == {(n, "smoothed") for n in ("aatp", "slatk", "talos")}


def test_a_loss_has_to_say_it():
    assert not Loss.per_row


SETTINGS = FitSettings(
    lr=0.05, epochs=3, batch_size=61, negatives=8, valid_every=3, patience=9, metric="ndcg_5", cutoffs=(5,), seed=3
)


def planted() -> tuple[Interactions, Interactions]:
    """Users like the items of their group of three; every fifth of those is for validation."""
    liked = (torch.arange(40)[:, None] % 3 == torch.arange(30) % 3).nonzero()
    held_out = torch.arange(len(liked)) % 5 == 0
    return tuple(Interactions(*liked[rows].T, 40, 30) for rows in (~held_out, held_out))  # type: ignore[return-value]


def models(backbone: str, loss: str, train: Interactions) -> tuple[nn.Module, Loss]:
    sizes = {"n_users": train.n_users, "n_items": train.n_items, "n_pairs": len(train), "n_negatives": 8}
    params = {"k": 5} if "k" in inspect.signature(losses.get(loss)).parameters else {}
    params |= {"adv_every": 2} if loss == "advinfonce" else {}
    pair = backbones.build(backbone, {"dim": 8}, train, 0), losses.build(loss, params, **sizes, seed=0)
    return tuple(module.double() for module in pair)  # type: ignore[return-value]


RUNS = [
    *(("mf", name) for name in LOSSES if made(name, {}).per_row and "soft_targets" not in made(name, {}).needs),
    ("lightgcn", "talos"), ("xsimgcl", "psl"), ("simplex", "sl"), ("ncf", "bpr"),
]  # fmt: skip


@pytest.mark.parametrize(("backbone", "loss"), RUNS)
def test_training_in_micro_batches_is_training_in_batches(backbone, loss):
    train, valid = planted()
    whole, pieces = models(backbone, loss, train), models(backbone, loss, train)
    expected = fit(*whole, train, valid, SETTINGS)
    found = fit(*pieces, train, valid, SETTINGS, micro_batch=7)
    assert found.history[-1].loss == pytest.approx(expected.history[-1].loss, rel=1e-9)
    for left, right in zip(pieces, whole, strict=True):
        torch.testing.assert_close(left.state_dict(), right.state_dict(), rtol=1e-6, atol=1e-8)


class Watched(losses.SL):
    """Keeps the number of rows and the negatives it is given."""

    def __init__(self):
        super().__init__()
        self.needs = frozenset({"neg_item"})
        self.seen: list[torch.Tensor] = []

    def compute(self, batch: Batch):
        self.seen.append(batch.neg_item)
        return super().compute(batch)


def test_a_loss_sees_at_most_the_micro_batch_and_the_same_negatives():
    train, valid = planted()
    watched = [Watched(), Watched()]
    for loss, size in zip(watched, (None, 25), strict=True):
        torch.manual_seed(0)
        fit(MF(40, 30, dim=8), loss, train, valid, replace(SETTINGS, epochs=1), micro_batch=size)
    rows = [len(items) for items in watched[1].seen]
    assert rows[:3] == [25, 25, 11]
    assert max(rows) == 25
    assert torch.equal(*(torch.cat(loss.seen) for loss in watched))


@pytest.mark.parametrize(("name", "params"), [case for case in CASES if not made(*case).per_row])
def test_a_loss_whose_rows_belong_together_is_refused_by_name(name, params):
    train, valid = planted()
    loss = made(name, params)
    with pytest.raises(ValueError, match=f"{loss.title} looks at a batch as a whole: it cannot be trained in micro"):
        fit(MF(40, 30, dim=8), loss, train, valid, SETTINGS, micro_batch=8)


@pytest.mark.parametrize("size", [0, -1])
def test_a_micro_batch_without_rows_is_refused(size):
    train, valid = planted()
    with pytest.raises(ValueError, match=f"micro_batch must be at least 1, got {size}"):
        fit(MF(40, 30, dim=8), losses.SL(), train, valid, SETTINGS, micro_batch=size)


class WholeBatchLoss(Loss):
    """One who forgets to say anything."""

    name, title = "whole", "Whole"

    def compute(self, batch: Batch):
        return sl(batch.pos - batch.pos.mean(), batch.neg, 0.2).mean()


def test_a_loss_of_ones_own_is_refused_unless_it_says_per_row():
    train, valid = planted()
    with pytest.raises(ValueError, match="Whole looks at a batch as a whole"):
        fit(MF(40, 30, dim=8), WholeBatchLoss(), train, valid, SETTINGS, micro_batch=8)


SPREAD = [("xsimgcl", "talos"), ("mf", "talos"), ("mf", "sl")]


def _rank(rank, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{folder}/store", world_size=2, rank=rank)
    train, valid = planted()
    for backbone, loss in SPREAD:
        pair = models(backbone, loss, train)
        fit(*pair, train, valid, SETTINGS, micro_batch=7)
        torch.save([module.state_dict() for module in pair], folder / f"{backbone}-{loss}-{rank}.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def test_two_processes_with_micro_batches_train_the_model_of_one_without(tmp_path):
    mp.spawn(_rank, (tmp_path,), nprocs=2)
    train, valid = planted()
    for backbone, loss in SPREAD:
        alone = models(backbone, loss, train)
        fit(*alone, train, valid, SETTINGS)
        for rank in range(2):
            found = torch.load(tmp_path / f"{backbone}-{loss}-{rank}.pt")
            for state, module in zip(found, alone, strict=True):
                torch.testing.assert_close(state, module.state_dict(), rtol=1e-6, atol=1e-8)
