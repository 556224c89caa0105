"""What a trained model and its loss look like from inside, for figures: scores, gradients and thresholds, summed up.

`diagnose` looks at training pairs with negatives that the trial has not seen and at the thresholds of some users. It
changes nothing of the trial, and its result is a small JSON object.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from pipelines.settings import Trial
from recloss.backbones import Backbone
from recloss.evaluation import evaluating
from recloss.interactions import Interactions
from recloss.losses import Batch, Loss
from recloss.parallel import Rows, Shard
from recloss.randomness import permutation, stream_key
from recloss.sampling import Sampler
from recloss.similarity import prepare
from recloss.training import filled

PAIRS, USERS = 2_000, 2_000
"""Training pairs and users that are looked at, at most."""
TOP_SHARE = 0.05
"""Samples with the largest gradients whose share of all gradients is told."""
_QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
_SCORE_BINS, _THRESHOLD_BINS = 60, 40


def diagnose(trial: Trial, backbone: Backbone, loss: Loss, train: Interactions, sampler: Sampler) -> dict[str, Any]:
    """Scores, gradients and thresholds of a trained model.

    The pairs are the first of the epoch after the trial's last possible one, with that epoch's negatives; the gradient
    of a sample is that of the mean loss of its batch with respect to its score, in the steps that train the model, with
    all modules in evaluation mode.

    Returns:
        ``pairs`` and ``negatives`` (numbers of samples); ``scores``: ``edges`` of a histogram, counts and quantiles of
        ``positive`` and ``negative`` scores; ``gradient``: per kind of sample the ``share`` of the sum of absolute
        gradients that the 5 % largest have, ``None`` where all are 0, and the share of negatives without gradient; and
        for a loss that estimates top-K thresholds ``threshold``: the edges and joint counts of estimated (rows) and
        exact (columns) top-K thresholds of ``users``, their ``correlation`` (``None`` where one does not vary),
        ``mean_absolute_error`` and ``mean_error``.
    """
    with evaluating(backbone), evaluating(loss):
        with torch.no_grad():
            user_table, item_table = backbone.embed()
            v_ID = prepare(item_table, loss.similarity)
        parts = [_samples(trial, loss, train, sampler, rows, user_table, v_ID) for rows in _rows(trial, train)]
        positive, negative, of_positive, of_negative = (torch.cat(part) for part in zip(*parts, strict=True))
        estimated = loss.thresholds
    found = {
        "pairs": len(positive),
        "negatives": len(negative),
        "scores": _scores(positive, negative),
        "gradient": {
            "top": TOP_SHARE,
            "positive": top_share(of_positive, TOP_SHARE),
            "negative": top_share(of_negative, TOP_SHARE),
            "zero_negatives": float((of_negative == 0).double().mean()),
        },
    }
    users = permutation(len(user_table), stream_key(trial.seed, 0, "diagnosed users"))[:USERS].to(v_ID.device)
    exact = loss.exact_thresholds(prepare(user_table[users], loss.similarity), v_ID)
    if estimated is not None and exact is not None:
        found["threshold"] = {"k": trial.loss.params["k"], **_thresholds(estimated[users].double(), exact.double())}
    return found


def _rows(trial: Trial, train: Interactions) -> list[Rows]:
    order = permutation(len(train), stream_key(trial.seed, _epoch(trial), "order 0"))[:PAIRS]
    pairs = order.to(train.keys.device).split(trial.train.batch_size)
    return list(Shard(train, 0, 1).rows((train.user[places], train.item[places]) for places in pairs))


def _epoch(trial: Trial) -> int:
    return trial.train.epochs + 1


def _samples(
    trial: Trial, loss: Loss, train: Interactions, sampler: Sampler, rows: Rows, user_table: Tensor, v_ID: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Scores of positives and negatives (flat), and the absolute gradients of a row's part of the loss."""
    key = stream_key(trial.seed, _epoch(trial), "negatives 0")
    pos_grad, neg_grad = None, None
    for phase in loss.passes(_epoch(trial))[-1]:
        if phase.trains is not None and "model" not in phase.trains:
            continue
        with torch.no_grad():
            batch = filled(loss, train, sampler, trial.train.negatives, rows, key, rows.users, user_table, v_ID, phase)
        of_pos, of_neg = _gradients(loss, batch)
        pos_grad = of_pos if pos_grad is None else pos_grad + of_pos
        neg_grad = of_neg if neg_grad is None else neg_grad + of_neg
    assert pos_grad is not None
    assert neg_grad is not None
    neg, scale = batch.neg if loss.sampled else batch.logits, len(batch.pos)
    assert neg is not None
    sampled = torch.ones_like(neg, dtype=torch.bool)
    if not loss.sampled:
        sampled.scatter_(1, rows.items[:, None], False)  # the row's positive is no negative
    return batch.pos, neg[sampled], pos_grad.abs() * scale, neg_grad[sampled].abs() * scale


