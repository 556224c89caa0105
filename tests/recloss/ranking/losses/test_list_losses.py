"""The losses over lists: golden cases, loops written from the formulas, padding, gradients, limits, extremes."""

import importlib.util
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recloss.errors import InputError
from recloss.ranking import Lists, losses, ndcg
from recloss.ranking.losses import LIST_LOSSES, ListLoss, build, get
from recloss.ranking.losses.lambdalossatk import lambdalossatk
from recloss.ranking.losses.listmle import listmle
from recloss.ranking.losses.listnet import listnet
from recloss.ranking.losses.neuralndcg import neuralndcg, soft_permutation
from recloss.ranking.losses.sl import sl
from recloss.ranking.losses.slatk import slatk, threshold

spec = importlib.util.spec_from_file_location("reference", Path(__file__).with_name("reference.py"))
reference = importlib.util.module_from_spec(spec)
spec.loader.exec_module(reference)

EXACT = {"rtol": 1e-9, "atol": 1e-12}
PER_LIST = {
    "listmle": (listmle, reference.listmle),
    "listnet": (listnet, reference.listnet),
    "lambdalossatk": (lambda s, y: lambdalossatk(s, y, 5), reference.lambdalossatk),
    "neuralndcg": (lambda s, y: neuralndcg(s, y, 1.0), reference.neuralndcg),
    "sl": (lambda s, y: sl(s, y, 1.0), reference.sl),
    "slatk": (lambda s, y: slatk(s, y, 5, 1.0, 10.0), reference.slatk),
}
"""Pure functions of lists with the classes' defaults, and their loops."""
ALL = [*PER_LIST, "ranknet"]


def random_lists(seed, lengths=(7, 1, 12, 3, 5), dtype=torch.float64):
    """Scores without ties, grades with many, padded; no list is without a relevant document but the fourth."""
    generator = torch.Generator().manual_seed(seed)
    shape = len(lengths), max(lengths)
    scores = 2 * torch.randn(shape, generator=generator, dtype=dtype)
    grades = torch.randint(0, 5, shape, generator=generator).to(dtype)
    grades[:, 0] = 2
    if len(lengths) > 3:
        grades[3] = 0
    present = torch.arange(shape[1]) < torch.tensor(lengths)[:, None]
    return scores, grades.masked_fill(~present, -1), list(lengths)


def loss(name):
    return build(name, {"shuffle": False} if name == "listmle" else {})


def tensor(x):
    return torch.tensor(x, dtype=torch.float64)


@pytest.mark.parametrize(("name", "expected"), [("listnet", "per_query"), ("listmle", "per_query"), ("ranknet", None)])
def test_golden_cases_of_lists(golden, name, expected):
    case = golden(name)
    y, s = tensor(case["inputs"]["y_true(-1=padding)"]), tensor(case["inputs"]["y_pred"])
    if expected:
        torch.testing.assert_close(PER_LIST[name][0](s, y), tensor(case["per_query"]), **EXACT)
    mean = case["mean"] if expected else case["mean_over_all_pairs_in_batch"]
    torch.testing.assert_close(loss(name)(s, y), tensor(mean), **EXACT)


@pytest.mark.parametrize("tau", [1.0, 0.1, 0.001])
def test_golden_case_of_neuralndcg(golden, tau):
    case = golden("neuralndcg")
    s, y = tensor([case["inputs"]["y_pred"]]), tensor([case["inputs"]["y_true"]])
    expected = case[f"tau_{tau}"]
    assert float(neuralndcg(s, y, tau)) == pytest.approx(expected["loss_full"], rel=1e-9)
    assert float(neuralndcg(s, y, tau, 2)) == pytest.approx(expected["loss_at_2"], rel=1e-9)
    if tau == 0.001:
        assert float(neuralndcg(s, y, tau)) == pytest.approx(case["exact_minus_ndcg"]["full"], rel=1e-9)


def test_golden_case_of_the_soft_permutation(golden):
    case = golden("neuralsort_matrix")
    s = tensor([case["inputs"]["s"]])
    found = soft_permutation(s, torch.zeros_like(s), case["inputs"]["tau"])[0]
    torch.testing.assert_close(found, tensor(case["P_hat_before_sinkhorn"]), **EXACT)


