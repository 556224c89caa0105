"""The comparison table of a sweep: losses down; data sets, backbones and metrics across.

Scores are of confirmation trials on the test split. What is missing is a footnote, never a number.
"""

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipelines.report.cells import FINGERPRINT_DIGITS, Cell, canonical, difference, sweep_cells
from pipelines.report.header import header
from pipelines.tracking import Results
from recloss import losses
from recloss.errors import InputError, choices, plain
from recloss.metrics import metric_name, parse_metric

DEFAULT_METRICS = ("recall", "ndcg")
_METRIC_TITLES = {"ndcg": "NDCG", "mrr": "MRR", "hit_rate": "HitRate"}


@dataclass(frozen=True)
class SeedValue:
    """A metric on one confirmation seed."""

    seed: int
    value: float
    trial: str
    """Hash of the trial that measured it."""


@dataclass(frozen=True)
class Score:
    """One metric of one cell."""

    values: tuple[SeedValue, ...]
    """By seed; empty where nothing was measured."""
    complete: bool
    """Whether all confirmation seeds were measured, on the data of the column; others are not ranked."""
    fingerprint: str
    """Content of the data it was measured on."""
    notes: tuple[int, ...] = ()
    """Numbers of its footnotes."""
    mark: str = ""
    """"best" or "second" of its column by unrounded mean; ties share a mark."""

    @property
    def mean(self) -> float | None:
        """Mean over the seeds."""
        return statistics.fmean(v.value for v in self.values) if self.values else None

    @property
    def std(self) -> float | None:
        """Standard deviation over the seeds (n - 1); none for one seed."""
        return statistics.stdev(v.value for v in self.values) if len(self.values) > 1 else None


@dataclass(frozen=True)
class Column:
    """A metric on a data set and backbone."""

    data: str
    fingerprint: str
    backbone: str
    backbone_title: str
    metric: str
    """Such as ``ndcg_20``."""

    @property
    def metric_title(self) -> str:
        """The metric as the papers print it: ``NDCG@20``."""
        name, k = parse_metric(self.metric)
        return f"{_METRIC_TITLES.get(name, name.capitalize())}@{k}"


@dataclass(frozen=True)
class Row:
    """A loss, with a score per column."""

    loss: str
    title: str
    scores: tuple[Score, ...]


@dataclass(frozen=True)
class Improvement:
    """The best other loss over the best baseline."""

    percent: float | None
    """None where it cannot be told; a footnote says why."""
    notes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Table:
    """The comparison table without any markup; all text is printable and on one line."""

    sweep: str
    header: tuple[str, ...]
    """How the numbers came about, line by line."""
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    improvements: tuple[Improvement, ...]
    """One per column; empty where the sweep declares no baselines."""
    notes: tuple[str, ...]
    """Footnotes; the first is number 1."""


def build_table(results: Results, metrics: Sequence[str] | None = None, mix_fingerprints: bool = False) -> Table:
    """Make the comparison table of a sweep.

    Args:
        results: what the tracking store holds.
        metrics: such as ``["ndcg_20"]``; where not given, recall and NDCG at every cut-off of the protocol.
        mix_fingerprints: show results on other contents of a data set than its column's, with a footnote and unranked.

    Raises:
        InputError: for a metric that was not measured, or if a data set's results are from different contents and
            ``mix_fingerprints`` is not set.
    """
    cells = sweep_cells(results, mix_fingerprints)
    names = _metrics(cells, metrics)
    notes = _Notes()
    baselines = [canonical(losses.LOSSES, name) for name in results.settings["baselines"]]

    columns: list[Column] = []
    improvements: list[Improvement] = []
    rows: dict[str, list[Score]] = {}
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.data, cell.backbone), []).append(cell)
    for group in groups.values():
        for metric in names:
            c = group[0]
            columns.append(Column(plain(c.data), c.column_fingerprint, c.backbone, c.backbone_title, metric))
            scores = _marked({cell.loss: _score(results, cell, metric, notes) for cell in group})
            for loss, score in scores.items():
                rows.setdefault(loss, []).append(score)
            if baselines:
                improvements.append(_improvement(scores, baselines, notes))

    titles = {cell.loss: cell.loss_title for cell in cells}
    return Table(
        sweep=plain(results.experiment),
        header=tuple(header(results, cells)),
        columns=tuple(columns),
        rows=tuple(Row(loss, titles[loss], tuple(scores)) for loss, scores in rows.items()),
        improvements=tuple(improvements),
        notes=tuple(notes.texts),
    )


