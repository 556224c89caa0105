"""The contract every registered loss keeps: precision, checks, state, and fields it says it needs."""

import inspect
from dataclasses import replace

import pytest
import torch

from recloss.interactions import Segments
from recloss.losses import LOSSES, Batch, Loss, build
from recloss.losses.base import OPTIONAL_FIELDS
from recloss.soft_labels import SoftLabels

N_USERS, N_ITEMS = 6, 40
SIZES = {"n_users": N_USERS, "n_items": N_ITEMS, "n_pairs": 20}


def make(name: str, n_negatives: int = 11, **params) -> Loss:
    """The loss, its state moved away from where it starts, where errors could hide."""
    accepted = inspect.signature(LOSSES[name]).parameters
    params = {key: value for key, value in ({"k": 3} | params).items() if key in accepted}
    loss = build(name, params, **SIZES, n_negatives=n_negatives, seed=0)
    for tensor in loss.state_dict().values():
        tensor.copy_(torch.linspace(-0.2, 0.4, tensor.numel()).view_as(tensor))
    return loss


def make_batch(needs: frozenset[str], pos: torch.Tensor, neg: torch.Tensor) -> Batch:
    """Only what ``needs`` names; row b is of user b % N_USERS, who has 1 + b % 3 positives."""
    B, N = neg.shape
    users = torch.arange(B) % N_USERS
    counts = 1 + users % 3
    neg_item = (torch.arange(N)[None] * 7 + torch.arange(B)[:, None]) % N_ITEMS
    logits = torch.cat([pos[:, None], neg, neg.flip(1)], 1)
    fields = {
        "user": users,
        "item": torch.zeros(B, dtype=torch.int64),
        "neg_item": neg_item,
        "pair": torch.arange(B) * 2 % 20,
        "n_positives": counts,
        "positives": Segments(
            pos.detach().repeat_interleave(counts), torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        ),
        "pos_rank": 1 + (neg > pos[:, None]).sum(1),
        "neg_rank": 1 + (neg[:, None, :] > neg[:, :, None]).sum(2) + (pos[:, None] > neg),
        "log_q": torch.linspace(-1, 1, N).expand(B, N).to(neg.dtype),
        "logits": logits,
        "soft_targets": SoftLabels(
            Segments(torch.tensor([1, 0, 2, 0]).repeat(B)[: 2 * B], 2 * torch.arange(B + 1)),
            torch.tensor([0.25, 0.75, 0.125, 0.875]).repeat(B)[: 2 * B],
        ),
    }
    assert needs <= fields.keys(), f"teach this test to fill {needs - fields.keys()}"
    return Batch(pos, neg, **{name: fields[name] for name in needs})


