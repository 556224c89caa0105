"""From a preset to the sweeps that run it: one per data set, backbone and part."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipelines.papers import sources
from pipelines.papers.catalogue import Preset, Variant
from pipelines.settings import SweepSettings, parse
from recloss.errors import InputError, choices

Hyper = Literal["reported", "search"]
HYPERS: tuple[Hyper, ...] = ("reported", "search")


@dataclass(frozen=True)
class PaperSweep:
    """A sweep of an experiment."""

    name: str
    data: str
    backbone: str
    variants: tuple[Variant, ...]
    """Each a cell of its own loss."""


def paper_sweeps(
    preset: Preset,
    hyper: Hyper = "reported",
    data: Sequence[str] | None = None,
    backbones: Sequence[str] | None = None,
    losses: Sequence[str] | None = None,
) -> list[PaperSweep]:
    """The sweeps of an experiment, in its order.

    Args:
        preset: the experiment.
        hyper: the paper's hyper-parameters, of which those that it does not give are searched; or all searched.
        data: names of data sets; all where not given.
        backbones: names of backbones; all where not given.
        losses: rows of the paper (``Talos``), or names of losses (``talos``: all its rows); the rows that are reported
            where not given.

    Raises:
        InputError: for a simulation, or an unknown name.
    """
    if preset.run.simulation:
        raise InputError(f"{preset.id}: nothing is trained for it: 'recloss paper report {preset.id}' makes it")
    wanted = None if losses is None else _rows(preset, losses)
    found = []
    for name in _chosen(preset, "data set", data, preset.run.data):
        for backbone in _chosen(preset, "backbone", backbones, preset.backbones):
            parts: dict[str, list[Variant]] = {}
            for variant in preset.variants():
                asked = preset.is_reported(name, backbone, variant) if wanted is None else variant.row in wanted
                if asked and (variant.row in preset.run.extra or preset.is_reported(name, backbone, variant)):
                    parts.setdefault(variant.part, []).append(variant)
            for part, variants in parts.items():
                called = sweep_name(preset, name, backbone, part, hyper)
                found.append(PaperSweep(called, name, backbone, tuple(variants)))
    if not found:
        raise InputError(f"{preset.id}: nothing to run: the paper has none of these rows on these data and backbones")
    return found


def sweep_name(preset: Preset, data: str, backbone: str, part: str, hyper: Hyper) -> str:
    """``slatk-table-2-health-mf``, and what part of it where there are several."""
    pieces = (preset.paper_name, preset.run_name, data, backbone, part, "search" if hyper == "search" else "")
    return "-".join(filter(None, pieces))


def sweep_settings(
    preset: Preset,
    sweep: PaperSweep,
    *,
    hyper: Hyper,
    seeds: int,
    storage: Path,
    raw: Mapping[str, Path],
    concurrent: int | None = None,
    missing: bool = False,
) -> SweepSettings:
    """A sweep of an experiment as the sweep file that it stands for.

    Args:
        preset: the experiment.
        sweep: one of `paper_sweeps`.
        hyper: as there.
        seeds: number of confirmation seeds, from 0; the search is on seed 0, of which confirmation reuses the trial.
        storage: the prepared data sets are in ``data`` below it.
        raw: what ``--raw`` names.
        concurrent: trials at once.
        missing: plan without the raw files.

    Raises:
        InputError: if the raw files are neither here nor to be fetched, saying how to get them.
    """
    source, found = preset.source(sweep.data), sources.raw_path(preset, sweep.data, raw)
    if found is None and source.fetch is None and not missing:
        raise InputError(
            f"{preset.id}: data missing: {sweep.data} ({source.title}); get {sources.how_to_get(preset, sweep.data)}, "
            f"or name it by --raw {sweep.data}=PATH"
        )
    backbone = preset.paper.backbones.get(sweep.backbone, {})
    content: dict[str, Any] = {
        "name": sweep.name,
        "task": preset.run.task,
        "data": [
            {
                "name": sweep.data,
                "path": storage / "data" / f"{preset.paper_name}-{sweep.data}",
                **({"fetch": source.fetch} if found is None and source.fetch else {"raw": found or "RAW"}),
                "prepare": source.prepare,
            }
        ],
        "backbones": {sweep.backbone: {key: setting.value for key, setting in backbone.items()}},
        "losses": {
            variant.settings.loss: loss_settings(preset, sweep.data, sweep.backbone, variant, hyper)
            for variant in sweep.variants
        },
        "settings": {key: setting.value for key, setting in preset.protocol.items()},
        "seeds": (0,),
        "confirm_seeds": tuple(range(seeds)),
        "resources": {"concurrent": concurrent},
    }
    return parse(SweepSettings, content, preset.id)


def loss_settings(preset: Preset, data: str, backbone: str, variant: Variant, hyper: Hyper) -> dict[str, Any]:
    """A loss of a sweep: the paper's grid, what is fixed, and with ``reported`` the tuned values."""
    row, vary = variant.settings, preset.run.vary
    common = {} if variant.row in preset.run.own_rows else preset.paper.grid
    settings = common | row.grid | {key: setting.value for key, setting in row.settings.items()}
    if hyper == "reported":
        settings |= preset.tuned_values(data, backbone, variant.row)
    return settings | ({vary.setting: variant.value} if vary else {})


def _chosen(preset: Preset, kind: str, wanted: Sequence[str] | None, known: Iterator[str] | Sequence[str]) -> list[str]:
    known = list(known)
    for name in wanted or ():
        if name not in known:
            raise InputError(f"{preset.id}: {choices(kind, name, known)}")
    return known if wanted is None else list(dict.fromkeys(wanted))


def _rows(preset: Preset, wanted: Sequence[str]) -> set[str]:
    rows = (*preset.run.rows, *preset.run.extra)
    by_name: dict[str, set[str]] = {}
    for row in rows:
        by_name.setdefault(row.lower(), set()).add(row)
        by_name.setdefault(preset.row(row).loss, set()).add(row)
    for name in wanted:
        if name.lower() not in by_name:
            raise InputError(f"{preset.id}: {choices('loss', name, {*rows, *by_name} - {row.lower() for row in rows})}")
    return set().union(*({name} if name in rows else by_name[name.lower()] for name in wanted))
