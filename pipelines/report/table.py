"""The comparison table of a sweep: losses by family down; data sets, backbones and metrics across.

Scores are of confirmation trials on the test split. What is missing is a footnote, never a number.
"""

import json
import statistics
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from pipelines.report.cells import FINGERPRINT_DIGITS, Cell, baselines, difference, sweep_cells
from pipelines.report.header import header
from pipelines.settings import REFERENCE, TASKS
from pipelines.tracking import Results
from recloss.errors import InputError, choices, plain
from recloss.metrics import parse_metric

_METRIC_TITLES = {"ndcg": "NDCG", "mrr": "MRR", "hit_rate": "HitRate"}
_LOWER_IS_BETTER = ("gini",)
REFERENCES, _OTHER = "references", "other"
"""Groups of rows, in their order; "other" is a loss that this installation does not know."""
_SIGNIFICANT = (
    "* significantly better than the best baseline: paired t-test over {units}, p < 0.05 after Holm's correction"
)


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
    significant: bool = False
    """Whether it is significantly better than the best baseline of its column."""

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
        """The metric as the papers print it: ``NDCG@20``, ``Recall@20 (tail)``; with an arrow where lower is better.

        Without a cut-off, as of links, ``MRR``.
        """
        name, _, k = self.metric.rpartition("_")
        if not name:
            return _METRIC_TITLES[k]
        name, _, group = (name, "", "") if name in _METRIC_TITLES else name.partition("_")
        arrow = " ↓" if self.lower_is_better else ""
        return f"{_METRIC_TITLES.get(name, name.capitalize())}@{k}{f' ({group})' if group else ''}{arrow}"

    @property
    def lower_is_better(self) -> bool:
        """Whether the smallest value is the best."""
        return self.metric.rpartition("_")[0] in _LOWER_IS_BETTER


@dataclass(frozen=True)
class Row:
    """A loss, or a reference model, with a score per column."""

    loss: str
    title: str
    scores: tuple[Score, ...]
    family: str
    """Title of the group of rows that it stands in."""


@dataclass(frozen=True)
class Improvement:
    """The best loss that is no baseline over the best baseline."""

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
    units: str = "users"
    """What is measured one by one, and paired in tests."""

    @property
    def families(self) -> list[tuple[str, list[Row]]]:
        """The rows by family."""
        return [(family, list(rows)) for family, rows in groupby(self.rows, key=lambda row: row.family)]

    @property
    def legend(self) -> list[str]:
        """What the marks mean that the table has."""
        starred = any(score.significant for row in self.rows for score in row.scores)
        return [
            "best {best}, second {second}, by unrounded mean",
            *([_SIGNIFICANT.format(units=self.units)] if starred else []),
        ]


def build_table(results: Results, metrics: Sequence[str] | None = None, mix_fingerprints: bool = False) -> Table:
    """Make the comparison table of a sweep.

    Args:
        results: what the tracking store holds.
        metrics: such as ``["ndcg_20"]``; where not given, those that the task shows at every cut-off of the protocol.
        mix_fingerprints: show results on other contents of a data set than its column's, with a footnote and unranked.

    Raises:
        InputError: for a metric that was not measured, or if a data set's results are from different contents and
            ``mix_fingerprints`` is not set.
    """
    cells = sweep_cells(results, mix_fingerprints)
    names = _metrics(cells, metrics)
    notes = _Notes()
    declared = baselines(results)

    columns: list[Column] = []
    improvements: list[Improvement] = []
    rows: dict[str, list[Score]] = {}
    for group in _groups(cells):
        c = group[-1]
        for metric in names:
            column = Column(plain(c.data), c.column_fingerprint, c.backbone, c.backbone_title, metric)
            scores = _marked({cell.loss: _score(results, cell, metric, notes) for cell in group}, column)
            columns.append(column)
            for loss, score in scores.items():
                rows.setdefault(loss, []).append(score)
            if declared:
                rivals = [cell.loss for cell in group if cell.backbone != REFERENCE and cell.loss not in declared]
                improvements.append(_improvement(_means(scores), declared, rivals, column, notes))

    cell_of = {cell.loss: cell for cell in cells}
    families = (REFERENCES, *TASKS[cells[0].task].families, _OTHER)
    made = [Row(loss, cell_of[loss].loss_title, tuple(scores), _family(cell_of[loss])) for loss, scores in rows.items()]
    return Table(
        sweep=plain(results.experiment),
        header=tuple(header(results, cells)),
        columns=tuple(columns),
        rows=tuple(sorted(made, key=lambda row: families.index(row.family))),
        improvements=tuple(improvements),
        notes=tuple(notes.texts),
        units=TASKS[cells[0].task].units,
    )