def random_scores(rows: int = 8, negatives: int = 11, dtype=torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    pos, neg = torch.rand(rows, generator=generator), torch.rand(rows, negatives, generator=generator)
    return (2 * pos - 1).to(dtype), (2 * neg - 1).to(dtype)


def value_and_gradients(
    loss: Loss, pos: torch.Tensor, neg: torch.Tensor, order=slice(None), autocast: bool = False
) -> list[torch.Tensor]:
    """In the order of ``pos`` and ``neg``; the loss sees the negatives in another ``order``."""
    pos, neg = pos.clone().requires_grad_(), neg.clone().requires_grad_()
    batch = make_batch(loss.needs, pos, neg)
    per_negative = {"neg"} | loss.needs & {"neg_item", "neg_rank", "log_q"}
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        value = loss(replace(batch, **{name: getattr(batch, name)[:, order] for name in per_negative}))
    value.backward()
    assert value.shape == ()
    return [value.detach(), *(torch.zeros_like(x) if x.grad is None else x.grad for x in (pos, neg))]


def close(found, expected, rtol, atol, what=""):
    for name, left, right in zip(("value", "grad_pos", "grad_neg"), found, expected, strict=True):
        torch.testing.assert_close(
            left.to(right.dtype), right, rtol=rtol, atol=atol, msg=lambda text, name=name: f"{what} {name}: {text}"
        )


every_loss = pytest.mark.parametrize("name", LOSSES)

EXTREMES = {
    "far below": ([-1.0, -1.0], [[1.0, 1.0, 1.0], [1.0, -1.0, 0.0]]),
    "far above": ([1.0, 1.0], [[-1.0, -1.0, -1.0], [-1.0, -0.9, -1.0]]),
    "all equal": ([0.3, -1.0], [[0.3, 0.3, 0.3], [-1.0, -1.0, -1.0]]),
    "one row": ([0.5], [[0.4, -1.0, 1.0]]),
    "one negative": ([1.0, -1.0, 0.1], [[1.0], [1.0], [-1.0]]),
    "one of each": ([-1.0], [[1.0]]),
}

LAMBDA = [("paper", "all"), ("paper", "sampled"), ("ir_benchmark", "all"), ("ir_benchmark", "sampled")]
VARIANTS = {
    "bsl": [{"tau_pos": 0.01, "tau_neg": 0.01, "variant": variant} for variant in ("bilateral", "per_sample")],
    "drrl": [
        *({"gamma_star": gamma_star} for gamma_star in (1.0, 1.5, 30.0)),
        {"gamma_star": 3.0, "eps": 0.1},
        *({"gamma_star": g, "solver": "closed_form", "scope": "row"} for g in (1.0, 2.0)),
        *({"gamma_star": g, "c": 1.3, "solver": "bisect", "scope": "row"} for g in (1.5, 30.0)),
    ],
    "lambdaloss": [{"variant": variant, "ranks": ranks} for variant, ranks in LAMBDA],
    "lambdalossatk": [{"variant": variant, "ranks": ranks} for variant, ranks in LAMBDA],
    "psl": [{"activation": activation} for activation in ("tanh", "arctan", "relu")],
    "llpauc": [{}, {"alpha": 0.1}, {"alpha": 1.0, "beta": 1.0}],
    "rsatk": [{"tau_rank": 0.01, "tau_step": 0.1, "rank_scale": scaled} for scaled in (False, True)],
    "sl": [
        {},
        {"include_positive": True},
        {"reduce": "mean", "log_q": True},
        {"over": "all"},
        {"over": "all", "include_positive": True, "reduce": "mean"},
    ],
    "smoothiatk": [{"variant": variant} for variant in ("per_item", "scalar")],
    "song": [{"idcg": idcg} for idcg in (True, False)],
    "songatk": [{"threshold": kind} for kind in ("smoothed", "regression")],
    "talos": [{"variant": variant} for variant in ("full", "no_quantile", "inner_temperature", "no_denominator")],
}
"""Losses whose hyper-parameters choose between formulas: each is tried with extreme scores."""

SEES_THE_ORDER_OF_NEGATIVES: set[str] = {"guidedrec"}
"""Losses that read the negatives as a list, in the order they come."""

PULLS_BOTH_WAYS: set[str] = {"ccl", "ce", "desorec", "guidedrec", "labelsmoothing", "smoothiatk", "softlabels"}
"""Losses in which a score can have a gradient of the other sign, or none at all."""


@every_loss
@pytest.mark.parametrize("extreme", EXTREMES)
def test_extreme_scores_at_tau_001_are_finite_and_right_in_float32(name, extreme):
    pos, neg = (torch.tensor(x) for x in EXTREMES[extreme])
    for params in VARIANTS.get(name, [{}]):
        params = {"tau": 0.01, "n_negatives": neg.shape[1]} | params
        found = value_and_gradients(make(name, **params), pos, neg)
        assert all(bool(torch.isfinite(x).all()) for x in found), (params, found)
        exact = value_and_gradients(make(name, **params).double(), pos.double(), neg.double())
        close(found, exact, 2e-5, 1e-4, f"{name} {params}")


@every_loss
def test_float32_follows_float64(name):
    pos, neg = random_scores()
    exact = value_and_gradients(make(name).double(), pos.double(), neg.double())
    close(value_and_gradients(make(name), pos, neg), exact, 2e-5, 1e-6)
    assert exact[0].dtype == torch.float64


@pytest.mark.parametrize("name", [name for name in LOSSES if name not in SEES_THE_ORDER_OF_NEGATIVES])
def test_the_order_of_negatives_does_not_matter(name):
    pos, neg = random_scores(dtype=torch.float64)
    order = torch.randperm(neg.shape[1], generator=torch.Generator().manual_seed(6))
    shuffled = value_and_gradients(make(name).double(), pos, neg, order)
    close(shuffled, value_and_gradients(make(name).double(), pos, neg), 1e-10, 1e-14)


@pytest.mark.parametrize("name", [name for name in LOSSES if name not in PULLS_BOTH_WAYS])
def test_gradients_point_the_right_way(name):
    """Raising a positive lowers the loss, raising a negative raises it."""
    loss = make(name)
    _, grad_pos, grad_neg = value_and_gradients(loss, *random_scores())
    assert bool((grad_pos < 0).all())
    assert bool((grad_neg >= 0).all())
    assert bool((grad_neg.sum(1) > 0).all())


@every_loss
@pytest.mark.parametrize("low", [torch.bfloat16, torch.float16])
def test_low_precision_scores_are_computed_in_float32(name, low):
    pos, neg = random_scores(dtype=low)
    expected = value_and_gradients(make(name), pos.float(), neg.float())
    found = value_and_gradients(make(name), pos, neg)
    assert found[0].dtype == torch.float32
    torch.testing.assert_close(found[0], expected[0], rtol=1e-6, atol=1e-6)
    for left, right in zip(found[1:], expected[1:], strict=True):
        assert left.dtype == low
        torch.testing.assert_close(left, right.to(low))


@every_loss
def test_autocast_changes_no_bit(name):
    expected = value_and_gradients(make(name), *random_scores())
    found = value_and_gradients(make(name), *random_scores(), autocast=True)
    assert all(torch.equal(left, right) for left, right in zip(found, expected, strict=True))


def test_matrix_products_of_a_loss_stay_in_float32_under_autocast():
    class Spread(Loss):
        name = title = "spread"

        def compute(self, batch):
            return (batch.neg @ batch.neg.T).mean()

    batch = Batch(*random_scores())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = Spread()(batch)
    assert found.dtype == torch.float32
    assert torch.equal(found, (batch.neg @ batch.neg.T).mean())


@every_loss
def test_low_precision_negatives_beside_float32_positives_are_computed_in_float32(name):
    """What autocast hands over when positives come from a product and sum, negatives from a matrix product."""
    pos, neg = random_scores()
    neg = neg.bfloat16()
    expected = value_and_gradients(make(name), pos, neg.float())[0]
    found = value_and_gradients(make(name), pos, neg)[0]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


@every_loss
def test_the_declared_fields_suffice_and_each_is_required(name):
    loss = make(name)
    batch = make_batch(loss.needs, *random_scores())
    assert loss.needs <= OPTIONAL_FIELDS
    assert bool(torch.isfinite(loss(batch)))
    for field in loss.needs:
        with pytest.raises(ValueError, match=rf"^{loss.title} needs {field}: pass Batch\(\.\.\., {field}=\.\.\.\)"):
            loss(replace(batch, **{field: None}))


@every_loss
def test_no_declared_field_is_idle(name):
    """Other users or other positives give another loss."""
    loss = make(name)
    batch = make_batch(loss.needs, *random_scores())
    value = loss(batch)
    if "user" in loss.needs:
        assert not torch.equal(loss(replace(batch, user=batch.user.roll(3))), value)
    if "positives" in loss.needs:
        moved = batch.positives.with_values(batch.positives.values - 0.5)
        assert not torch.equal(loss(replace(batch, positives=moved)), value)
    if "soft_targets" in loss.needs:
        other = replace(batch.soft_targets, weights=batch.soft_targets.weights.roll(1))
        assert not torch.equal(loss(replace(batch, soft_targets=other)), value)


@every_loss
@pytest.mark.parametrize(
    ("pos", "neg", "message"),
    [
        ((8, 1), (8, 3), r"pos must have shape \(B,\), got \(8, 1\)"),
        ((), (8, 3), r"pos must have shape \(B,\), got \(\)"),
        ((8,), (8,), r"neg must have shape \(8, N\), got \(8,\)"),
        ((8,), (7, 3), r"neg must have shape \(8, N\), got \(7, 3\)"),
        ((8,), (1, 3), r"neg must have shape \(8, N\), got \(1, 3\)"),
        ((8,), (8, 3, 1), r"neg must have shape \(8, N\), got \(8, 3, 1\)"),
    ],
)
def test_wrong_shapes_of_scores_are_refused(name, pos, neg, message):
    loss = make(name)
    batch = make_batch(loss.needs, *random_scores())
    with pytest.raises(ValueError, match=f"^{loss.title}: {message}"):
        loss(replace(batch, pos=torch.zeros(pos), neg=torch.zeros(neg)))


@every_loss
def test_wrong_shapes_of_optional_fields_are_refused(name):
    loss = make(name)
    batch = make_batch(loss.needs, *random_scores())
    for field in loss.needs - {"positives", "soft_targets"}:
        value = getattr(batch, field)
        for wrong in (value[:7], value[..., None]):
            with pytest.raises(ValueError, match=rf"^{loss.title}: {field} must have shape \(8,.*, got"):
                loss(replace(batch, **{field: wrong}))
    if "positives" in loss.needs:
        with pytest.raises(ValueError, match=rf"^{loss.title}: positives must have 8 segments, got 2"):
            loss(replace(batch, positives=Segments(torch.zeros(3), torch.tensor([0, 1, 3]))))
    if "soft_targets" in loss.needs:
        two = SoftLabels(Segments(torch.zeros(3, dtype=torch.int64), torch.tensor([0, 1, 3])), torch.ones(3))
        with pytest.raises(ValueError, match=rf"^{loss.title}: soft_targets must have 8 segments, got 2"):
            loss(replace(batch, soft_targets=two))


@every_loss
def test_a_batch_without_rows_or_negatives_is_refused(name):
    loss = make(name)
    with pytest.raises(ValueError, match=f"^{loss.title}: the batch has no row"):
        loss(Batch(torch.zeros(0), torch.zeros(0, 3)))
    if loss.sampled:
        with pytest.raises(ValueError, match=f"^{loss.title}: neg must have at least one column"):
            loss(Batch(torch.zeros(2), torch.zeros(2, 0)))


@every_loss
def test_scores_that_are_no_cosines_warn_once(name):
    loss = make(name)
    batch = make_batch(loss.needs, *(3 * scores for scores in random_scores()))
    if loss.similarity == "dot":
        loss(batch)
        return
    with pytest.warns(UserWarning, match=rf"^{loss.title} is for cosines in \[-1, 1\] and got a score of size 2.9"):
        loss(batch)
    loss(batch)


@every_loss
def test_state_survives_a_round_trip(name, tmp_path):
    loss = make(name)
    torch.save(loss.state_dict(), tmp_path / "state.pt")
    fresh = build(
        name, {"k": 3} if "k" in inspect.signature(LOSSES[name]).parameters else {}, **SIZES, n_negatives=11, seed=1
    )
    fresh.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    pos, neg = random_scores()
    found, expected = value_and_gradients(fresh, pos, neg), value_and_gradients(loss, pos, neg)
    assert all(torch.equal(left, right) for left, right in zip(found, expected, strict=True))
    for (key, left), (_, right) in zip(fresh.state_dict().items(), loss.state_dict().items(), strict=True):
        assert torch.equal(left, right), key


@every_loss
def test_every_parameter_is_in_one_named_group(name):
    loss = make(name)
    groups = loss.parameter_groups(0.1)
    owned = [id(p) for group in groups for p in group["params"]]
    assert sorted(owned) == sorted(id(p) for p in loss.parameters())
    assert len({group["name"] for group in groups} | {"model"}) == len(groups) + 1


HAS_STEPS_OF_ITS_OWN: set[str] = {"advinfonce", "guidedrec"}
"""Losses whose steps move chosen parameter groups, or are several."""


@pytest.mark.parametrize("name", [name for name in LOSSES if name not in HAS_STEPS_OF_ITS_OWN])
def test_a_plain_loss_takes_one_step_a_batch(name):
    (steps,) = make(name).passes(1)
    (phase,) = steps
    assert (phase.name, phase.trains) == ("fit", None)


@every_loss
def test_no_call_in_evaluation_mode_changes_the_state(name):
    loss = make(name).eval()
    before = {key: tensor.clone() for key, tensor in loss.state_dict().items()}
    for step in loss.passes(1)[0]:
        loss(replace(make_batch(loss.needs, *random_scores()), phase=step.name))
    assert all(torch.equal(tensor, before[key]) for key, tensor in loss.state_dict().items())
