"""From a sweep's settings to the plain list of its cells and their trials."""

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

import tune_spaces
from pipelines.settings import SpaceSettings, SweepSettings, Trial, make_trial, read
from recloss import backbones, losses
from recloss.errors import InputError

UNPREPARED = "not prepared"
"""Stands for the fingerprint of a data set that is planned with before it is prepared."""

_PLAIN_LISTS = frozenset({"protocol.cutoffs"})


@dataclass(frozen=True)
class Cell:
    """One data set x backbone x loss, with its grid.

    Attributes:
        data: the data set's name in the sweep.
        grid: trials of every grid point on every grid seed.
    """

    data: str
    backbone: str
    loss: str
    grid: tuple[Trial, ...]


def plan(sweep: SweepSettings, fingerprints: Mapping[str, str], spaces: Path | None = None) -> list[Cell]:
    """Expand a sweep; nothing is started before every trial of it has been checked.

    Args:
        sweep: the settings.
        fingerprints: data name to content fingerprint.
        spaces: a folder with ``losses/*.yaml`` and ``backbones/*.yaml`` that override the package's.

    Raises:
        InputError: naming the cell and the setting that is unknown, refused, without effect or beyond the budget.
    """
    return [
        _cell(sweep, data.name, fingerprints.get(data.name, UNPREPARED), backbone, loss, spaces)
        for data, backbone, loss in itertools.product(sweep.data, sweep.backbones, sweep.losses)
    ]


def _cell(sweep: SweepSettings, data: str, fingerprint: str, backbone: str, loss: str, spaces: Path | None) -> Cell:
    where = f"sweep {sweep.name}, {backbone} x {loss}"
    backbone_name, loss_name = backbones.get(backbone).name, losses.get(loss).name
    dotted = (
        space("losses", loss_name, spaces).space
        | space("backbones", backbone_name, spaces).space
        | sweep.settings
        | presets(backbone_name, loss_name, spaces)
        | sweep.backbones[backbone]
        | sweep.losses[loss]
    )
    points = list(grid_points(dotted))
    limit = sweep.budget.trials_per_cell
    if limit is not None and len(points) > limit:
        raise InputError(f"{where}: {len(points)} grid points exceed budget.trials_per_cell = {limit}")
    trials = tuple(
        make_trial(fingerprint, backbone_name, loss_name, point, seed=seed, where=where)
        for point in points
        for seed in sweep.seeds
    )
    return Cell(data, backbone_name, loss_name, trials)


def presets(backbone: str, loss: str, spaces: Path | None) -> dict[str, Any]:
    """What the search spaces of a loss and a backbone preset; the backbone's wins."""
    loss_space = space("losses", losses.get(loss).name, spaces)
    return loss_space.preset | space("backbones", backbones.get(backbone).name, spaces).preset


def describe(sweep: SweepSettings, spaces: Path | None, console: Console) -> None:
    """Print every trial of a sweep's grid, and how many there are."""
    cells = plan(sweep, {}, spaces)
    for cell in cells:
        flats = [trial.flat() for trial in cell.grid]
        varied = _varied(flats)
        console.print(f"{cell.data} | {cell.backbone} | {cell.loss}: {len(flats)} trials", style="bold", markup=False)
        for flat in flats:
            shown = "  ".join(f"{key}={flat[key]}" for key in varied if key in flat)
            console.print(f"  {shown}", markup=False, soft_wrap=True)
    grid, confirmations = sum(len(cell.grid) for cell in cells), len(cells) * len(sweep.confirm_seeds)
    console.print(
        f"{len(cells)} cells, {grid} grid trials on seeds {list(sweep.seeds)}, then {confirmations} confirmations "
        f"on seeds {list(sweep.confirm_seeds)}: {grid + confirmations} trials",
        markup=False,
        soft_wrap=True,
    )


def _varied(flats: list[dict[str, Any]]) -> list[str]:
    """Settings that differ between trials, or that not all of them have; learning rate and seed always."""
    names = list(dict.fromkeys(key for flat in flats for key in flat))
    return [key for key in names if len({str(flat.get(key)) for flat in flats}) > 1 or key in ("optim.lr", "seed")]


def grid_points(dotted: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """All combinations of the list-valued settings, the last axis fastest; scalars are fixed."""
    axes = [value if isinstance(value, list) and key not in _PLAIN_LISTS else [value] for key, value in dotted.items()]
    for values in itertools.product(*axes):
        yield dict(zip(dotted, values, strict=True))


def space(kind: str, name: str, folder: Path | None) -> SpaceSettings:
    """The search space of a loss or backbone: the user's file where there is one, else the package's."""
    packaged = Path(tune_spaces.__file__).parent
    for root in (folder, packaged) if folder else (packaged,):
        path = root / kind / f"{name}.yaml"
        if path.exists():
            return read(SpaceSettings, path)
    raise InputError(f"{packaged / kind / name}.yaml: no search space for {name!r}")
