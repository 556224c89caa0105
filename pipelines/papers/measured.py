"""What the tracking store holds on an experiment of a paper."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.papers import sources
from pipelines.papers.catalogue import Preset, Variant
from pipelines.papers.compare import Line, Measured, relative
from pipelines.papers.inside import INSIDE, Diagnosis
from pipelines.papers.settled import others
from pipelines.papers.sweeps import Hyper, PaperSweep, paper_sweeps
from pipelines.tracking import Results, Selection, TrialRun, experiments, read_results
from pipelines.tracking.artifacts import read_diagnostics, read_test_users
from pipelines.tracking.histories import History, read_histories
from recloss.errors import plain

if TYPE_CHECKING:
    import pyarrow as pa

EPOCH_SECONDS = "epoch_seconds"
"""Training time of an epoch, beside the metrics of the test."""
_ERROR_LENGTH = 120


@dataclass(frozen=True)
class MeasuredCell:
    """A row of the paper on a data set and backbone."""

    sweep: PaperSweep
    variant: Variant
    selection: Selection | None = None
    confirmed: tuple[TrialRun, ...] = ()
    """Finished trials of the selected configuration that were scored on test, by seed."""
    trials: tuple[TrialRun, ...] = ()
    """All of them, search and confirmation."""
    missing: str = ""
    """Why nothing is measured."""
    seeds: int = 0
    """Confirmation seeds that were asked for."""
    diagnoses: Mapping[str, Diagnosis] = field(default_factory=dict)
    """Of the confirmed trials that have one, by hash."""
    other: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """Settings that it was run with and that are not the preset's, as (is, should be)."""

    @property
    def diagnosed(self) -> bool:
        """Whether the inside of any of its models is known."""
        return any(trial.hash in self.diagnoses for trial in self.confirmed)

    def measured(self, metric: str) -> Measured | None:
        """A metric of the test, seconds per epoch or a metric of `INSIDE`, by seed; ``None`` where no seed has it."""
        found = {trial.seed: value for trial in self.confirmed if (value := self._value(trial, metric)) is not None}
        return Measured(tuple(found.values()), tuple(found)) if found else None

    def _value(self, trial: TrialRun, metric: str) -> float | None:
        if metric == EPOCH_SECONDS:
            return trial.epoch_seconds
        if metric in INSIDE:
            _, look = INSIDE[metric]
            return look(self.diagnoses[trial.hash]) if trial.hash in self.diagnoses else None
        return trial.metrics.get(f"test/{metric}")


@dataclass(frozen=True)
class MeasuredExperiment:
    """An experiment of a paper as far as it was run."""

    preset: Preset
    hyper: Hyper
    cells: tuple[MeasuredCell, ...]
    results: Mapping[str, Results]
    """By name of the sweep, those that are in the store."""
    users: "Mapping[str, pa.Table]" = field(default_factory=dict)
    """Test metrics per user by trial hash, of the trials that have the file."""
    histories: Mapping[str, Mapping[str, History]] = field(default_factory=dict)
    """Of the metric that is shown over the epochs, by trial hash and metric."""

    @property
    def lines(self) -> list[Line]:
        """Every number that is reported, beside what was measured, in the order of the experiment; of rows that are
        not the paper's, what was measured."""
        preset, metrics = self.preset, self.preset.metrics or self._measured_metrics()
        reported, units = _relative_reported(preset), self._units()
        lines = []
        for cell in self.cells:
            sweep, label = cell.sweep, cell.variant.label
            tolerance = preset.own.tolerance if cell.variant.settings.target else None
            for metric in metrics:
                value = reported.get((sweep.data, sweep.backbone, label, metric))
                if value is None and metric not in preset.own.metrics and any(k[2] == label for k in preset.reported):
                    continue
                measured = cell.measured(metric)
                if value is None and measured is None and metric in INSIDE and cell.diagnosed:
                    continue  # such as the threshold of a loss without one
                if measured and metric == EPOCH_SECONDS and preset.own.relative_to:
                    unit = units.get((sweep.data, sweep.backbone))
                    measured = Measured(tuple(v / unit for v in measured.values), measured.seeds) if unit else None
                missing = "" if measured else cell.missing or "not measured"
                target = None if metric == EPOCH_SECONDS else tolerance
                place = (sweep.data, sweep.backbone, label, metric)
                lines.append(Line(*place, value, measured, missing, target, bool(cell.other)))
        return lines

    def _measured_metrics(self) -> list[str]:
        names = dict.fromkeys(n for cell in self.cells for t in cell.confirmed for n in t.metrics)
        wanted = ("test/recall_", "test/ndcg_", "test/precision_")
        return [name.removeprefix("test/") for name in names if name.startswith(wanted)]

    def _units(self) -> dict[tuple[str, str], float]:
        """Seconds per epoch of the row that others are relative to, by data set and backbone."""
        found = {}
        for cell in self.cells:
            seconds = cell.measured(EPOCH_SECONDS)
            if seconds and cell.variant.label == self.preset.own.relative_to:
                found[cell.sweep.data, cell.sweep.backbone] = seconds.mean
        return found


