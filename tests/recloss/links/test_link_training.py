"""Training and evaluation of links: what a batch sees, what is drawn, sameness to the bit, and the ranks."""

import math
import re
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from recloss import losses
from recloss.errors import InputError
from recloss.links import GCN, Links, build, edge_ranks, evaluate_links, fit_links
from recloss.links.training import CLIP, FIELDS
from recloss.loop import DivergedError, FitSettings
from recloss.losses import LOSSES, SL, Batch, Loss, SLatK, Talos
from recloss.thresholds import THRESHOLDS

SETTINGS = FitSettings(
    lr=0.02, epochs=4, batch_size=16, negatives=5, valid_every=2, metric="mrr", cutoffs=(3,), seed=7
)  # fmt: skip
USABLE = [name for name in LOSSES if name not in {
    "ce", "desorec", "labelsmoothing", "lambdaloss", "lambdalossatk", "lambdarank", "softlabels",
}]  # fmt: skip


def loss_of(name: str, links: Links, **params) -> Loss:
    sizes = {"n_users": links.n_nodes, "n_items": links.n_nodes, "n_pairs": len(links.neighbours), "n_negatives": 5}
    return losses.build(name, params, **sizes, seed=1)


def trained(links: Links, name: str = "sl", settings: FitSettings = SETTINGS, decoder: str = "dot", **kwargs):
    gcn = build("gcn", {"hidden": 8, "decoder": decoder, "decoder_layers": 2}, links, seed=3)
    loss = loss_of(name, links, **({"k": 3} if name in ("slatk", "talos") else {}))
    return gcn, loss, fit_links(gcn, loss, links, settings, **kwargs)


class Spy(Loss):
    """Keeps what it is given."""

    name, title, similarity = "spy", "Spy", "dot"
    needs = frozenset(FIELDS)

    def __init__(self):
        super().__init__()
        self.seen: list[Batch] = []

    def compute(self, batch):
        self.seen.append(batch)
        return (batch.neg.mean(1) - batch.pos).mean()


class SpyGCN(GCN):
    """Keeps the vectors that are scored."""

    def embed(self, without: Tensor | None = None) -> Tensor:
        z = super().embed(without)
        if without is not None:
            self.without, self.z = without, z.detach()
        return z


