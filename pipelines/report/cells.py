"""A sweep's results by cell: which trials count in a table, and why a cell may have none."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.prepare.words import differences
from pipelines.references import ALL
from pipelines.settings import REFERENCE, TASKS, Task
from pipelines.tracking import Results, Selection, TrialRun
from recloss.errors import InputError, plain

FINGERPRINT_DIGITS = 12
_ERROR_LENGTH = 200


@dataclass(frozen=True)
class Cell:
    """A data set x backbone x loss; names as in code. A reference's backbone is ``REFERENCE``, its loss the model."""

    data: str
    fingerprint: str
    """Content of the data set that this cell was selected on; empty before the first trial."""
    column_fingerprint: str
    """Content that the data set's columns are of: another one only where contents may be mixed."""
    backbone: str
    loss: str
    selection: Selection | None
    grid: tuple[TrialRun, ...]
    """Trials of the search, on this content."""
    confirmation: tuple[TrialRun, ...]
    """Trials of the selected configuration on the confirmation seeds."""
    notes: tuple[str, ...] = ()
    """What a reader should know of its search."""
    task: Task = "pairs"
    """Of its trials."""

    @property
    def backbone_title(self) -> str:
        """The backbone as the papers print it."""
        return title(TASKS[self.task].backbones, self.backbone)

    @property
    def loss_title(self) -> str:
        """The loss, or the reference model, as the papers print it."""
        return title(ALL if self.backbone == REFERENCE else TASKS[self.task].losses, self.loss)

    @property
    def points(self) -> int:
        """Number of different configurations that were tried."""
        return len({frozenset(trial.configuration.items()) for trial in self.grid})

    @property
    def failure(self) -> str:
        """Error of a failed confirmation trial; empty if none failed."""
        return _first_error(self.confirmation)

    @property
    def why_unselected(self) -> str:
        """Why the search has no result."""
        if not self.grid:
            return "no trial yet"
        failed = [trial for trial in self.grid if trial.status == "FAILED"]
        if len(failed) == len(self.grid):
            return f"every grid trial failed, one with: {_first_error(failed)}"
        if failed:
            return f"no configuration selected; a grid trial failed with: {_first_error(failed)}"
        return "no configuration selected yet"


def sweep_cells(results: Results, mix_fingerprints: bool = False) -> list[Cell]:
    """The cells of the sweep's settings, in their order: of each data set the references, then backbones, losses.

    Args:
        results: what the tracking store holds.
        mix_fingerprints: let the cells of a data set be from different contents, each with its own fingerprint.

    Raises:
        InputError: if they are, and this was not asked for.
    """
    trials: dict[tuple[str, str, str], list[TrialRun]] = defaultdict(list)
    for trial in results.trials:
        trials[trial.data, trial.backbone, trial.loss].append(trial)
    spec = TASKS[task_of(results)]
    models = [(REFERENCE, canonical(ALL, name)) for name in results.settings.get("references", {})]
    models += [
        (canonical(spec.backbones, backbone), canonical(spec.losses, loss))
        for backbone in results.settings["backbones"]
        for loss in results.settings["losses"]
    ]
    names = [(data["name"], *model) for data in results.settings["data"] for model in models]
    fingerprints = {data: _fingerprint(results, data, names, mix_fingerprints) for data, _, _ in names}
    return [_cell(results, name, fingerprints[name[0]], trials[name]) for name in names]


def baselines(results: Results) -> list[str]:
    """Names in code of the losses and references that the sweep declares as baselines."""
    known = {**TASKS[task_of(results)].losses, **ALL}
    return [canonical(known, name) for name in results.settings["baselines"]]


def task_of(results: Results) -> Task:
    """What the sweep's trials train for; sweeps from before there were tasks trained on pairs."""
    return results.settings.get("task", "pairs")


def difference(results: Results, one: str, other: str) -> str:
    """How two contents of a data set differ, as far as it is recorded."""
    known = [results.manifests.get(fingerprint) for fingerprint in (one, other)]
    if known[0] is None or known[1] is None:
        return "how they differ is not recorded"
    return plain(f"they differ in {'; '.join(differences(known[0], known[1]))}")


def canonical(registry: Mapping[str, Any], name: str) -> str:
    """Name in code of a loss or backbone: "SL@K" is "slatk"; an unknown name stays."""
    key = name.lower().replace("@", "at")
    return key if key in registry else name


def title(registry: Mapping[str, Any], name: str) -> str:
    """How the papers print a loss or backbone; the plain name of one that this installation does not know."""
    return registry[name].title if name in registry else plain(name)


def _cell(results: Results, name: tuple[str, str, str], fingerprint: str, trials: list[TrialRun]) -> Cell:
    data, backbone, loss = name
    selection = results.selections.get(name)
    column_fingerprint = fingerprint
    if selection is not None:
        fingerprint = selection.configuration["data"]
    return Cell(
        data=data,
        fingerprint=fingerprint,
        column_fingerprint=column_fingerprint,
        backbone=backbone,
        loss=loss,
        selection=selection,
        grid=tuple(t for t in trials if "grid" in t.stages and t.fingerprint == fingerprint),
        confirmation=tuple(
            t
            for t in trials
            if "confirm" in t.stages
            and t.seed in results.settings["confirm_seeds"]
            and selection is not None
            and t.configuration == selection.configuration
        ),
        notes=results.notes.get(name, ()),
        task=task_of(results),
    )


def _fingerprint(results: Results, data: str, names: list[tuple[str, str, str]], mix: bool) -> str:
    """Content that a data set's cells were selected on (of several, the latest), else that of its latest trial."""
    selected = {
        results.selections[name].configuration["data"]: name
        for name in names
        if name[0] == data and name in results.selections
    }
    if len(selected) > 1 and not mix:
        contents = sorted(selected)
        found = [f"{f[:FINGERPRINT_DIGITS]} ({', '.join(selected[f][1:])})" for f in contents]
        raise InputError(
            f"data set {plain(data)!r}: its results are from different contents, fingerprints {' and '.join(found)}: "
            f"{'; '.join(difference(results, contents[0], other) for other in contents[1:])}. They cannot share a "
            "column: run the sweep again on one of them, or see them side by side with --mix-fingerprints"
        )
    trials = [t for t in results.trials if t.data == data and (not selected or t.fingerprint in selected)]
    latest = max(trials, key=lambda t: t.start, default=None)
    return latest.fingerprint if latest else next(iter(selected), "")


def _first_error(trials: Sequence[TrialRun]) -> str:
    errors = (plain(t.error or "")[:_ERROR_LENGTH] or "no error text" for t in trials if t.status == "FAILED")
    return next(errors, "")
