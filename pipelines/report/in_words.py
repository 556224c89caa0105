"""Comparisons and rankings as sentences for a reader; and the comparisons as CSV."""

import math
from collections.abc import Iterable
from dataclasses import fields
from itertools import groupby

from pipelines.report.long import csv_text
from pipelines.report.paired import ALPHA, shown_p
from pipelines.report.ranks import Ranking
from pipelines.report.statistics import Comparison

_EFFECTS = ((0.2, "a very small effect"), (0.5, "a small effect"), (0.8, "a medium effect"))
"""Upper ends; J. Cohen, Statistical power analysis for the behavioral sciences (1988), section 2.2."""
_UNNAMED = ("backbone_title", "metric_title", "one_title", "other_title")


def sentence(comparison: Comparison, units: str = "users") -> str:
    """What a comparison found, in one sentence; ``units`` are what was measured one by one."""
    c = comparison
    told = c.p < ALPHA
    sign = -1 if told and c.difference < 0 else 1
    low, high = sorted((sign * c.ci_low, sign * c.ci_high))
    size = f"{sign * c.difference:.4f} {c.metric_title}"
    if told:
        claim = f"{c.one_title} is {'better' if c.difference > 0 else 'worse'} than {c.other_title} by {size}"
        claim += "" if c.significant else ", but not significantly once corrected"
    else:
        claim = f"{c.one_title} cannot be told from {c.other_title}, difference {size}"
    basis = f"{c.n_users} {units}, {c.n_seeds} {'seed' if c.n_seeds == 1 else 'seeds'}"
    p = f"t-test {shown_p(c.p)}, Holm-corrected {shown_p(c.p_holm).removeprefix('p = ').removeprefix('p ')}"
    return f"{claim} (95 % CI {low:.4f} to {high:.4f}; {basis}; {p}; {_effect(sign * c.effect)})"


def by_question(comparisons: Iterable[Comparison], units: str = "users") -> list[tuple[str, list[str]]]:
    """The sentences under a heading for each family of hypotheses, in the order of the comparisons."""
    return [(heading, [sentence(c, units) for c in group]) for heading, group in groupby(comparisons, key=_heading)]


def ranking_lines(ranking: Ranking) -> list[str]:
    """A ranking across data sets: its mean ranks, what its test found, and what was left out."""
    r = ranking
    many = (
        f"{len(r.data)} data {'set' if len(r.data) == 1 else 'sets'} ({', '.join(r.data)})" if r.data else "no data set"
    )
    placed = ", ".join(f"{title} {place:.2f}" for title, place in zip(r.titles, r.ranks, strict=True))
    lines = [f"{r.backbone_title}, {r.metric_title}, mean ranks over {many}, 1 is best: {placed or 'none'}"]
    if r.test is not None:
        freedom = f"{len(r.losses) - 1} degrees of freedom"
        found = f"Friedman's test: chi-square {r.test.statistic:.2f}, {freedom}, {shown_p(r.test.p)}"
        if r.test.p >= ALPHA:
            lines.append(f"{found}: no difference between the losses is shown")
        else:
            far = f"mean ranks further apart than {r.test.critical_difference:.2f} differ significantly (Nemenyi, 5 %)"
            lines.append(f"{found}: the losses differ; {far}")
            lines += [f"cannot be told apart: {', '.join(r.titles[i : j + 1])}" for i, j in r.groups]
    return [*lines, *r.notes]


def significance_csv(comparisons: Iterable[Comparison]) -> str:
    """One line per comparison, by the names in code and unrounded; `Comparison` says what a column is."""
    names = [field.name for field in fields(Comparison) if field.name not in _UNNAMED]
    return csv_text(names, [[getattr(c, name) for name in names] for c in comparisons])


def _heading(c: Comparison) -> str:
    where = f"{c.data}, {c.backbone_title}, {c.metric_title}"
    pairs = f"p corrected for {c.hypotheses} {'pair' if c.hypotheses == 1 else 'pairs'}"
    if c.question == "baseline":
        return f"{where}: against the best baseline, {c.other_title} ({pairs})"
    return f"{where}: the best, {c.one_title}, against the others ({pairs})"


def _effect(effect: float) -> str:
    if math.isinf(effect):
        return "the same difference for every user"
    name = next((name for end, name in _EFFECTS if abs(effect) < end), "a large effect")
    return f"d_z = {effect:.2f}, {name}"
