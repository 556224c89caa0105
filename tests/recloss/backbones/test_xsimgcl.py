"""XSimGCL against the golden toy graph and a dense oracle; its noise, its contrast, and training with both."""

import copy
import math
import shutil

import pytest
import torch
import torch.multiprocessing as mp
import torch.nn.functional as F

from recloss import backbones, losses
from recloss.backbones import XSimGCL
from recloss.backbones.xsimgcl import info_nce
from recloss.checkpoints import load_checkpoint
from recloss.graph import normalised_adjacency
from recloss.interactions import Interactions
from recloss.training import FitSettings, fit

NEAR = {torch.float64: {"rtol": 1e-9, "atol": 1e-12}, torch.float32: {"rtol": 2e-5, "atol": 1e-6}}
SETTINGS = FitSettings(
    lr=0.01, epochs=4, batch_size=61, negatives=8, valid_every=2, patience=9, metric="ndcg_5", cutoffs=(5,), seed=3
)


def toy(case, **params) -> XSimGCL:
    edges = torch.tensor(case["edges_user_item"])
    train = Interactions(edges[:, 0], edges[:, 1], case["num_users"], case["num_items"])
    backbone = XSimGCL(train, **{"dim": 2, "layers": 2} | params)
    start = torch.tensor(case["E0(users then items)"])
    backbone.user.data, backbone.item.data = start[: case["num_users"]].clone(), start[case["num_users"] :].clone()
    return backbone


@pytest.fixture(params=[torch.float64, torch.float32], ids=["float64", "float32"])
def precision(request):
    torch.set_default_dtype(request.param)
    yield NEAR[request.param]
    torch.set_default_dtype(torch.float32)


def test_golden_pooling_without_noise_and_cosines(golden, precision):
    case = golden("graph")
    user, item = toy(case).eval().embed()
    torch.testing.assert_close(
        torch.cat([user, item]), torch.tensor(case["xsimgcl_eval_mean_1..2(no noise)"]), **precision
    )
    cosines = F.normalize(user, dim=1) @ F.normalize(item, dim=1).T
    torch.testing.assert_close(cosines, torch.tensor(case["xsimgcl_cosine_scores"]), **precision)


def test_golden_layers_follow_from_the_means(golden, precision):
    case = golden("graph")
    first = torch.cat(toy(case, layers=1).eval().embed())
    torch.testing.assert_close(first, torch.tensor(case["E1"]), **precision)
    second = torch.cat(toy(case).eval().embed()) * 2 - first
    torch.testing.assert_close(second, torch.tensor(case["E2"]), **precision)


def test_golden_noise(golden, precision, monkeypatch):
    case = golden("graph")
    drawn = []
    monkeypatch.setattr(torch, "rand_like", lambda x: drawn.append(x.shape) or torch.tensor(case["noise_input"]))
    perturbed = torch.cat(toy(case, layers=1).embed())
    assert drawn == [(5, 2)]
    torch.testing.assert_close(perturbed, torch.tensor(case["E1_perturbed_eps0.1"]), **precision)


def test_golden_info_nce_of_the_users(golden, precision):
    case = golden("graph")
    backbone = toy(case, noise=0.0, contrast_weight=1.0)
    backbone.embed()
    # the only item has nothing to be told from, so all of the loss is the users'
    found = backbone.auxiliary_loss(torch.tensor([0, 1]), torch.tensor([1, 1]))
    expected = torch.tensor(case["infonce_users_tau0.1(final vs layer1, both normalised)"])
    torch.testing.assert_close(found, expected, **precision)


def oracle(train, tables, layers, drawn, noise):
    """Layers 1 .. L with a dense matrix and the given draws."""
    adjacency = normalised_adjacency(train).to_dense()
    layer, every_layer = torch.cat(tables), []
    for v in drawn[:layers]:
        layer = adjacency @ layer
        layer = layer + noise * layer.sign() * v / v.square().sum(1, keepdim=True).sqrt()
        every_layer.append(layer)
    return torch.stack(every_layer).mean(0), every_layer


