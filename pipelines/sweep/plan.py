"""From a sweep's settings to the plain list of its cells and what is tried in each."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import tune_spaces
from pipelines import references
from pipelines.search.cell import Cell
from pipelines.search.points import distinct, part_of_grid, random_configurations
from pipelines.search.space import Space
from pipelines.settings import REFERENCE, TASKS, SpaceSettings, SweepSettings, Task, read
from recloss.errors import InputError

UNPREPARED = "not prepared"
"""Stands for the fingerprint of a data set that is planned with before it is prepared."""
_CORNERS = 200
"""Configurations of a cell that are checked before TPE proposes others."""


def plan(sweep: SweepSettings, fingerprints: Mapping[str, str], spaces: Path | None = None) -> list[Cell]:
    """Expand a sweep; nothing is started before every trial of it has been checked.

    Args:
        sweep: the settings.
        fingerprints: data name to content fingerprint.
        spaces: a folder with ``losses/*.yaml``, ``backbones/*.yaml`` and ``references/*.yaml`` that override the
            package's.

    Raises:
        InputError: naming the cell and the setting that is unknown, refused, without effect or beyond the budget.
    """
    cells, fill = [], _FILLED[sweep.search.method]
    for data in sweep.datasets:
        fingerprint = fingerprints.get(data.name, UNPREPARED)
        for reference in sweep.references:  # each alone: an equal budget is one of the losses
            cells += fill(sweep, [_reference_cell(sweep, data.name, fingerprint, reference, spaces)])
        for backbone in sweep.backbones:
            compared = [_cell(sweep, data.name, fingerprint, backbone, loss, spaces) for loss in sweep.losses]
            cells += fill(sweep, compared)
    return cells


def _cell(sweep: SweepSettings, data: str, fingerprint: str, backbone: str, loss: str, spaces: Path | None) -> Cell:
    where, task = f"sweep {sweep.name}, {backbone} x {loss}", sweep.task
    backbone_name, loss_name = TASKS[task].backbone(backbone).name, TASKS[task].loss(loss).name
    dotted = (
        space("losses", loss_name, spaces, task).space
        | space("backbones", backbone_name, spaces, task).space
        | sweep.settings
        | presets(backbone_name, loss_name, spaces, task)
        | sweep.backbones[backbone]
        | sweep.losses[loss]
    )
    return Cell(data, backbone_name, loss_name, fingerprint, where, Space.of(dotted, where), sweep.seeds, task=task)


def _reference_cell(sweep: SweepSettings, data: str, fingerprint: str, reference: str, spaces: Path | None) -> Cell:
    where, name = f"sweep {sweep.name}, reference {reference}", references.get(reference).name
    own = space("references", name, spaces)
    shared = {key: value for key, value in sweep.settings.items() if key.startswith("protocol.")}
    dotted = own.space | shared | own.preset | sweep.references[reference]
    return Cell(data, REFERENCE, name, fingerprint, where, Space.of(dotted, where), sweep.seeds)


def _filled_by_grid(sweep: SweepSettings, cells: list[Cell]) -> list[Cell]:
    """The cells of the compared losses with their grids, or with equal parts of them."""
    limit = sweep.budget.trials_per_cell
    points = [cell.space.grid(cell.where) for cell in cells]
    for cell, own in zip(cells, points, strict=True):
        if limit is not None and len(own) > limit and not sweep.budget.equal:
            raise InputError(
                f"{cell.where}: {len(own)} grid points exceed budget.trials_per_cell = {limit}; "
                "with budget.equal a part of that size is tried"
            )
    grids = [distinct([cell.configuration(p) for p in own]) for cell, own in zip(cells, points, strict=True)]
    count = limit or min(map(len, grids))
    filled = []
    for cell, grid in zip(cells, grids, strict=True):
        notes: tuple[str, ...] = ()
        if sweep.budget.equal and len(grid) > count:
            seed = sweep.search.seed
            notes = (f"an equal budget: {count} of {len(grid)} grid points, drawn with seed {seed}",)
            grid = part_of_grid(cell, grid, count, seed)
        elif sweep.budget.equal and len(grid) < count:
            notes = (f"an equal budget of {count} configurations, of which its whole grid has {len(grid)}",)
        filled.append(replace(cell, configurations=tuple(grid), size=len(grid), notes=notes))
    return filled


def _filled_by_draws(sweep: SweepSettings, cells: list[Cell]) -> list[Cell]:
    """The cells with random configurations."""
    wanted, filled = sweep.search.trials, []
    assert wanted is not None
    for cell in cells:
        drawn = random_configurations(cell, wanted, sweep.search.seed)
        notes = (f"its space has {len(drawn)} configurations, less than the {wanted} trials",)
        missing = notes if len(drawn) < wanted and cell.space.open else ()
        filled.append(replace(cell, configurations=tuple(drawn), size=len(drawn), notes=missing))
    return filled


def _filled_by_corners(sweep: SweepSettings, cells: list[Cell]) -> list[Cell]:
    """The cells with configurations that are checked before TPE proposes its own."""
    assert sweep.search.trials is not None
    return [
        replace(
            cell,
            configurations=tuple(cell.configuration(point) for point in cell.space.corners(_CORNERS)),
            size=sweep.search.trials if cell.space.open else 1,
        )
        for cell in cells
    ]


_FILLED = {"grid": _filled_by_grid, "random": _filled_by_draws, "tpe": _filled_by_corners}


def presets(backbone: str, loss: str, spaces: Path | None, task: Task = "pairs") -> dict[str, Any]:
    """What the search spaces of a loss and a backbone preset; the backbone's wins."""
    loss_space = space("losses", TASKS[task].loss(loss).name, spaces, task)
    return loss_space.preset | space("backbones", TASKS[task].backbone(backbone).name, spaces, task).preset


def space(kind: str, name: str, folder: Path | None, task: Task = "pairs") -> SpaceSettings:
    """The search space of a loss, backbone or reference: the user's file where there is one, else the package's; of
    another task than pairs the task's own, ``<task>/losses/...``, where there is one."""
    packaged = Path(tune_spaces.__file__).parent
    for root in (folder, packaged) if folder else (packaged,):
        for path in (root / task / kind / f"{name}.yaml", root / kind / f"{name}.yaml"):
            if path.exists():
                return read(SpaceSettings, path)
    raise InputError(f"{packaged / kind / name}.yaml: no search space for {name!r}")