def test_golden_case_of_sl_and_slatk(golden):
    case = golden("ltr_slatk_recommended")
    s, y = tensor([case["inputs"]["y_pred"]]), tensor([case["inputs"]["y_true"]])
    assert float(sl(s, y, 1.0)) == pytest.approx(case["sl"], rel=1e-9)
    assert float(slatk(s, y, 2, 1.0, 1.0)) == pytest.approx(case["sl_at_2"], rel=1e-9)


def test_golden_case_of_lambdaloss_with_gains_of_one(golden):
    case = golden("lambda_full_list_user0")
    s = tensor([case["inputs"]["scores"]])
    y = torch.zeros_like(s)
    y[0, case["inputs"]["positives"]] = 1
    ideal = 1 + 1 / math.log2(3)
    assert float(lambdalossatk(s, y, 2)) * ideal == pytest.approx(case["lambdaloss@2"], rel=1e-9)
    assert float(lambdalossatk(s, y, 99)) * ideal == pytest.approx(case["lambdaloss"], rel=1e-9), "K beyond the list"


@pytest.mark.parametrize("name", PER_LIST)
@settings(max_examples=25)
@given(st.integers(0, 10_000))
def test_equals_its_formula_list_by_list(name, seed):
    s, y, lengths = random_lists(seed)
    function, loop = PER_LIST[name]
    expected = [loop(a[:n].tolist(), b[:n].tolist()) for a, b, n in zip(s, y, lengths, strict=True)]
    torch.testing.assert_close(function(s, y), tensor(expected), rtol=1e-9, atol=1e-9)


@settings(max_examples=25)
@given(st.integers(0, 10_000))
def test_ranknet_pools_the_pairs_of_all_lists(seed):
    s, y, lengths = random_lists(seed)
    pairs = [reference.ranknet_pairs(a[:n].tolist(), b[:n].tolist()) for a, b, n in zip(s, y, lengths, strict=True)]
    pooled = [pair for one in pairs for pair in one]
    assert float(loss("ranknet")(s, y)) == pytest.approx(sum(pooled) / len(pooled), rel=1e-9)


@pytest.mark.parametrize("name", ["lambdalossatk", "neuralndcg", "sl", "slatk"])
def test_the_mean_is_over_lists_with_a_relevant_document(name):
    s, y, _ = random_lists(3)
    values = PER_LIST[name][0](s, y)
    assert float(values[3]) == 0
    assert float(loss(name)(s, y)) == pytest.approx(float(values[[0, 1, 2, 4]].mean()), rel=1e-12)


@pytest.mark.parametrize("name", ["listmle", "listnet"])
def test_the_mean_of_likelihoods_is_over_all_lists(name):
    s, y, _ = random_lists(3)
    assert float(loss(name)(s, y)) == pytest.approx(float(PER_LIST[name][0](s, y).mean()), rel=1e-12)


@pytest.mark.parametrize("name", ALL)
def test_padding_has_no_effect_and_no_gradient(name):
    s, y, _ = random_lists(1)
    wide_s, wide_y = (torch.cat([x, torch.full((len(x), 4), fill)], 1) for x, fill in ((s, 99.0), (y, -1.0)))
    wide_s[0, -1], wide_s[1, -2] = math.nan, math.inf
    wide_s.requires_grad_()
    value = loss(name)(wide_s, wide_y)
    torch.testing.assert_close(value, loss(name)(s, y), **EXACT)
    value.backward()
    assert (wide_s.grad[wide_y < 0] == 0).all()
    assert wide_s.grad.isfinite().all()


@pytest.mark.parametrize("name", ALL)
def test_padding_may_stand_anywhere(name):
    s, y, _ = random_lists(2)
    torch.testing.assert_close(
        loss(name)(s.flip(1), y.flip(1)), loss(name)(s, y), **(EXACT if name != "listmle" else {"rtol": 1, "atol": 10})
    )  # the order among equal grades is part of ListMLE


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("seed", [0, 1])
def test_gradient(name, seed, monkeypatch):
    s, y, _ = random_lists(seed, lengths=(5, 2, 6))
    module, constant = loss(name), threshold(s, y, 5)
    monkeypatch.setattr("recloss.ranking.losses.slatk.threshold", lambda *_: constant)
    assert torch.autograd.gradcheck(lambda x: module(x, y), s.requires_grad_(), eps=1e-6, atol=1e-5)