def read_experiment(
    uri: str, preset: Preset, hyper: Hyper, raw: Mapping[str, Path], spaces: Path | None
) -> MeasuredExperiment:
    """Read what was measured of an experiment.

    Args:
        uri: of the tracking store.
        preset: the experiment.
        hyper: see `paper_sweeps`.
        raw: what ``--raw`` names, to tell data that are missing.
        spaces: the user's own folder of search spaces.

    Raises:
        InputError: if the store does not answer.
    """
    wanted = paper_sweeps(preset, hyper, losses=[*preset.run.rows, *preset.run.extra])
    in_store = set(experiments(uri))
    results = {sweep.name: read_results(uri, sweep.name) for sweep in wanted if sweep.name in in_store}
    cells = []
    for sweep in wanted:
        known = results.get(sweep.name)
        other = others(preset, sweep, hyper, known, spaces) if known else {}
        for variant in sweep.variants:
            if known is not None:
                cell = _cell(known, sweep, variant)
                if cell.trials or variant.row not in preset.run.extra:
                    cells.append(replace(cell, other=other.get(variant.settings.loss, {})))
            elif variant.row not in preset.run.extra:
                missing = sources.state(preset, sweep.data, raw) == "data missing"
                cells.append(MeasuredCell(sweep, variant, missing="data missing" if missing else "not run"))
    hashes = {name: {t.hash for c in cells if c.sweep.name == name for t in c.confirmed} for name in results}
    users: dict[str, pa.Table] = {}
    diagnoses: dict[str, Diagnosis] = {}
    histories: dict[str, dict[str, History]] = {}
    for name, known in results.items():
        users |= read_test_users(uri, known, hashes[name], preset.metrics)
        if INSIDE.keys() & set(preset.metrics):
            diagnoses |= read_diagnostics(uri, known, hashes[name])
        if preset.own.over_epochs:
            histories |= read_histories(uri, known, hashes[name], [preset.own.over_epochs])
    diagnosed = tuple(replace(cell, diagnoses=diagnoses) for cell in cells)
    return MeasuredExperiment(preset, hyper, diagnosed, results, users, histories)


def _cell(results: Results, sweep: PaperSweep, variant: Variant) -> MeasuredCell:
    loss = variant.settings.loss
    trials = tuple(t for t in results.trials if (t.data, t.backbone, t.loss) == (sweep.data, sweep.backbone, loss))
    selection = results.selections.get((sweep.data, sweep.backbone, loss))
    if not trials:
        return MeasuredCell(sweep, variant, missing="not run")
    failed = next((plain(t.error or "no error text")[:_ERROR_LENGTH] for t in trials if t.status == "FAILED"), "")
    if selection is None:
        over = sum(t.status == "FINISHED" for t in trials)
        missing = f"failed: {failed}" if failed else f"being searched, {over} trials done"
        return MeasuredCell(sweep, variant, trials=trials, missing=missing)
    mine = [t for t in trials if "confirm" in t.stages and t.configuration == selection.configuration]
    scored = [t for t in mine if t.status == "FINISHED" and any(name.startswith("test/") for name in t.metrics)]
    missing = "" if scored else (f"failed: {failed}" if failed else "selected, not confirmed yet")
    by_seed = tuple(sorted(scored, key=lambda t: t.seed))
    seeds = len({*results.settings["confirm_seeds"], *(t.seed for t in by_seed)})
    return MeasuredCell(sweep, variant, selection, by_seed, trials, missing, seeds)


def _relative_reported(preset: Preset) -> dict[tuple[str, str, str, str], float]:
    """The reported numbers, seconds per epoch as multiples of the row they are relative to."""
    unit = preset.own.relative_to
    if unit is None:
        return preset.reported
    found = {key: value for key, value in preset.reported.items() if key[3] != EPOCH_SECONDS}
    seconds: dict[tuple[str, str], dict[str, float]] = {}
    for (data, backbone, row, metric), value in preset.reported.items():
        if metric == EPOCH_SECONDS:
            seconds.setdefault((data, backbone), {})[row] = value
    for (data, backbone), by_row in seconds.items():
        found |= {(data, backbone, row, EPOCH_SECONDS): value for row, value in relative(by_row, unit).items()}
    return found