def _gradients(loss: Loss, batch: Batch) -> tuple[Tensor, Tensor]:
    """Of the positives, and of the sampled negatives or all items."""
    name = "neg" if loss.sampled else "logits"
    pos = batch.pos.clone().requires_grad_()
    neg = getattr(batch, name).clone().requires_grad_()
    value = loss(replace(batch, pos=pos, **{name: neg}))
    found = torch.autograd.grad(value, [pos, neg], allow_unused=True, materialize_grads=True)
    return found[0], found[1]


def top_share(gradients: Tensor, share: float) -> float | None:
    """Part of the sum of absolute gradients that the largest ``share`` of them (at least one) have; none if all are 0.

    Source: SL@K (KDD 2025), figure 1c.
    """
    total = float(gradients.sum(dtype=torch.float64))
    if total == 0:
        return None
    largest = gradients.topk(max(1, round(share * len(gradients))), sorted=False).values
    return float(largest.sum(dtype=torch.float64)) / total


def _scores(positive: Tensor, negative: Tensor) -> dict[str, Any]:
    edges = _edges(torch.cat([positive, negative]), _SCORE_BINS)
    kinds = {"positive": positive, "negative": negative}
    return {
        "edges": edges.tolist(),
        "quantile_levels": list(_QUANTILES),
        **{kind: {"counts": _counts(x, edges), "quantiles": _quantiles(x)} for kind, x in kinds.items()},
    }


def _edges(values: Tensor, bins: int) -> Tensor:
    low, high = (float(x) for x in values.aminmax())
    if low == high:
        low, high = low - 0.5, high + 0.5
    return torch.linspace(low, high, bins + 1, dtype=torch.float64)


def _bins(values: Tensor, edges: Tensor) -> Tensor:
    """The bin of each value; the last one holds its upper edge."""
    inner = edges[1:-1].to(values.device)
    return torch.bucketize(values.double(), inner, right=True)


def _counts(values: Tensor, edges: Tensor) -> list[int]:
    return _bins(values, edges).bincount(minlength=len(edges) - 1).tolist()


def _quantiles(values: Tensor) -> list[float]:
    places = torch.tensor(_QUANTILES, dtype=torch.float64) * (len(values) - 1)
    return values.double().sort().values[places.round().long().to(values.device)].tolist()


def _thresholds(estimate: Tensor, exact: Tensor) -> dict[str, Any]:
    edges = _edges(torch.cat([exact, estimate]), _THRESHOLD_BINS)
    places = _bins(estimate, edges) * _THRESHOLD_BINS + _bins(exact, edges)
    joint = places.bincount(minlength=_THRESHOLD_BINS**2).view(_THRESHOLD_BINS, _THRESHOLD_BINS)
    error = estimate - exact
    varies = min(float(x.std(correction=0)) for x in (exact, estimate)) > 0
    return {
        "users": len(exact),
        "edges": edges.tolist(),
        "joint": joint.tolist(),
        "correlation": float(torch.corrcoef(torch.stack([exact, estimate]))[0, 1]) if varies else None,
        "mean_absolute_error": float(error.abs().mean()),
        "mean_error": float(error.mean()),
    }