def test_gradient_of_neuralndcg_at_other_temperatures_and_cut_offs():
    s, y, _ = random_lists(5, lengths=(5, 2, 6))
    s.requires_grad_()
    for tau, k in ((0.3, 2), (5.0, None)):
        assert torch.autograd.gradcheck(lambda x, t=tau, at=k: neuralndcg(x, y, t, at), s, eps=1e-6, atol=1e-5)


@pytest.mark.parametrize("name", ALL)
def test_the_order_of_documents_does_not_matter(name):
    s, y, _ = random_lists(4)
    if name == "listmle":
        y = torch.stack([torch.randperm(s.shape[1]) for _ in s]).double()  # equal grades have an order there
    order = torch.randperm(s.shape[1])
    torch.testing.assert_close(loss(name)(s[:, order], y[:, order]), loss(name)(s, y), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("scale", [0.0, 1e-6, 50.0, 1e4])
def test_float32_is_finite_at_extremes_and_agrees_where_it_can(name, scale):
    s, y, _ = random_lists(6)
    s32 = (scale * s).float().requires_grad_()
    value = loss(name)(s32, y.float())
    value.backward()
    assert value.isfinite()
    assert s32.grad.isfinite().all()
    assert float(value.detach()) == pytest.approx(float(loss(name)(s32.detach().double(), y)), rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(
    "grades", [[[0.0, 0, 0]], [[3.0, 3, 3]], [[2.0, -1, -1]], [[0.0, -1, -1]], [[-1.0, -1, -1]]], ids=str
)
def test_lists_that_say_little_give_finite_numbers(name, grades):
    s = torch.tensor([[0.3, 0.3, -1.0]], requires_grad=True)
    value = loss(name)(s, torch.tensor(grades))
    value.backward()
    assert value.isfinite()
    assert s.grad.isfinite().all()
    if max(grades[0]) <= 0 and name not in ("listmle", "listnet"):
        assert float(value.detach()) == 0
        assert not s.grad.any()


@pytest.mark.parametrize("k", [None, 1, 3])
def test_neuralndcg_tends_to_minus_ndcg(k):
    s, y, lengths = random_lists(8, lengths=(6, 11, 4))
    present = y >= 0
    lists = Lists(torch.zeros(sum(lengths), 1), y[present].float(), torch.tensor([0, *lengths]).cumsum(0))
    expected = ndcg(s[present], lists, [k or 99]).values[f"ndcg_{k or 99}"]
    torch.testing.assert_close(neuralndcg(s, y, 1e-4, k), -expected, rtol=1e-9, atol=1e-9)


def test_slatk_tends_to_sl_where_nothing_is_beyond_the_top():
    s, y, _ = random_lists(9)
    torch.testing.assert_close(slatk(s, y, 5, 1.0, 1e12), sl(s, y, 1.0) / 2, rtol=1e-9, atol=1e-9)
    hard = slatk(s[:1], y[:1], 2, 1.0, 1e-9)
    above = s[0] > threshold(s, y, 2)[0]
    gain = (2 ** y[0] - 1).clamp(min=0)
    terms = torch.logsumexp(s[0][y[0] >= 0], 0) - s[0]
    kth = s[0] == threshold(s, y, 2)[0]
    expected = (gain * terms)[above].sum() + (gain * terms)[kth].sum() / 2
    assert float(hard) == pytest.approx(float(expected / gain.sum()), rel=1e-9)


def test_the_threshold_is_the_kth_score_or_the_last():
    s, y = tensor([[3.0, 1, 2, 9], [5, 4, 7, 7], [1, 1, 1, 1]]), tensor([[0.0, 0, 0, -1], [0, 0, -1, -1], [-1] * 4])
    assert threshold(s, y, 2).tolist() == [2, 4, 0]
    assert threshold(s, y, 5).tolist() == [1, 4, 0]


def test_the_gradient_of_slatks_weight_pulls_down_unless_it_is_detached():
    s, y = tensor([[-4.0, 0, 0, 0, 0, 1]]), tensor([[1.0, 0, 0, 0, 0, 0]])
    pulls = []
    for detach in (False, True):
        x = s.clone().requires_grad_()
        slatk(x, y, 2, 1.0, 1.0, detach).sum().backward()
        pulls.append(float(x.grad[0, 0]))
    assert pulls[0] > 0 > pulls[1]


def test_listmle_shuffles_equal_grades_in_training_alone():
    s, y = tensor([[0.0, 1, 2, 3, 4]]), torch.zeros(1, 5, dtype=torch.float64)
    module = losses.ListMLE()
    torch.manual_seed(0)
    values = {round(float(module(s, y)), 9) for _ in range(20)}
    torch.manual_seed(0)
    again = {round(float(module(s, y)), 9) for _ in range(20)}
    assert len(values) > 5
    assert values == again
    assert float(module.eval()(s, y)) == float(losses.ListMLE(shuffle=False)(s, y))


@pytest.mark.parametrize("name", LIST_LOSSES)
def test_training_on_scores_raises_ndcg(name):
    s, y, lengths = random_lists(11, lengths=(8, 6, 9))
    present = y >= 0
    lists = Lists(torch.zeros(sum(lengths), 1), y[present].float(), torch.tensor([0, *lengths]).cumsum(0))
    x = s.clone().requires_grad_()
    optimizer, module = torch.optim.Adam([x], lr=0.15), loss(name)
    before = ndcg(s[present], lists, [5]).mean()["ndcg_5"]
    for _ in range(80):
        optimizer.zero_grad()
        module(x, y).backward()
        optimizer.step()
    after = ndcg(x.detach()[present], lists, [5]).mean()["ndcg_5"]
    assert after > 0.9 > before, (before, after)


@pytest.mark.parametrize(
    ("scores", "grades", "message"),
    [
        (torch.zeros(3), torch.zeros(3), r"SL: scores must have shape \(Q, L\), got \(3,\)"),
        (torch.zeros(2, 3), torch.zeros(2, 2), r"SL: grades must have shape \(2, 3\), got \(2, 2\)"),
    ],
)
def test_wrong_shapes_are_named(scores, grades, message):
    with pytest.raises(ValueError, match=message):
        loss("sl")(scores, grades)


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("sl", {"tau": 0}, "tau must be a number above 0"),
        ("slatk", {"tau_weight": -1}, "tau_weight must be a number above 0"),
        ("slatk", {"k": 0}, "k must be at least 1"),
        ("slatk", {"detach_weight": 1}, "detach_weight must be true or false"),
        ("lambdalossatk", {"k": 0}, "k must be at least 1"),
        ("neuralndcg", {"k": 0}, "k must be at least 1, or none"),
        ("neuralndcg", {"tau": math.inf}, "tau must be a number above 0"),
        ("listmle", {"shuffle": "no"}, "shuffle must be true or false"),
    ],
)
def test_hyper_parameters_out_of_range_are_refused(name, params, message):
    with pytest.raises(ValueError, match=message):
        build(name, params)


def test_names():
    assert list(LIST_LOSSES) == ["listmle", "listnet", "ranknet", "lambdalossatk", "neuralndcg", "sl", "slatk"]
    assert all(issubclass(cls, ListLoss) and cls.__doc__ for cls in LIST_LOSSES.values())
    assert [get(n).name for n in ("SL@5", "SL@K", "LambdaLoss@5", "ListNet", "Softmax")] == [
        "slatk", "slatk", "lambdalossatk", "listnet", "sl",
    ]  # fmt: skip
    with pytest.raises(InputError, match=r"unknown loss over lists 'lisnet'; did you mean 'listnet'\?"):
        get("lisnet")


def test_half_precision_is_computed_in_float32():
    s, y, _ = random_lists(12)
    s = s.bfloat16()
    value = loss("sl")(s, y)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss("sl")(s.float(), y))
