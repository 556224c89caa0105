"""The epoch loop: against a hand-written step, resumed, over processes, with losses of several phases."""

import inspect
import shutil
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch import nn

from recloss import backbones, losses
from recloss.backbones import MF
from recloss.checkpoints import load_checkpoint
from recloss.interactions import Interactions
from recloss.loop import DivergedError
from recloss.losses import LOSSES, Batch, Loss, Phase
from recloss.losses.sl import sl
from recloss.randomness import permutation, stream_key
from recloss.sampling import UniformNegatives
from recloss.training import _RANKS_BY_COUNTING, FIELDS, FitSettings, Scored, fit

SETTINGS = FitSettings(
    lr=0.05, epochs=6, batch_size=64, negatives=8, valid_every=2, patience=9, metric="ndcg_5", cutoffs=(5,), seed=3
)
OF_PAIRS = [name for name, cls in LOSSES.items() if "soft_targets" not in cls.needs]
"""Losses that need nothing but the pairs."""
MODELS = [("lightgcn", "slatk"), ("lightgcn", "psl"), *(("mf", name) for name in OF_PAIRS)]
PARAMS = {"refresh": 2, "samples": 20, "k": 5, "threshold_lr": 0.01, "adv_every": 2, "adv_epochs": 2}


def planted(n_users: int = 40, n_items: int = 30) -> tuple[Interactions, Interactions]:
    """Users like the items of their group of three; every fifth of those is for validation."""
    generator = torch.Generator().manual_seed(0)
    liked = torch.rand(n_users, n_items, generator=generator) < 0.05
    liked |= (torch.arange(n_users)[:, None] % 3 == torch.arange(n_items) % 3) & (
        torch.rand(n_users, n_items, generator=generator) < 0.8
    )
    user, item = liked.nonzero(as_tuple=True)
    held_out = torch.arange(len(user)) % 5 == 0
    return tuple(Interactions(user[rows], item[rows], n_users, n_items) for rows in (~held_out, held_out))  # type: ignore[return-value]


def models(backbone: str, loss: str, train: Interactions) -> tuple[backbones.Backbone, Loss]:
    sizes = {"n_users": train.n_users, "n_items": train.n_items, "n_pairs": len(train), "n_negatives": 8}
    params = {key: value for key, value in PARAMS.items() if key in inspect.signature(losses.get(loss)).parameters}
    pair = backbones.build(backbone, {"dim": 8}, train, 0), losses.build(loss, params, **sizes, seed=0)
    # gradients of NCF's MLPs vanish up to rounding, of which Adam makes whole steps
    return tuple(module.double() for module in pair) if backbone == "ncf" else pair  # type: ignore[return-value]