def test_a_batch_is_scored_on_the_graph_without_its_own_edges(some_links):
    links = some_links()
    torch.manual_seed(0)
    gcn, spy = SpyGCN(links, hidden=4, dropout=0.0), Spy()
    settings = replace(SETTINGS, epochs=1, valid_every=1, batch_size=1000, lr=1e-12)
    batches = []
    half = replace(settings, batch_size=len(links.neighbours) // 2)

    class Checking(Spy):
        def compute(self, batch):
            own = {tuple(sorted(e)) for e in zip(batch.user.tolist(), batch.item.tolist(), strict=True)}
            left = [e for e in links.train.tolist() if tuple(e) not in own]
            torch.manual_seed(0)
            never = GCN(replace(links, train=torch.tensor(left).view(-1, 2)), hidden=4, dropout=0.0)
            never.load_state_dict(gcn.state_dict())
            assert torch.equal(gcn.z, never.embed())
            expected = (gcn.z[batch.user] * gcn.z[batch.item]).sum(1)
            torch.testing.assert_close(batch.pos.detach(), expected)
            of_negatives = (gcn.z[batch.user][:, None] * gcn.z[batch.neg_item]).sum(2)
            torch.testing.assert_close(batch.neg.detach(), of_negatives)
            batches.append(len(left))
            return super().compute(batch)

    fit_links(gcn, Checking(), links, half)
    assert len(batches) >= 2
    assert 0 < max(batches) < len(links.train)
    fit_links(gcn, spy, links, settings)
    assert torch.equal(gcn.embed(gcn.without), gcn.embed(links.train))


def test_batches_hold_both_directions_once_and_negatives_are_neither_linked_nor_the_source(some_links):
    links = some_links()
    spy = Spy()
    fit_links(GCN(links, hidden=4), spy, links, replace(SETTINGS, epochs=2))
    neighbours = links.neighbours
    linked = {(u, v) for u, v in zip(neighbours.user.tolist(), neighbours.item.tolist(), strict=True)}
    per_epoch = math.ceil(len(linked) / 16)
    orders = []
    for epoch in (spy.seen[:per_epoch], spy.seen[per_epoch:]):
        pairs = [p for b in epoch for p in zip(b.user.tolist(), b.item.tolist(), strict=True)]
        assert sorted(pairs) == sorted(linked)
        orders.append(pairs)
    assert orders[0] != orders[1]
    drawn = set()
    for batch in spy.seen:
        assert batch.neg_item.shape == (len(batch.user), 5)
        for u, row in zip(batch.user.tolist(), batch.neg_item.tolist(), strict=True):
            assert not any((u, v) in linked or u == v for v in row)
            drawn |= {tuple(sorted((u, v))) for v in row}
        assert torch.equal(neighbours.user[batch.pair], batch.user)
        assert torch.equal(neighbours.item[batch.pair], batch.item)
        assert torch.equal(batch.n_positives, neighbours.degrees[batch.user])
        assert not batch.positives.values.requires_grad
        for b in range(len(batch.user)):
            own = batch.positives.values[batch.positives.offsets[b] : batch.positives.offsets[b + 1]]
            place = neighbours.of(batch.user[b : b + 1]).values.tolist().index(int(batch.item[b]))
            assert len(own) == batch.n_positives[b]
            torch.testing.assert_close(own[place], batch.pos[b].detach())
    assert drawn & {tuple(e) for e in links.test.tolist()}, "test edges are not known, so they are drawn too"


@pytest.mark.parametrize("name", USABLE)
@pytest.mark.parametrize("decoder", ["dot", "mlp"])
def test_every_usable_loss_trains_to_the_same_bits_again(some_links, name, decoder):
    links = some_links()
    settings = replace(SETTINGS, epochs=2, valid_every=2, batch_size=64)
    first, loss, result = trained(links, name, settings, decoder)
    again, _, other = trained(links, name, settings, decoder)
    assert [v.loss for v in result.history] == [v.loss for v in other.history]
    assert [v.metrics for v in result.history] == [v.metrics for v in other.history]
    for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    fresh = build("gcn", {"hidden": 8, "decoder": decoder, "decoder_layers": 2}, links, seed=3)
    assert not torch.equal(first.weights[0], fresh.weights[0])
    assert all(bool(p.isfinite().all()) for p in loss.parameters())


@pytest.mark.parametrize("name", sorted(set(LOSSES) - set(USABLE)))
def test_other_losses_are_refused_by_name(some_links, name):
    links = some_links()
    with pytest.raises(
        InputError, match=f"^{re.escape(LOSSES[name].title)} needs .*, which training on links does not offer$"
    ):
        trained(links, name)


@pytest.mark.parametrize("over", [{"over": "all"}, {"log_q": True}])
def test_a_variant_that_reads_more_is_refused(some_links, over):
    links = some_links()
    with pytest.raises(InputError, match="SL needs log"):
        fit_links(GCN(links, hidden=4), SL(**over), links, SETTINGS)


@pytest.mark.parametrize("name", ["bce", "slatk", "talos", "advinfonce"])
@pytest.mark.parametrize("decoder", ["dot", "mlp"])
def test_a_resumed_run_equals_an_uninterrupted_one_to_the_bit(some_links, tmp_path, name, decoder):
    links, settings = some_links(), replace(SETTINGS, epochs=6, batch_size=64)

    class StopError(Exception):
        pass

    def stop(validation):
        if validation.epoch == 4:
            raise StopError

    whole, whole_loss, expected = trained(links, name, settings, decoder)
    with pytest.raises(StopError):
        trained(links, name, settings, decoder, checkpoint=tmp_path / "c.pt", on_validation=stop)
    torch.manual_seed(99)
    resumed, resumed_loss, result = trained(links, name, settings, decoder, checkpoint=tmp_path / "c.pt")
    assert [v.epoch for v in result.history] == [2, 4, 6]
    assert [(v.loss, v.metrics) for v in result.history] == [(v.loss, v.metrics) for v in expected.history]
    for module, other in ((whole, resumed), (whole_loss, resumed_loss)):
        for a, b in zip(module.state_dict().values(), other.state_dict().values(), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("name", ["bce", "sl", "slatk", "talos"])
def test_links_within_blocks_are_learned(block_links, name):
    links = block_links()
    settings = replace(SETTINGS, epochs=20, valid_every=10, lr=0.05, negatives=10, batch_size=64)
    gcn = build("gcn", {"hidden": 16, "dropout": 0.0}, links, seed=0)
    before = evaluate_links(gcn, "cosine", links, "test", (3,)).mean()["mrr"]
    loss = loss_of(name, links, **({"k": 3, "refresh": 2} if name in ("slatk", "talos") else {}))
    fit_links(gcn, loss, links, settings)
    after = evaluate_links(gcn, loss.similarity, links, "test", (3,)).mean()["mrr"]
    assert after > 1.3 * before
    assert after > 0.35


@pytest.mark.parametrize("kind", THRESHOLDS)
@pytest.mark.parametrize("decoder", ["dot", "mlp"])
def test_thresholds_are_learned_per_node(some_links, kind, decoder):
    links = some_links()
    gcn = build("gcn", {"hidden": 8, "decoder": decoder}, links, seed=3)
    loss = SLatK(links.n_nodes, links.n_nodes, k=3, threshold=kind, refresh=1, threshold_lr=0.1)
    fit_links(gcn, loss, links, replace(SETTINGS, epochs=2, valid_every=1))
    sources = links.neighbours.degrees > 0
    assert (loss.thresholds[sources] != 0).all()
    assert len(loss.thresholds[sources].unique()) > sources.sum() * 0.5


@pytest.mark.parametrize("decoder", ["dot", "mlp"])
def test_exact_thresholds_are_the_kth_score_of_the_other_nodes(some_links, decoder):
    links = some_links()
    gcn = build("gcn", {"hidden": 8, "decoder": decoder}, links, seed=3)
    loss = SLatK(links.n_nodes, links.n_nodes, k=4, threshold="exact", refresh=1)
    gcn.eval()
    z, everyone = gcn.embed(), torch.arange(links.n_nodes)
    fit_links(gcn, loss, links, replace(SETTINGS, epochs=1, lr=1e-12))
    gcn.eval()
    for u in range(links.n_nodes):
        others = everyone[everyone != u]
        scores = gcn.score(z, torch.tensor([u]), others[None], "cosine")[0]
        torch.testing.assert_close(loss.thresholds[u], scores.sort(descending=True).values[3].detach())


def test_monte_carlo_thresholds_keep_the_positives_and_never_draw_the_node_itself(some_links):
    """With K = 1 and samples enough to hold every other node, it is the largest score of the others."""
    links = some_links()
    gcn = build("gcn", {"hidden": 8}, links, seed=3)
    loss = SLatK(links.n_nodes, links.n_nodes, k=1, refresh=1, samples=2000)
    fit_links(gcn, loss, links, replace(SETTINGS, epochs=1, lr=1e-12))
    gcn.eval()
    z = torch.nn.functional.normalize(gcn.embed(), dim=1)
    cosines = (z @ z.T).fill_diagonal_(-2)
    torch.testing.assert_close(loss.thresholds, cosines.amax(1).detach())


def test_the_gradient_of_the_backbone_is_clipped_and_that_of_thresholds_is_not(some_links, monkeypatch):
    links = some_links()
    gcn = build("gcn", {"hidden": 8}, links, seed=3)
    loss = Talos(links.n_nodes, links.n_nodes, k=3, tau=1e-4, threshold_lr=0.1)
    norms = []
    step = torch.optim.Adam.step

    def spied(self, *args, **kwargs):
        own = [torch.cat([p.grad.flatten() for p in group["params"]]).norm() for group in self.param_groups]
        norms.append([float(n) for n in own])
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.Adam, "step", spied)
    fit_links(gcn, loss, links, replace(SETTINGS, epochs=1))
    for of_model, of_thresholds in norms:
        assert of_model == pytest.approx(CLIP, rel=1e-3)
        assert of_thresholds > 0


def test_a_loss_that_is_not_finite_is_named(some_links):
    links = some_links()
    gcn = build("gcn", {"hidden": 8}, links, seed=3)
    with torch.no_grad():
        gcn.weights[0][0, 0] = math.nan
    with pytest.raises(DivergedError, match="the loss is nan in epoch 1, step 1"):
        fit_links(gcn, loss_of("sl", links), links, SETTINGS)
    with pytest.raises(FloatingPointError, match="the scores are not finite"):
        edge_ranks(gcn, "cosine", links, "test")


class Given(GCN):
    """Scores that are looked up: ``scores[u, v]``."""

    def __init__(self, links: Links, scores: Tensor) -> None:
        super().__init__(links, hidden=1)
        self.given = scores

    def score(self, z, sources, targets, similarity):
        return self.given[sources[:, None], targets]


def test_ranks_are_those_of_sorted_scores(some_links):
    links = some_links()
    scores = torch.rand(30, 30).mul(6).round()
    ranks = edge_ranks(Given(links, scores), "dot", links, "valid")
    measured = evaluate_links(Given(links, scores), "dot", links, "valid", (1, 5))
    for e, (u, v) in enumerate(links.valid.tolist()):
        own = float(scores[u, v])
        others = [float(scores[a, b]) for a, b in links.valid_negatives[e].tolist()]
        optimistic = 1 + sum(other > own for other in others)
        pessimistic = 1 + sum(other >= own for other in others)
        assert ranks[e] == (optimistic + pessimistic) / 2
        for k in (1, 5):
            assert measured.values[f"hit_rate_{k}"][e] == (ranks[e] <= k)
        assert measured.values["mrr"][e] == 1 / ranks[e]
    assert measured.users.tolist() == list(range(len(links.valid)))
    assert measured.mean()["mrr"] == pytest.approx(float((1 / ranks).mean()))


def test_a_constant_scorer_is_no_better_than_chance(some_links):
    links = some_links()
    constant = Given(links, torch.zeros(30, 30))
    mean = evaluate_links(constant, "dot", links, "test", (5,)).mean()
    assert mean["hit_rate_5"] == 0 < 5 / 25
    assert mean["mrr"] == 1 / 13 < sum(1 / r for r in range(1, 26)) / 25


def test_test_edges_are_ranked_with_messages_of_training_edges_alone(some_links):
    links = some_links()
    gcn = build("gcn", {"hidden": 8}, links, seed=3)
    ranks = edge_ranks(gcn, "cosine", links, "test")
    empty = links.valid[:0]
    blind = replace(links, valid=empty, valid_negatives=links.valid_negatives[:0])
    same = build("gcn", {"hidden": 8}, blind, seed=3)
    assert torch.equal(ranks, edge_ranks(same, "cosine", blind, "test"))
    assert gcn.training


def test_what_cannot_be_measured_is_refused(some_links):
    links = some_links()
    gcn = GCN(links, hidden=4)
    with pytest.raises(ValueError, match=r"k must lie in 1\.\.24 \(the negatives\), got 25"):
        evaluate_links(gcn, "dot", links, "test", (25,))
    empty = replace(links, test=links.test[:0], test_negatives=links.test_negatives[:0])
    with pytest.raises(ValueError, match="there are no test edges to rank"):
        evaluate_links(gcn, "dot", empty, "test", (5,))