def contrast(mean, layer, nodes, tau):
    """InfoNCE in plain loops over distinct nodes."""
    total = 0.0
    for a in nodes:
        cosines = [(mean[a] @ layer[b]) / (mean[a].norm() * layer[b].norm()) / tau for b in nodes]
        own = cosines[nodes.index(a)]
        total = total - (own - torch.stack([c.exp() for c in cosines]).sum().log())
    return total / len(nodes)


@pytest.mark.parametrize(("layers", "contrast_layer", "tau"), [(1, 1, 0.2), (2, 2, 0.1), (3, 1, 0.1), (3, 2, 0.5)])
def test_values_and_gradients_against_a_dense_matrix(layers, contrast_layer, tau, small, double, monkeypatch):
    params = {"layers": layers, "contrast_layer": contrast_layer, "contrast_tau": tau}
    drawn, rand_like = [], torch.rand_like
    monkeypatch.setattr(torch, "rand_like", lambda x: drawn.append(rand_like(x)) or drawn[-1])
    torch.manual_seed(0)
    backbone = XSimGCL(small, dim=5, noise=0.3, contrast_weight=0.7, **params)
    users, items = torch.tensor([0, 5, 2, 5, 0]), torch.tensor([1, 1, 8, 3, 1])
    weight = torch.randn(21, 5)

    tables = (backbone.user, backbone.item)
    found, auxiliary = torch.cat(backbone.embed()), backbone.auxiliary_loss(users, items)
    mean, every_layer = oracle(small, tables, layers, drawn, 0.3)
    torch.testing.assert_close(found, mean, rtol=1e-12, atol=1e-12)
    layer = every_layer[contrast_layer - 1]
    expected = 0.7 * (contrast(mean, layer, [0, 2, 5], tau) + contrast(mean, layer, [13, 15, 20], tau))
    torch.testing.assert_close(auxiliary, expected, rtol=1e-10, atol=1e-12)

    for one, other in (((found.sigmoid() * weight).sum(), (mean.sigmoid() * weight).sum()), (auxiliary, expected)):
        found_grads = torch.autograd.grad(one, tables, retain_graph=True)
        expected_grads = torch.autograd.grad(other, tables, retain_graph=True)
        for left, right in zip(found_grads, expected_grads, strict=True):
            torch.testing.assert_close(left, right, rtol=1e-9, atol=1e-12)
            assert bool(right.any())


def test_derivatives_by_differences(differentiates):
    train = Interactions(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]), 2, 2)
    torch.manual_seed(1)
    assert differentiates(XSimGCL(train, dim=3, layers=2, contrast_tau=0.5))


@pytest.mark.parametrize("noise", [0.1, 2.0])
def test_noise_has_the_stated_length_and_the_signs_of_the_layer(noise, small):
    backbone = XSimGCL(small, dim=16, layers=1, noise=noise)
    clean = torch.cat(backbone.eval().embed()).detach()
    added = torch.cat(backbone.train().embed()).detach() - clean
    lonely = torch.zeros(21, dtype=torch.bool)
    lonely[3] = lonely[12 + 4] = True
    torch.testing.assert_close(added[~lonely].norm(dim=1), torch.full((19,), noise), rtol=1e-5, atol=0)
    assert bool((added[~lonely] * clean[~lonely] >= 0).all())
    assert not added[lonely].any(), "sign(0) is 0: a node without neighbours stays at 0"


def test_noise_is_uniform_not_gaussian_and_differs_between_nodes():
    n = 2000
    train = Interactions(torch.arange(n), torch.arange(n), n, n)
    torch.manual_seed(0)
    backbone = XSimGCL(train, dim=16, layers=1, noise=1.0, init="normal")
    clean = torch.cat(backbone.eval().embed()).detach()
    added = (torch.cat(backbone.train().embed()).detach() - clean).abs()
    torch.manual_seed(5)
    v = torch.rand(200_000, 16)
    expected = v / v.norm(dim=1, keepdim=True)
    assert float(added.mean()) == pytest.approx(float(expected.mean()), rel=0.005)
    assert float(added.std()) == pytest.approx(float(expected.std()), rel=0.02)
    assert len(added[:, 0].unique()) > n