class _Notes:
    """Footnotes, numbered as they come; the same text has one number."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def number(self, text: str) -> int:
        if text not in self.texts:
            self.texts.append(text)
        return self.texts.index(text) + 1


def _metrics(cells: list[Cell], wanted: Sequence[str] | None) -> list[str]:
    if wanted is None:
        texts = {cell.selection.configuration["protocol.cutoffs"] for cell in cells if cell.selection}
        cutoffs = sorted({k for text in texts for k in json.loads(text)}) or [20]
        return [metric_name(metric, k) for k in cutoffs for metric in DEFAULT_METRICS]
    tested = {name for cell in cells for trial in cell.confirmation for name in trial.metrics}
    measured = {name.removeprefix("test/") for name in tested if name.startswith("test/")}
    for name in wanted:
        parse_metric(name)
        if measured and name not in measured:
            raise InputError(choices("metric", name, measured))
    return list(wanted)


def _score(results: Results, cell: Cell, metric: str, notes: _Notes) -> Score:
    key, wanted = f"test/{metric}", len(results.settings["confirm_seeds"])
    finished = [trial for trial in cell.confirmation if trial.status == "FINISHED"]
    values = tuple(SeedValue(t.seed, t.metrics[key], t.hash) for t in finished if key in t.metrics)
    if values and cell.fingerprint != cell.column_fingerprint:
        how = difference(results, cell.column_fingerprint, cell.fingerprint)
        other = f"on other data, fingerprint {cell.fingerprint[:FINGERPRINT_DIGITS]}, not ranked; {how}"
        return Score(values, False, cell.fingerprint, (notes.number(other),))
    if len(values) == wanted:
        return Score(values, True, cell.fingerprint)
    failure = f"failed: {cell.failure}" if cell.failure else ""
    if values:
        why = "; ".join(filter(None, (f"{len(values)} of {wanted} seeds, not ranked", failure)))
    elif cell.selection is None:
        why = cell.why_unselected
    else:
        why = failure or ("not scored on test yet" if finished else "no finished confirmation run")
    return Score(values, False, cell.fingerprint, (notes.number(why),))


def _means(scores: dict[str, Score]) -> dict[str, float]:
    return {loss: score.mean for loss, score in scores.items() if score.complete and score.mean is not None}


def _marked(scores: dict[str, Score]) -> dict[str, Score]:
    means = _means(scores)
    marks = dict(zip(sorted(set(means.values()), reverse=True), ("best", "second"), strict=False))
    return {
        loss: replace(score, mark=marks.get(means[loss], "")) if loss in means else score
        for loss, score in scores.items()
    }


def _improvement(scores: dict[str, Score], baselines: list[str], notes: _Notes) -> Improvement:
    means = _means(scores)
    missing = [name for name in baselines if name not in means]
    others = [mean for loss, mean in means.items() if loss not in baselines]
    best = max((means[name] for name in baselines if name in means), default=0.0)
    if missing:
        why = "no improvement is told before every baseline is ranked"
    elif not others:
        why = "no loss beside the baselines is ranked"
    elif best == 0:
        why = "the best baseline scored 0"
    else:
        return Improvement(100 * (max(others) / best - 1))
    return Improvement(None, (notes.number(why),))
