"""How often metrics disagree on two random rankings: table 1.1 of the Talos paper, a simulation without training."""

from collections.abc import Callable

import torch
from torch import Tensor

from pipelines.papers.catalogue import Preset
from pipelines.papers.shown import Grid
from pipelines.report.markdown import escape

ITEMS, K, TRIALS, SEED = 200, 20, 10_000, 0
"""Ranked items, the cut-off, pairs of rankings, and the seed of their draws."""
POSITIVES: dict[str, tuple[int, int]] = {
    "5": (5, 5),
    "10": (10, 10),
    "20": (20, 20),
    "50": (50, 50),
    "1 to 199": (1, 199),
}
"""By name the smallest and largest number of positives, drawn evenly."""
ALPHA, BETA = 0.5, 0.5
"""Share of the positives and of the negatives that LLPAUC looks at, those with the highest scores."""


def auc(relevant: Tensor) -> Tensor:
    """Number of correctly ordered pairs of a positive and a negative: AUC but for a factor; see `REFERENCES`."""
    return _pairs(relevant, 1.0, 1.0)


def llpauc(relevant: Tensor) -> Tensor:
    """Correctly ordered pairs of the first ``ALPHA`` positives and the first ``BETA`` negatives.

    Source: lower-left partial AUC (Shi et al., WWW 2024).
    """
    return _pairs(relevant, ALPHA, BETA)


def dcg(relevant: Tensor) -> Tensor:
    """Over all ranks: NDCG but for a factor."""
    ranks = torch.arange(1, relevant.shape[-1] + 1, dtype=torch.float64)
    return (relevant / torch.log2(ranks + 1)).sum(-1)


def dcg_at_k(relevant: Tensor) -> Tensor:
    """Over the first K ranks: NDCG@K but for a factor."""
    return dcg(relevant[..., :K])


def hits(relevant: Tensor) -> Tensor:
    """Among the first K: Precision@K and Recall@K but for a factor."""
    return relevant[..., :K].sum(-1)


REFERENCES: dict[str, Callable[[Tensor], Tensor]] = {"AUC": auc, "LLPAUC": llpauc, "NDCG": dcg, "NDCG@20": dcg_at_k}
"""Of (..., ITEMS) rankings with 1 at the positives; two rankings of as many positives share the factor left out."""


def _pairs(relevant: Tensor, of_positives: float, of_negatives: float) -> Tensor:
    n = relevant.sum(-1, keepdim=True)
    considered = (of_negatives * (relevant.shape[-1] - n)).ceil()
    below = (considered - (1 - relevant).cumsum(-1)).clamp(min=0)
    first = relevant.cumsum(-1) <= (of_positives * n).ceil()
    return (relevant * first * below).sum(-1)


def rankings(fewest: int, most: int, trials: int, seed: int) -> Tensor:
    """(trials, 2, ITEMS) pairs of rankings, 1 at the positives; the two of a pair have as many positives."""
    generator = torch.Generator().manual_seed(seed)
    n = torch.randint(fewest, most + 1, (trials, 1, 1), generator=generator)
    places = torch.rand(trials, 2, ITEMS, generator=generator).argsort(-1)
    return (places < n).double()


def inconsistent(relevant: Tensor, reference: Callable[[Tensor], Tensor], ties: bool) -> float:
    """Share of the pairs of which the reference prefers one and Precision@K the other.

    Args:
        relevant: see `rankings`.
        reference: one of `REFERENCES`.
        ties: a pair that one of the two finds equal and the other does not counts as inconsistent.
    """
    of_reference, of_hits = (metric(relevant).diff(dim=-1)[:, 0].sign() for metric in (reference, hits))
    apart = of_reference != of_hits if ties else of_reference * of_hits < 0
    return float(apart.double().mean())


def simulated(preset: Preset) -> list[str]:
    """The table of the paper beside what the simulation gives under several readings of it."""
    headings = [f"{n}{', ties count' if ties else ''}" for n in POSITIVES for ties in (False, True)]
    grid = Grid(["Metric", "Reported", *headings], "l-" + "-" * len(headings))
    drawn = {n: rankings(*bounds, TRIALS, SEED) for n, bounds in POSITIVES.items()}
    for name, reference in REFERENCES.items():
        reported = [value for (_, _, row, _), value in preset.reported.items() if row == name]
        shares = [inconsistent(drawn[n], reference, ties) for n in POSITIVES for ties in (False, True)]
        grid.add(name, f"{min(reported):.1f} to {max(reported):.1f}", *(f"{100 * share:.1f}" for share in shares))
    return [
        "```bash",
        f"recloss paper report {preset.id}",
        "```",
        "",
        f"Percent of {TRIALS:,} pairs of random rankings of {ITEMS} items of which the metric prefers one and "
        f"Precision@{K} the other. The two rankings of a pair have the same number of positives, so Recall agrees with "
        "Precision. Columns: that number, and whether a pair counts that one metric finds equal and the other does "
        "not. Reported: lowest and highest of the paper's four data sets, for Precision and Recall.",
        "",
        *grid.lines,
        "",
        *(f"- {escape(note)}" for note in preset.own.notes),
    ]
