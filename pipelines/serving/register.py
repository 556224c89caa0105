"""The selected model of each cell of a sweep into MLflow's model registry."""

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.report.cells import Cell, canonical, sweep_cells, task_of
from pipelines.serving.snapshot import write_snapshot
from pipelines.serving.source import data_folder, read_trial
from pipelines.settings import TASKS
from pipelines.sweep.progress import Say
from pipelines.tracking import Results, TrialRun, read_results
from pipelines.tracking.models import ALIAS, RANKING, download_trial, register, registered_version
from pipelines.train.folder import CONFIG, MODEL
from recloss import __version__
from recloss.errors import InputError, choices, plain


@dataclass(frozen=True)
class Registered:
    """A cell's model in the registry."""

    name: str
    version: str
    trial: str
    """Hash."""
    new: bool
    """Whether this call made the version."""


def register_selected(
    uri: str, experiment: str, wanted: Sequence[str], best: bool, data: Sequence[Path], say: Say
) -> list[Registered]:
    """Register the selected models of a sweep; one that is registered already gets no second version.

    A cell's model is that of the confirmation seed with the best validation metric (of equals the lowest seed): like
    the selection of its configuration, this reads no test score.

    Args:
        uri: of the tracking store.
        experiment: name of the sweep.
        wanted: cells as DATA/BACKBONE/LOSS; all where none are given.
        best: of each data set only the cell with the best validation metric of its selection.
        data: prepared datasets to look in before those that the sweep names.
        say: prints a line for the user.

    Raises:
        InputError: for an unknown sweep or one of another task than pairs, an unknown cell, a missing prepared dataset
            or model, a name that is taken, or where nothing could be registered.
    """
    results = read_results(uri, experiment)
    if task_of(results) != "pairs":
        raise InputError(
            f"sweep {experiment!r} is of the task {task_of(results)!r}; models of pairs alone can be registered"
        )
    cells = _wanted(sweep_cells(results, mix_fingerprints=True), wanted)
    if best:
        cells = _best(cells)
    made = []
    for cell in cells:
        trial = _trial(cell)
        if trial is None:
            say(f"{_key(cell)}: left out, {_why_none(cell)}")
        else:
            made.append(_register(uri, results, cell, trial, data))
            how = "registered" if made[-1].new else "was registered"
            say(f"{made[-1].name} version {made[-1].version}: {how} (trial {trial.hash}, seed {trial.seed}), @{ALIAS}")
    if not made:
        raise InputError(f"sweep {experiment!r}: no cell has a confirmed model to register")
    return made


def model_name(experiment: str, data: str, backbone: str, loss: str) -> str:
    """``<sweep>.<data>.<backbone>.<loss>``; a data set "x (split 0)" is "x-split0"."""
    data = re.sub(r" \(split (\d+)\)$", r"-split\1", data)
    return ".".join(re.sub(r"[^\w.-]", "-", part) for part in (experiment, data, backbone, loss))


def _wanted(cells: list[Cell], wanted: Sequence[str]) -> list[Cell]:
    named, spec = {_key(cell): cell for cell in cells}, TASKS["pairs"]
    keys = []
    for key in wanted:
        data, _, rest = key.partition("/")
        backbone, _, loss = rest.partition("/")
        own = "/".join((data, canonical(spec.backbones, backbone), canonical(spec.losses, loss)))
        if own not in named:
            raise InputError(f"--cell: {choices('cell', key, named)}")
        keys.append(own)
    return [named[key] for key in dict.fromkeys(keys)] if wanted else cells


def _best(cells: list[Cell]) -> list[Cell]:
    """Of each data set the cell whose selection has the best validation metric."""
    selected = [cell for cell in cells if cell.selection]
    of_data = {cell.data: [c for c in selected if c.data == cell.data] for cell in selected}
    return [max(group, key=lambda c: c.selection.value if c.selection else 0.0) for group in of_data.values()]


def _trial(cell: Cell) -> TrialRun | None:
    """The finished confirmation with the best validation metric."""
    finished = [trial for trial in cell.confirmation if trial.status == "FINISHED"]
    return max(finished, key=lambda trial: (trial.metrics["best"], -trial.seed), default=None)


def _why_none(cell: Cell) -> str:
    if cell.selection is None:
        return plain(cell.why_unselected)
    return f"a confirmation failed with: {cell.failure}" if cell.failure else "not confirmed yet"


def _key(cell: Cell) -> str:
    return f"{cell.data}/{cell.backbone}/{cell.loss}"


def _register(uri: str, results: Results, cell: Cell, trial: TrialRun, data: Sequence[Path]) -> Registered:
    name = model_name(results.experiment, cell.data, cell.backbone, cell.loss)
    of = {"sweep": results.experiment, "data": cell.data, "backbone": cell.backbone, "loss": cell.loss}
    of = {f"recloss.{key}": value for key, value in of.items()}
    found = registered_version(uri, name, of, trial.hash)
    if found is not None:
        return Registered(name, found, trial.hash, new=False)
    assert cell.selection is not None
    measured = {cell.selection.metric: trial.metrics["best"]}
    measured |= {key: value for key, value in trial.metrics.items() if key.startswith("test/")}
    tags = {
        "recloss.trial": trial.hash,
        "recloss.fingerprint": trial.fingerprint,
        "recloss.seed": str(trial.seed),
        "recloss.version": __version__,
    }
    place = data_folder(trial.fingerprint, data, uri, results.experiment)
    with tempfile.TemporaryDirectory(prefix="recloss-") as scratch:
        folder = Path(scratch)
        download_trial(uri, trial.run_id, folder)
        about = {"sweep": results.experiment, "data": cell.data}
        write_snapshot(read_trial(folder / CONFIG), folder / MODEL, place, folder / RANKING, about)
        tags |= of | {key: str(value) for key, value in measured.items()}
        version = register(uri, name, trial.run_id, folder / RANKING, of, tags)
    return Registered(name, version, trial.hash, new=True)