def test_noise_comes_from_the_global_generator_and_evaluation_has_none(small):
    backbone = XSimGCL(small, dim=4)
    torch.manual_seed(1)
    first, second = torch.cat(backbone.embed()), torch.cat(backbone.embed())
    assert not torch.equal(first, second), "each step draws its own"
    torch.manual_seed(1)
    assert torch.equal(torch.cat(backbone.embed()), first)
    backbone.eval()
    before = torch.get_rng_state()
    assert torch.equal(torch.cat(backbone.embed()), torch.cat(backbone.embed()))
    assert torch.equal(torch.get_rng_state(), before)
    quiet = XSimGCL(small, dim=4, noise=0.0)
    quiet.load_state_dict(backbone.state_dict())
    assert torch.equal(torch.cat(quiet.train().embed()), torch.cat(backbone.embed()))


def auxiliary(backbone: XSimGCL, users, items):
    torch.manual_seed(0)
    backbone.embed()
    return backbone.auxiliary_loss(torch.tensor(users), torch.tensor(items))


def test_repeated_users_and_items_count_once(small, double):
    backbone = XSimGCL(small, dim=4)
    once = auxiliary(backbone, [0, 1, 2], [1, 5, 6])
    torch.testing.assert_close(auxiliary(backbone, [2, 0, 2, 1, 0, 2], [6, 6, 5, 1, 5, 5]), once)
    assert not torch.isclose(auxiliary(backbone, [0, 1], [1, 5, 6]), once)


def test_a_batch_of_one_user_and_one_item_contrasts_nothing(small):
    backbone = XSimGCL(small, dim=4)
    loss = auxiliary(backbone, [5], [6])
    loss.backward()
    assert loss == 0
    assert bool(torch.isfinite(backbone.user.grad).all())


def test_the_weight_scales_the_contrast_and_0_means_none(small):
    one, half = (XSimGCL(small, dim=4, contrast_weight=weight) for weight in (1.0, 0.5))
    half.load_state_dict(one.state_dict())
    torch.testing.assert_close(auxiliary(one, [0, 1], [2, 3]), 2 * auxiliary(half, [0, 1], [2, 3]))
    assert auxiliary(XSimGCL(small, dim=4, contrast_weight=0), [0, 1], [2, 3]) is None


def test_info_nce_at_the_temperature_0_01_is_finite_and_of_any_length_of_views():
    rows = torch.eye(3).requires_grad_()
    loss = info_nce(rows, -torch.eye(3) * 100, 0.01)
    torch.testing.assert_close(loss, torch.tensor(100 + math.log(2)))
    loss.backward()
    assert bool(torch.isfinite(rows.grad).all())


def test_the_auxiliary_loss_needs_the_views_of_its_own_step(small):
    backbone = XSimGCL(small, dim=4)
    batch = torch.tensor([0, 1]), torch.tensor([2, 3])
    with pytest.raises(RuntimeError, match=r"^auxiliary_loss needs the views of an embed\(\) in training mode"):
        backbone.auxiliary_loss(*batch)
    backbone.embed()
    assert backbone.auxiliary_loss(*batch) > 0
    with pytest.raises(RuntimeError, match="^auxiliary_loss needs"):
        backbone.auxiliary_loss(*batch)
    backbone.embed()
    backbone.eval().embed()
    with pytest.raises(RuntimeError, match="^auxiliary_loss needs"):
        backbone.auxiliary_loss(*batch)


def test_one_propagation_serves_the_scores_and_the_contrast(small):
    backbone = XSimGCL(small, dim=4, layers=3)
    calls = []
    backbone.adjacency.register_forward_hook(lambda *_: calls.append(1))
    user, _ = backbone.embed()
    (user.sum() + backbone.auxiliary_loss(torch.tensor([0, 1]), torch.tensor([2, 3]))).backward()
    assert len(calls) == 3