def same_state(left: nn.Module, right: nn.Module) -> bool:
    pairs = zip(left.state_dict().items(), right.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


def what_happened(result):
    return [(v.epoch, v.loss, v.metrics) for v in result.history], result.best, result.best_epoch


def test_one_epoch_equals_the_step_written_by_hand(tmp_path):
    train, valid = planted()
    settings = replace(SETTINGS, epochs=1, batch_size=len(train), weight_decay=0.01)
    backbone, loss = MF(train.n_users, train.n_items, dim=8), losses.SL(tau=0.2)
    by_hand = {name: table.detach().clone().requires_grad_() for name, table in backbone.named_parameters()}
    fit(backbone, loss, train, valid, settings)

    order = permutation(len(train), stream_key(3, 1, "order 0"))
    users, items = train.user[order], train.item[order]
    key = stream_key(3, 1, "negatives 0")
    negatives = UniformNegatives(train).sample(users, torch.arange(len(order)), settings.negatives, key)
    u, v = (F.normalize(by_hand[name], dim=1) for name in ("user", "item"))
    pos, neg = (u[users] * v[items]).sum(1), (u[users][:, None] * v[negatives]).sum(2)
    optimizer = torch.optim.Adam(by_hand.values(), lr=settings.lr, weight_decay=0.01)
    sl(pos, neg, 0.2).mean().backward()
    optimizer.step()
    for name, table in backbone.named_parameters():
        torch.testing.assert_close(table, by_hand[name], rtol=1e-5, atol=1e-5)


def test_one_epoch_over_all_items_equals_the_step_written_by_hand():
    train, valid = planted()
    settings = replace(SETTINGS, epochs=1, batch_size=len(train), weight_decay=0.01)
    backbone, loss = MF(train.n_users, train.n_items, dim=8), losses.SL(tau=0.2, over="all")
    by_hand = {name: table.detach().clone().requires_grad_() for name, table in backbone.named_parameters()}
    result = fit(backbone, loss, train, valid, settings)

    u, v = (F.normalize(by_hand[name], dim=1) for name in ("user", "item"))
    scores = (u @ v.T)[train.user]
    own = F.one_hot(train.item, train.n_items).bool()
    others = scores[~own].view(len(train), train.n_items - 1)
    optimizer = torch.optim.Adam(by_hand.values(), lr=settings.lr, weight_decay=0.01)
    value = ((others - scores[own][:, None]) / 0.2).exp().sum(1).log().mean()
    value.backward()
    optimizer.step()
    assert result.history[-1].loss == pytest.approx(value.item(), rel=1e-5)
    for name, table in backbone.named_parameters():
        torch.testing.assert_close(table, by_hand[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("backbone", "loss"), MODELS)
def test_resuming_at_every_validation_equals_the_uninterrupted_run_to_the_bit(backbone, loss, tmp_path):
    train, valid = planted()
    whole = models(backbone, loss, train)
    file = tmp_path / "checkpoint.pt"
    copies = []

    def keep(validation):
        copies.append(shutil.copy(file, tmp_path / f"{validation.epoch}.pt"))

    expected = fit(*whole, train, valid, SETTINGS, checkpoint=file, on_validation=keep)
    assert len(copies) == 3
    for copy in copies:
        resumed = models(backbone, loss, train)
        assert what_happened(fit(*resumed, train, valid, SETTINGS, checkpoint=copy)) == what_happened(expected)
        assert same_state(resumed[0], whole[0])
        assert same_state(resumed[1], whole[1])
        assert _bits(load_checkpoint(copy)["optimizer"]) == _bits(load_checkpoint(file)["optimizer"])


def _bits(state):
    if isinstance(state, torch.Tensor):
        return state.numpy().tobytes()
    if isinstance(state, dict):
        return {key: _bits(value) for key, value in state.items()}
    return [_bits(value) for value in state] if isinstance(state, list | tuple) else state


class DropoutMF(MF):
    """A backbone whose dropout draws from torch's global generator."""

    def embed(self):
        return F.dropout(self.user, 0.5, self.training), F.dropout(self.item, 0.5, self.training)


def test_a_module_that_draws_from_the_global_generator_resumes_to_the_bit(tmp_path):
    train, valid = planted()
    torch.manual_seed(0)
    whole = DropoutMF(train.n_users, train.n_items, dim=8)
    start = {name: table.clone() for name, table in whole.state_dict().items()}
    file, copy = tmp_path / "checkpoint.pt", tmp_path / "copy.pt"
    fit(
        whole, losses.SL(), train, valid, SETTINGS, checkpoint=file,
        on_validation=lambda v: shutil.copy(file, copy) if v.epoch == 2 else None,
    )  # fmt: skip
    resumed = DropoutMF(train.n_users, train.n_items, dim=8)
    resumed.load_state_dict(start)
    torch.manual_seed(99)
    before = torch.get_rng_state()
    fit(resumed, losses.SL(), train, valid, SETTINGS, checkpoint=copy)
    assert same_state(resumed, whole)
    assert torch.equal(torch.get_rng_state(), before), "training must leave the global generator alone"


def test_more_validations_change_no_number(tmp_path):
    train, valid = planted()
    finals = []
    for valid_every in (1, 3, 6):
        backbone, loss = models("lightgcn", "talos", train)
        file = tmp_path / f"{valid_every}.pt"
        fit(backbone, loss, train, valid, replace(SETTINGS, valid_every=valid_every), checkpoint=file)
        finals.append(_bits(load_checkpoint(file)["backbone"]))
    assert finals[0] == finals[1] == finals[2]


def test_the_seed_decides_the_run():
    train, valid = planted()
    runs = []
    for seed in (3, 3, 4):
        backbone, loss = models("mf", "talos", train)
        fit(backbone, loss, train, valid, replace(SETTINGS, seed=seed))
        runs.append(backbone.user.detach().clone())
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def _rank(rank, world, folder, runs):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{folder}/store", world_size=world, rank=rank)
    train, valid = planted()
    for backbone, loss, batch_size in runs:
        pair = models(backbone, loss, train)
        file = folder / f"{backbone}-{loss}.pt"
        result = fit(*pair, train, valid, replace(SETTINGS, batch_size=batch_size), checkpoint=file)
        states = pair[0].state_dict(), pair[1].state_dict()
        torch.save((*states, what_happened(result)), folder / f"{backbone}-{loss}-{rank}.pt")
    torch.distributed.barrier()  # a rank that leaves while another still talks can abort it
    torch.distributed.destroy_process_group()


RUNS = [
    ("lightgcn", "slatk", 64), ("xsimgcl", "talos", 64), ("simplex", "psl", 61), ("ncf", "bpr", 61),
    *(("mf", name, 61) for name in OF_PAIRS),
]  # fmt: skip


def same_moments(left, right):
    """The optimiser's states of two checkpoints are equal up to rounding."""
    left, right = (load_checkpoint(file)["optimizer"] for file in (left, right))
    assert left["param_groups"] == right["param_groups"]
    torch.testing.assert_close(left["state"], right["state"], rtol=1e-3, atol=1e-7)


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """The folder in which two processes have trained every one of RUNS."""
    folder = tmp_path_factory.mktemp("ranks")
    mp.spawn(_rank, (2, folder, RUNS), nprocs=2)
    return folder


@pytest.mark.parametrize(("backbone", "loss", "batch_size"), RUNS)
def test_two_processes_train_the_model_of_one(backbone, loss, batch_size, two_processes, tmp_path):
    train, valid = planted()
    alone, file = models(backbone, loss, train), tmp_path / "checkpoint.pt"
    expected = fit(*alone, train, valid, replace(SETTINGS, batch_size=batch_size), checkpoint=file)
    ranks = [torch.load(two_processes / f"{backbone}-{loss}-{rank}.pt") for rank in range(2)]
    assert _bits(ranks[0][:2]) == _bits(ranks[1][:2]), "ranks must agree to the bit"
    same_moments(two_processes / f"{backbone}-{loss}.pt", file)
    for states in ranks:
        for state, module in zip(states[:2], alone, strict=True):
            for name, value in module.state_dict().items():
                torch.testing.assert_close(state[name], value, rtol=1e-4, atol=1e-5)
        for seen, wanted in zip(states[2][0], what_happened(expected)[0], strict=True):
            assert seen[0] == wanted[0]
            assert seen[1] == pytest.approx(wanted[1], rel=1e-5)
            assert seen[2] == pytest.approx(wanted[2], rel=1e-6)


def test_a_batch_smaller_than_the_number_of_processes(tmp_path):
    train, valid = planted()
    size = len(train) - 1  # the last batch of an epoch is a single positive: one rank has nothing
    alone = models("mf", "talos", train)
    fit(*alone, train, valid, replace(SETTINGS, batch_size=size))
    mp.spawn(_rank, (2, tmp_path, [("mf", "talos", size)]), nprocs=2)
    other = torch.load(tmp_path / "mf-talos-1.pt")[0]["user"]
    torch.testing.assert_close(other, alone[0].user.detach(), rtol=1e-4, atol=1e-5)


def skewed() -> tuple[Interactions, Interactions]:
    """One user has 100 of the 140 training pairs; of three ranks, the second owns nobody."""
    degrees = torch.tensor([5, 5, 5, 5, 100, 5, 5, 5, 5, 0])
    user = torch.arange(10).repeat_interleave(degrees)
    item = torch.cat(
        [torch.randperm(120, generator=torch.Generator().manual_seed(u))[:n] for u, n in enumerate(degrees)]
    )
    return Interactions(user, item, 10, 120), Interactions(torch.arange(9), 119 - torch.arange(9), 10, 120)


class MixedUsers(MF):
    """Says like MF that a user's row moves by the user's rows alone, which is not true of it."""

    def embed(self):
        return self.user + self.user.mean(0), self.item


def _rank_of_three(rank, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{folder}/store", world_size=3, rank=rank)
    for loss in SKEWED:
        (train, valid), file = skewed(), folder / f"{loss}.pt"
        whole, resumed = models("mf", loss, train), models("mf", loss, train)

        def keep(validation, file=file):
            if rank == 0 and validation.epoch == 2:
                shutil.copy(file, file.with_suffix(".2"))

        with exchanged() as sizes:
            fit(*whole, train, valid, SKEWED_SETTINGS, checkpoint=file, on_validation=keep)
        torch.distributed.barrier()
        if rank == 0:
            shutil.copy(file.with_suffix(".2"), file.with_suffix(".resumed"))
        torch.distributed.barrier()
        fit(*resumed, train, valid, SKEWED_SETTINGS, checkpoint=file.with_suffix(".resumed"))
        torch.distributed.barrier()
        state = [module.state_dict() for module in (*whole, *resumed)]
        torch.save((state, sizes), folder / f"{loss}-{rank}.pt")
    train, valid = planted()
    with pytest.raises(ValueError, match=r"MixedUsers.user is in user_parameters, but other users' rows move it"):
        fit(MixedUsers(train.n_users, train.n_items, dim=8), losses.SL(), train, valid, SETTINGS)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


@contextmanager
def exchanged():
    """The shapes of all tensors summed over the ranks, and of all sent by their owners."""
    sizes = {"all_reduce": Counter(), "broadcast": Counter()}
    with pytest.MonkeyPatch.context() as patch:
        for name, count in sizes.items():
            patch.setattr(torch.distributed, name, _counted(getattr(torch.distributed, name), count))
        yield sizes


def _counted(call, count):
    def counted(tensor, *args, **kwargs):
        count[tuple(tensor.shape)] += 1
        return call(tensor, *args, **kwargs)

    return counted


SKEWED = ["sl", "talos", "advinfonce", "bsl"]
SKEWED_SETTINGS = replace(SETTINGS, batch_size=23, weight_decay=0.01)


@pytest.fixture(scope="module")
def three_processes(tmp_path_factory):
    """The folder in which three processes have trained, and resumed, MF with every loss of SKEWED."""
    folder = tmp_path_factory.mktemp("three")
    mp.spawn(_rank_of_three, (folder,), nprocs=3)
    return folder


@pytest.mark.parametrize("loss", SKEWED)
def test_three_processes_of_which_one_owns_most_and_one_nobody(loss, three_processes, tmp_path):
    train, valid = skewed()
    alone, file = models("mf", loss, train), tmp_path / "checkpoint.pt"
    fit(*alone, train, valid, SKEWED_SETTINGS, checkpoint=file)
    ranks = [torch.load(three_processes / f"{loss}-{rank}.pt")[0] for rank in range(3)]
    assert _bits(ranks[0]) == _bits(ranks[1]) == _bits(ranks[2])
    for state, module in zip(ranks[0], alone, strict=False):
        torch.testing.assert_close(state, module.state_dict(), rtol=1e-4, atol=1e-5)
    same_moments(three_processes / f"{loss}.pt", file)


@pytest.mark.parametrize("loss", SKEWED)
def test_three_processes_resume_to_the_bit_and_one_goes_on_with_their_checkpoint(loss, three_processes):
    whole, whole_loss, resumed, resumed_loss = torch.load(three_processes / f"{loss}-0.pt")[0]
    assert _bits([whole, whole_loss]) == _bits([resumed, resumed_loss])
    files = [load_checkpoint(three_processes / f"{loss}.{end}")["optimizer"] for end in ("pt", "resumed")]
    assert _bits(files[0]) == _bits(files[1])
    train, valid = skewed()
    alone = models("mf", loss, train)
    fit(*alone, train, valid, SKEWED_SETTINGS, checkpoint=three_processes / f"{loss}.2")
    torch.testing.assert_close(alone[0].state_dict(), whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("loss", "rows"), [("sl", [(8,)]), ("talos", [(8,), ()])])
def test_what_has_a_row_per_user_is_sent_after_epochs_and_never_summed(loss, rows, three_processes):
    train, valid = skewed()
    steps = -(-len(train) // SKEWED_SETTINGS.batch_size)
    for rank in range(3):
        summed, sent = torch.load(three_processes / f"{loss}-{rank}.pt")[1].values()
        in_evaluation = {shape for shape in summed if shape[0] == len(valid)}
        of_training = {shape: count for shape, count in summed.items() if shape not in in_evaluation}
        items, losses_of_an_epoch = (train.n_items, 8), (steps,)
        assert of_training == {items: 6 * steps, losses_of_an_epoch: 6}
        times = 6 + 2 * 3  # rows after each epoch, two moments for each checkpoint
        assert sent == {(5, *row): 2 * times for row in rows}, "two ranks own five users each, the third nobody"


class AdversarialLoss(Loss):
    """A softmax loss whose table of item weights ascends in a pass of its own in even epochs."""

    name, title, needs = "adversarial", "Adversarial", frozenset({"user"})

    def __init__(self, n_users: int):
        super().__init__()
        self.hardness = nn.Parameter(torch.zeros(n_users))
        self.seen: list[str] = []

    def compute(self, batch: Batch):
        self.seen.append(batch.phase)
        return (sl(batch.pos, batch.neg, 0.2) * (1 + self.hardness[batch.user])).mean()

    def parameter_groups(self, lr: float):
        return [{"name": "adversary", "params": [self.hardness], "lr": lr / 10, "weight_decay": 0.0, "maximize": True}]

    def passes(self, epoch: int):
        ordinary = [Phase("fit", frozenset({"model"}))]
        return [[Phase("attack", frozenset({"adversary"}))], ordinary] if epoch % 2 == 0 else [ordinary]


def test_a_loss_with_an_adversarial_pass_needs_nothing_of_the_loop():
    train, valid = planted()
    backbone, loss = MF(train.n_users, train.n_items, dim=8), AdversarialLoss(train.n_users)
    snapshots = []
    settings = replace(SETTINGS, epochs=2, batch_size=len(train), valid_every=1)
    fit(
        backbone, loss, train, valid, settings, on_validation=lambda v: snapshots.append(loss.hardness.detach().clone())
    )
    assert loss.seen == ["fit", "attack", "fit"]
    assert torch.equal(snapshots[0], torch.zeros(train.n_users)), "the adversary rests in the ordinary pass"
    # every user's loss is positive here, so ascent raises every weight by Adam's first step, the learning rate
    torch.testing.assert_close(snapshots[1], torch.full((train.n_users,), settings.lr / 10), rtol=1e-4, atol=0)


class SurrogateLoss(Loss):
    """Two steps on each batch: fit a scalar to the mean margin, then the model to the loss."""

    name, title = "surrogate", "Surrogate"

    def __init__(self):
        super().__init__()
        self.margin = nn.Parameter(torch.tensor(5.0))

    def compute(self, batch: Batch):
        if batch.phase == "surrogate":
            return (self.margin - (batch.pos - batch.neg.mean(1)).mean().detach()) ** 2
        return -batch.pos.mean() + 0 * self.margin

    def parameter_groups(self, lr: float):
        return [{"name": "surrogate", "params": [self.margin], "lr": 0.1, "weight_decay": 0.0}]

    def passes(self, epoch: int):
        return [[Phase("surrogate", frozenset({"surrogate"})), Phase("fit", frozenset({"model"}))]]


def test_a_loss_with_two_steps_on_each_batch():
    train, valid = planted()
    backbone, loss = MF(train.n_users, train.n_items, dim=8), SurrogateLoss()
    users = backbone.user.detach().clone()
    fit(backbone, loss, train, valid, replace(SETTINGS, epochs=1, batch_size=len(train)))
    assert float(loss.margin.detach()) == pytest.approx(4.9, abs=1e-5), "one Adam step of 0.1 towards the margin"
    assert (backbone.user.detach() - users).abs().max() == pytest.approx(SETTINGS.lr, rel=1e-2), "one step of the model"


class BrokenLoss(losses.SL):
    """NaN in the fifth batch."""

    def compute(self, batch: Batch):
        self.calls = getattr(self, "calls", 0) + 1
        return super().compute(batch) * (float("nan") if self.calls == 5 else 1)


def test_divergence_names_the_epoch_and_step():
    train, valid = planted()
    steps = -(-len(train) // 64)
    with pytest.raises(DivergedError, match=rf"the loss is nan in epoch {4 // steps + 1}, step {4 % steps + 1}"):
        fit(MF(train.n_users, train.n_items, dim=8), BrokenLoss(), train, valid, SETTINGS)


class FlatLoss(losses.SL):
    """No gradient at all."""

    def compute(self, batch: Batch):
        return super().compute(batch) * 0


def test_training_stops_when_the_patience_ends():
    train, valid = planted()
    settings = replace(SETTINGS, epochs=50, patience=3)
    result = fit(MF(train.n_users, train.n_items, dim=8), FlatLoss(), train, valid, settings)
    assert [v.epoch for v in result.history] == [2, 4, 6, 8]
    assert result.best_epoch == 2


def test_the_best_state_is_left_and_the_last_epoch_is_validated():
    train, valid = planted()
    backbone, loss = models("mf", "psl", train)
    kept = {}
    result = fit(
        backbone, loss, train, valid, replace(SETTINGS, epochs=7, lr=0.5),
        on_validation=lambda v: kept.update({v.epoch: backbone.user.detach().clone()}),
    )  # fmt: skip
    assert sorted(kept) == [2, 4, 6, 7]
    assert torch.equal(backbone.user, kept[result.best_epoch])
    assert result.best == max(v.metrics["ndcg_5"] for v in result.history)


@pytest.mark.parametrize("loss", OF_PAIRS)
def test_every_loss_learns_the_planted_groups(loss):
    train, valid = planted()
    backbone, module = models("mf", loss, train)
    result = fit(backbone, module, train, valid, replace(SETTINGS, epochs=30, valid_every=30))
    random_recall = 5 / 24  # five places among the items that are not training positives
    assert result.history[-1].metrics["recall_5"] > 2 * random_recall


def test_a_damaged_checkpoint_and_one_of_another_run_are_refused(tmp_path):
    train, valid = planted()
    file = tmp_path / "checkpoint.pt"
    fit(*models("mf", "sl", train), train, valid, SETTINGS, checkpoint=file)
    with pytest.raises(ValueError, match="of a run with another lr, seed"):
        fit(*models("mf", "sl", train), train, valid, replace(SETTINGS, lr=1.0, seed=7), checkpoint=file)
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ValueError, match="the checkpoint is damaged"):
        fit(*models("mf", "sl", train), train, valid, SETTINGS, checkpoint=file)


def test_a_need_that_the_loop_does_not_offer_is_named():
    train, valid = planted()
    loss = losses.SL()
    loss.needs = frozenset({"soft_labels"})  # type: ignore[misc]
    with pytest.raises(ValueError, match="SL needs soft_labels"):
        fit(MF(train.n_users, train.n_items, dim=8), loss, train, valid, SETTINGS)


def test_soft_targets_have_to_be_given():
    train, valid = planted()
    with pytest.raises(ValueError, match=r"^DeSoRec needs soft_targets: pass fit\(\.\.\., soft_labels=\.\.\.\)$"):
        fit(MF(train.n_users, train.n_items, dim=8), losses.DeSoRec(), train, valid, SETTINGS)


class RanksWatched(Loss):
    """Compares the ranks it is given with a count over all items, and keeps them; moves nothing."""

    name, title, similarity = "watched", "Watched", "dot"
    needs = frozenset({"pos_rank", "neg_rank", "user", "item", "neg_item"})

    def __init__(self, backbone: MF):
        super().__init__()
        self.scores = (backbone.user @ backbone.item.T).detach()
        self.tied = self.rows = 0

    def compute(self, batch: Batch):
        own = torch.cat([batch.item[:, None], batch.neg_item], 1)
        for user, items, ranks in zip(
            batch.user.tolist(), own.tolist(), torch.cat([batch.pos_rank[:, None], batch.neg_rank], 1), strict=True
        ):
            scores = self.scores[user].tolist()
            assert ranks.tolist() == [1 + sum(other > scores[item] for other in scores) for item in items]
            self.tied += sum(scores.count(scores[item]) > 1 for item in items)
            self.rows += 1
        return 0 * batch.pos.sum()


@pytest.mark.parametrize("negatives", [1, _RANKS_BY_COUNTING - 1, _RANKS_BY_COUNTING, 40])
def test_ranks_are_counted_among_all_items_and_ties_share_one(negatives):
    train, valid = planted()
    backbone = MF(train.n_users, train.n_items, dim=2)
    generator = torch.Generator().manual_seed(0)
    for table in backbone.parameters():
        table.data = torch.randint(-2, 3, table.shape, generator=generator).float()
    loss = RanksWatched(backbone)
    fit(backbone, loss, train, valid, replace(SETTINGS, epochs=1, valid_every=1, negatives=negatives))
    assert loss.rows == len(train)
    assert loss.tied > len(train)


@pytest.mark.parametrize("repeats", [1, _RANKS_BY_COUNTING])
def test_golden_ranks(golden, repeats):
    """The golden's scores are the users' embeddings, unit vectors the items'; few columns are counted, many sorted."""
    case = golden("lambda_ranks")
    inputs = case["inputs"]
    scores = torch.tensor(inputs["scores"])
    items = torch.arange(scores.shape[1]).expand(2, -1)
    pairs = Interactions(torch.tensor([0, 1]), torch.tensor(inputs["pos_item"]), 2, 6)
    rows, sampler = torch.arange(2), UniformNegatives(pairs)
    pos, neg = torch.tensor(inputs["pos_item"]), torch.tensor(inputs["neg_item"])[:, None]
    scored = Scored(rows, pos, neg.repeat(1, repeats), pairs, sampler, scores, torch.eye(6))
    assert FIELDS["pos_rank"](scored).tolist() == case["pos_rank"]
    assert FIELDS["neg_rank"](scored).tolist() == [[rank] * repeats for rank in case["neg_rank"]]
    everything = Scored(rows, pos, items.repeat(1, repeats), pairs, sampler, scores, torch.eye(6))
    assert FIELDS["neg_rank"](everything)[:, :6].tolist() == case["ranks"]


def test_hooks_see_the_model_as_it_is_at_the_start_of_each_epoch():
    train, valid = planted()
    backbone, loss = MF(train.n_users, train.n_items, dim=8), losses.SL()
    differences, embeddings = [], []

    def on_epoch_start(context):
        users = torch.arange(train.n_users)
        u, v = (F.normalize(table.detach(), dim=1) for table in backbone.embed())
        embeddings.append(u.clone())
        parts = torch.cat([context.scores(users[:7]), context.scores(users[7:])])
        differences.append(float((parts - u @ v.T).abs().max()))
        assert not parts.requires_grad
        assert backbone.training

    loss.on_epoch_start = on_epoch_start
    fit(backbone, loss, train, valid, replace(SETTINGS, epochs=3))
    assert max(differences) < 1e-6
    assert not torch.equal(embeddings[0], embeddings[1])