def with_stars(table: Table, better: Container[tuple[str, str, str, str]]) -> Table:
    """The table with these scores (data set, backbone, metric, loss) significantly better than the best baseline."""
    rows = []
    for row in table.rows:
        starred = [
            replace(score, significant=(c.data, c.backbone, c.metric, row.loss) in better)
            for c, score in zip(table.columns, row.scores, strict=True)
        ]
        rows.append(replace(row, scores=tuple(starred)))
    return replace(table, rows=tuple(rows))


def _metrics(cells: Sequence[Cell], wanted: Sequence[str] | None) -> list[str]:
    if wanted is None:
        texts = {cell.selection.configuration["protocol.cutoffs"] for cell in cells if cell.selection}
        cutoffs = sorted({k for text in texts for k in json.loads(text)}) or [20]
        return TASKS[cells[0].task].shown_at(cutoffs)
    tested = {name for cell in cells for trial in cell.confirmation for name in trial.metrics}
    measured = {name.removeprefix("test/") for name in tested if name.startswith("test/")}
    for name in wanted:
        if measured and name not in measured:
            raise InputError(choices("metric", name, measured))
        if not measured and not name.rpartition("_")[2].isdecimal():
            parse_metric(name)
    return list(dict.fromkeys(wanted))


def _groups(cells: Sequence[Cell]) -> list[list[Cell]]:
    """Cells that share columns: those of a data set and backbone, behind the references of the data set."""
    references: dict[str, list[Cell]] = {}
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        if cell.backbone == REFERENCE:
            references.setdefault(cell.data, []).append(cell)
        else:
            groups.setdefault((cell.data, cell.backbone), []).append(cell)
    return [[*references.get(data, []), *group] for (data, _), group in groups.items()]


def _family(cell: Cell) -> str:
    if cell.backbone == REFERENCE:
        return REFERENCES
    spec = TASKS[cell.task]
    return next((name for name, members in spec.families.items() if spec.losses.get(cell.loss) in members), _OTHER)


class _Notes:
    """Footnotes, numbered as they come; the same text has one number."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def number(self, text: str) -> int:
        if text not in self.texts:
            self.texts.append(text)
        return self.texts.index(text) + 1


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


def _marked(scores: dict[str, Score], column: Column) -> dict[str, Score]:
    means = _means(scores)
    ordered = sorted(set(means.values()), reverse=not column.lower_is_better)
    marks = dict(zip(ordered, ("best", "second"), strict=False))
    return {
        loss: replace(score, mark=marks.get(means[loss], "")) if loss in means else score
        for loss, score in scores.items()
    }


def _improvement(
    means: dict[str, float], declared: list[str], rivals: list[str], column: Column, notes: _Notes
) -> Improvement:
    best_of, sign = (min, -100) if column.lower_is_better else (max, 100)
    known, others = ([means[name] for name in names if name in means] for names in (declared, rivals))
    if len(known) < len(declared):
        why = "no improvement is told before every baseline is ranked"
    elif not others:
        why = "no loss beside the baselines is ranked"
    elif best_of(known) == 0:
        why = "the best baseline scored 0"
    else:
        return Improvement(sign * (best_of(others) / best_of(known) - 1))
    return Improvement(None, (notes.number(why),))
