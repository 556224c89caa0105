"""Where an experiment differs from the library's defaults, and why."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.papers.catalogue import Preset
from pipelines.settings import SECTIONS, TASKS, hyper_parameters
from pipelines.settings.paper import FixedSetting
from pipelines.sweep.plan import presets


@dataclass(frozen=True)
class Deviation:
    """A setting that is not the library's default."""

    where: str
    """``all``, a row or a backbone."""
    setting: str
    value: Any
    default: Any
    why: str


def deviations(preset: Preset, spaces: Path | None) -> list[Deviation]:
    """Every fixed setting of an experiment that differs from the default; a row's default is that of its loss, with
    what its search space presets."""
    run, task = preset.run, TASKS[preset.run.task]
    first_loss, first_backbone = preset.row(run.rows[0]).loss, run.backbones[0]
    found: list[Deviation] = []

    def add(where: str, fixed: dict[str, FixedSetting], loss: str, backbone: str, preset_too: bool) -> None:
        preset_values = presets(backbone, loss, spaces, run.task) if preset_too else {}
        for key, setting in fixed.items():
            default = preset_values.get(key, _default(key, task.loss(loss), task.backbone(backbone)))
            if _plain(setting.value) != _plain(default):
                found.append(Deviation(where, key, setting.value, default, setting.why))

    add("all", preset.protocol, first_loss, first_backbone, False)
    for backbone in run.backbones:
        add(backbone, preset.paper.backbones.get(backbone, {}), first_loss, backbone, True)
    for row in (*run.rows, *run.extra):
        add(row, preset.row(row).settings, preset.row(row).loss, first_backbone, True)
    if run.vary:
        default = _default(run.vary.setting, task.loss(first_loss), task.backbone(first_backbone))
        found.append(Deviation("all", run.vary.setting, list(run.vary.values), default, run.vary.why))
    return found


def _default(key: str, loss: type, backbone: type) -> Any:
    section, _, name = key.partition(".")
    if section in SECTIONS:
        return SECTIONS[section].model_fields[name].default
    classes = {"loss": loss, "backbone": backbone}
    known = {p.name: p.default for p in hyper_parameters(classes[section])} if section in classes else {}
    return known.get(name)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