def test_a_copy_in_the_middle_of_a_step_has_the_tables_and_no_views(small):
    backbone = XSimGCL(small, dim=4)
    backbone.embed()
    copied = copy.deepcopy(backbone)
    assert torch.equal(torch.cat(copied.eval().embed()), torch.cat(backbone.eval().embed()))
    assert set(backbone.state_dict()) == {"user", "item"}
    assert {name for name, _ in backbone.named_parameters()} == {"user", "item"}


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"layers": 0}, "layers must be at least 1, got 0"),
        ({"contrast_layer": 0}, "contrast_layer must lie in 1..3, got 0"),
        ({"contrast_layer": 3, "layers": 2}, "contrast_layer must lie in 1..2, got 3"),
        ({"noise": -0.1}, "noise must be a number of at least 0, got -0.1"),
        ({"noise": math.inf}, "noise must be a number of at least 0, got inf"),
        ({"contrast_tau": 0}, "contrast_tau must be a number above 0, got 0"),
        ({"contrast_weight": -1}, "contrast_weight must be a number of at least 0, got -1"),
        ({"init": "ones"}, "init must be one of"),
    ],
)
def test_bad_arguments_are_named(params, message, small):
    with pytest.raises(ValueError, match=f"^{message}"):
        XSimGCL(small, **params)


@pytest.mark.parametrize("loss", ["sl", "bpr", "talos"])
def test_its_tables_start_xavier_uniform_with_every_loss(loss):
    pytest.importorskip("pydantic")
    from pipelines.sweep.plan import presets

    assert presets("xsimgcl", loss, None)["backbone.init"] == "xavier_uniform"


def models(train):
    return backbones.build("xsimgcl", {"dim": 8}, train, 0), losses.SL(tau=0.2)


def numbers(state):
    if isinstance(state, torch.Tensor):
        return state.numpy().tobytes()
    if isinstance(state, dict):
        return {key: numbers(value) for key, value in state.items() if key not in ("time", "seconds")}
    return [numbers(value) for value in state] if isinstance(state, list | tuple) else state


def test_training_learns(learns):
    learns("xsimgcl", lr=0.03, epochs=2)


def test_training_with_the_contrast_lowers_it(planted):
    def contrast_of(backbone):
        return float(auxiliary(backbone, list(range(40)), list(range(1, 30))).detach())

    results = []
    for weight in (0.0, 1.0):
        backbone = backbones.build("xsimgcl", {"dim": 8, "contrast_weight": weight}, planted[0], 0)
        fit(backbone, losses.SL(tau=0.2), *planted, SETTINGS)
        backbone.contrast_weight = 1.0
        results.append(contrast_of(backbone.train()))
    assert results[1] < results[0] - 0.1


def test_an_untrained_item_stays_at_0_without_harm(planted):
    backbone, loss = models(planted[0])
    fit(backbone, loss, *planted, SETTINGS)
    user, item = backbone.eval().embed()
    assert not item[0].any()
    assert bool(torch.isfinite(user).all() and torch.isfinite(item).all())


def test_a_resumed_run_equals_the_uninterrupted_one_to_the_bit(planted, tmp_path):
    file, copied = tmp_path / "checkpoint.pt", tmp_path / "copy.pt"
    fit(
        *models(planted[0]), *planted, SETTINGS, checkpoint=file,
        on_validation=lambda v: shutil.copy(file, copied) if v.epoch == 2 else None,
    )  # fmt: skip
    assert load_checkpoint(copied)["progress"]["epoch"] == 2
    torch.manual_seed(99)
    fit(*models(planted[0]), *planted, SETTINGS, checkpoint=copied)
    assert numbers(load_checkpoint(copied)) == numbers(load_checkpoint(file))


def _rank(rank, folder, planted):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{folder}/store", world_size=2, rank=rank)
    backbone, loss = models(planted[0])
    result = fit(backbone, loss, *planted, SETTINGS)
    torch.save((backbone.state_dict(), [v.loss for v in result.history]), folder / f"{rank}.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def test_two_processes_train_the_model_of_one(planted, tmp_path):
    backbone, loss = models(planted[0])
    result = fit(backbone, loss, *planted, SETTINGS)
    mp.spawn(_rank, (tmp_path, planted), nprocs=2)
    ranks = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for state, history in ranks:
        for name, value in backbone.state_dict().items():
            torch.testing.assert_close(state[name], value, rtol=1e-4, atol=1e-5)
        assert history == pytest.approx([v.loss for v in result.history], rel=1e-5)
    assert numbers(ranks[0]) == numbers(ranks[1]), "ranks must agree to the bit"
