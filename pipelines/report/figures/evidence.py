"""What figures are drawn from: a sweep's results, and of some of its trials more than tables need."""

import json
import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from pipelines.report.cells import REFERENCE, Cell, sweep_cells
from pipelines.report.table import Column
from pipelines.tracking import Results, TrialRun
from pipelines.tracking.artifacts import read_diagnostics
from pipelines.tracking.histories import History, read_histories
from recloss.metrics import metric_name, parse_metric

THRESHOLD, THRESHOLD_ERROR = "train/threshold", "train/threshold_error"
_DEFAULT_METRIC = "ndcg_20"

Place = tuple[str, str]
"""Names of a data set and a backbone."""


@dataclass(frozen=True)
class Evidence:
    """Everything that figures are drawn from."""

    results: Results
    mix_fingerprints: bool = False
    histories: Mapping[str, Mapping[str, History]] = field(default_factory=dict)
    """By trial and metric."""
    diagnostics: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By trial: see `pipelines.train.diagnostics`."""

    @cached_property
    def panels(self) -> dict[Place, list[Cell]]:
        """The cells of each data set and backbone in the sweep's order; references stand in all of their data set."""
        cells = sweep_cells(self.results, self.mix_fingerprints)
        found: dict[Place, list[Cell]] = {}
        for cell in cells:
            if cell.backbone != REFERENCE:
                found.setdefault((cell.data, cell.backbone), []).append(cell)
        for (data, _), group in found.items():
            group += [cell for cell in cells if cell.backbone == REFERENCE and cell.data == data]
        return found

    @cached_property
    def metric(self) -> str:
        """The validation metric that selected most cells, such as ``ndcg_20``."""
        cells = [cell for group in self.panels.values() for cell in group]
        names = Counter(cell.selection.metric.removeprefix("valid/") for cell in cells if cell.selection)
        return names.most_common(1)[0][0] if names else _DEFAULT_METRIC

    @property
    def metric_title(self) -> str:
        """As the papers print it."""
        return title(self.metric)

    def selected_on_it(self, cell: Cell) -> bool:
        """Whether a cell's search went by `metric`; validation values of another one cannot be compared."""
        return cell.selection is not None and cell.selection.metric == f"valid/{self.metric}"

    def confirmed(self, cell: Cell) -> list[TrialRun]:
        """The finished confirmation trials, if all are, on the data of their panel; else none."""
        finished = [trial for trial in cell.confirmation if trial.status == "FINISHED"]
        whole = len(finished) == len(self.results.settings["confirm_seeds"])
        return finished if whole and cell.fingerprint == cell.column_fingerprint else []

    def tested(self, cell: Cell, metric: str) -> float | None:
        """Mean over the confirmation seeds of a test metric; ``None`` where one is missing."""
        values = [trial.metrics.get(f"test/{metric}") for trial in self.confirmed(cell)]
        known = [value for value in values if value is not None]
        return statistics.fmean(known) if known and len(known) == len(values) else None

    def cutoffs(self, cell: Cell) -> list[int]:
        """Those of its protocol, ascending."""
        return sorted(json.loads(cell.selection.configuration["protocol.cutoffs"])) if cell.selection else []

    def best_of_each(self, cell: Cell, setting: str) -> dict[float, tuple[float, list[TrialRun]]]:
        """For each value of a numeric setting, the best configuration of the search that has it.

        Returns:
            By value, ascending: the best validation metric of each of its trials, averaged over the search's seeds, and
            the trials. Configurations with a trial that did not finish are left out.
        """
        found: dict[float, tuple[float, list[TrialRun]]] = {}
        for reached, trials in self.configurations(cell):
            if setting not in trials[0].params:
                continue
            value = float(trials[0].params[setting])
            if reached > found.get(value, (-1.0, []))[0]:
                found[value] = reached, trials
        return dict(sorted(found.items()))

    def configurations(self, cell: Cell) -> list[tuple[float, list[TrialRun]]]:
        """The configurations of the search that finished with all its seeds, as they came.

        Returns:
            Of each the best validation metric of its trials, averaged over the search's seeds, and the trials.
        """
        configurations: dict[frozenset[tuple[str, str]], list[TrialRun]] = defaultdict(list)
        for trial in cell.grid:
            if trial.status == "FINISHED":
                configurations[frozenset(trial.configuration.items())].append(trial)
        return [
            (statistics.fmean(trial.metrics["best"] for trial in trials), trials)
            for trials in configurations.values()
            if len(trials) == len(self.results.settings["seeds"])
        ]

    def diagnosed(self, cell: Cell) -> list[Mapping[str, Any]]:
        """What is known of its confirmation trials, by seed."""
        trials = sorted(self.confirmed(cell), key=lambda trial: trial.seed)
        return [self.diagnostics[trial.hash] for trial in trials if trial.hash in self.diagnostics]


def title(metric: str) -> str:
    """A metric as the papers print it."""
    return Column("", "", "", "", metric).metric_title


def read_evidence(uri: str, results: Results, mix_fingerprints: bool = False) -> Evidence:
    """Read from the stores what figures need beside the results.

    Raises:
        InputError: if a store does not answer, or a data set's results are from different contents and
            ``mix_fingerprints`` is not set.
    """
    bare = Evidence(results, mix_fingerprints)
    cells = [cell for group in bare.panels.values() for cell in group]
    confirmed = [trial.hash for cell in cells for trial in bare.confirmed(cell)]
    by_k = [found for cell in cells if len(found := bare.best_of_each(cell, "loss.k")) > 1]
    tried = [trial.hash for found in by_k for _, trials in found.values() for trial in trials]
    measured = [f"valid/{metric_name(parse_metric(bare.metric)[0], k)}" for k in _all_cutoffs(bare, cells)]
    histories = read_histories(uri, results, confirmed, [f"valid/{bare.metric}", THRESHOLD, THRESHOLD_ERROR])
    histories |= read_histories(uri, results, set(tried) - set(confirmed), measured)
    return replace(bare, histories=histories, diagnostics=read_diagnostics(uri, results, confirmed))


def _all_cutoffs(evidence: Evidence, cells: Sequence[Cell]) -> list[int]:
    return sorted({k for cell in cells for k in evidence.cutoffs(cell)})
