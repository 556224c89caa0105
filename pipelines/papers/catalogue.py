"""The presets there are: the package's ``tune_spaces/papers``, and a user's own folder of the same form."""

import csv
import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tune_spaces
from pipelines.settings import TASKS, read, read_yaml
from pipelines.settings.paper import ExperimentSettings, FixedSetting, PaperSettings, RowSettings, SourceSettings
from recloss.errors import InputError, choices

PAPER = "paper.yaml"
TUNED = "tuned.yaml"
REPORTED = "reported"
COLUMNS = ["data", "backbone", "row", "metric", "value"]

Key = tuple[str, str, str, str]
"""Data set, backbone, row and metric."""


@dataclass(frozen=True)
class Variant:
    """What a line of a table is of: a row, at one value of what the experiment varies."""

    label: str
    row: str
    settings: RowSettings
    value: float | None
    part: str
    """Which of the sweeps of a data set and backbone it is in: a sweep has a loss once."""


@dataclass(frozen=True)
class Preset:
    """An experiment with all that it needs."""

    paper_name: str
    name: str
    paper: PaperSettings
    own: ExperimentSettings
    """Its own file: title, notes, tolerance."""
    run: ExperimentSettings
    """What is run: its own, or the experiment whose trials it shows."""
    run_name: str
    reported: dict[Key, float]
    """What the paper reports, unrounded beyond its print; empty where it prints nothing."""
    tuned: dict[str, dict[str, dict[str, dict[str, Any]]]]
    """By data set, backbone and row: the paper's hyper-parameters, as dotted settings; a list is left to search."""

    @property
    def id(self) -> str:
        """``slatk/table-2``."""
        return f"{self.paper_name}/{self.name}"

    @property
    def metrics(self) -> list[str]:
        """Metrics that are reported, in the order of the file, and those that the experiment names."""
        return list(dict.fromkeys([*(metric for *_, metric in self.reported), *self.own.metrics]))

    @property
    def backbones(self) -> tuple[str, ...]:
        """Its own, or those of the experiment whose trials it shows."""
        return self.own.backbones or self.run.backbones

    @property
    def protocol(self) -> dict[str, FixedSetting]:
        """The paper's common settings, as far as they have an effect in the task, and the experiment's own."""
        without = {f"train.{name}" for spec in TASKS.values() for name in spec.train - TASKS[self.run.task].train}
        return {k: v for k, v in self.paper.settings.items() if k not in without} | self.run.settings

    def row(self, name: str) -> RowSettings:
        """A row: the experiment's own, else the paper's."""
        return self.run.own_rows.get(name) or self.paper.rows[name]

    def source(self, data: str) -> SourceSettings:
        """A data set, one with noise with the raw files and preparation of the other."""
        source = self.paper.data[data]
        if source.like is None:
            return source
        base = self.paper.data[source.like]
        prepare = base.prepare.model_copy(update={"noise": source.noise})
        return base.model_copy(update={"title": source.title, "prepare": prepare, "tuned_as": source.like})

    def tuned_values(self, data: str, backbone: str, row: str) -> dict[str, Any]:
        """The paper's hyper-parameters of a row; empty where it gives none."""
        names = (data, self.source(data).tuned_as)
        wanted = self.row(row).tuned_as or row
        return next((self.tuned[n][backbone][wanted] for n in names if n and self._tells(n, backbone, wanted)), {})

    def _tells(self, data: str, backbone: str, row: str) -> bool:
        return row in self.tuned.get(data, {}).get(backbone, {})

    def variants(self) -> list[Variant]:
        """Every row, at every value of what is varied."""
        losses = [self.row(row).loss for row in self.run.rows]
        found = []
        for row in (*self.run.rows, *self.run.extra):
            settings, vary = self.row(row), self.run.vary
            alone = row in self.run.extra or losses.count(settings.loss) > 1
            for value in vary.values if vary else (None,):
                varied = f"{vary.name} = {value:g}" if vary and value is not None else ""
                label = f"{row}, {varied}" if varied else row
                part = "-".join(filter(None, (_slug(row) if alone else "", _slug(varied))))
                found.append(Variant(label, row, settings, value, part))
        return found

    def is_reported(self, data: str, backbone: str, variant: Variant) -> bool:
        """Whether a line belongs to the experiment: the paper has a number for it, or has none for any line there."""
        there = {label for *place, label, _ in self.reported if place == [data, backbone]}
        return variant.label in there if there else variant.row not in self.run.extra


def _slug(text: str) -> str:
    """As a part of a sweep's name."""
    return "-".join("".join(c if c.isalnum() or c in "_." else " " for c in text.lower()).split())


def roots(spaces: Path | None) -> list[Path]:
    """Folders of papers, a user's own first."""
    packaged = Path(tune_spaces.__file__).parent
    return [root / "papers" for root in ((spaces, packaged) if spaces else (packaged,))]


def names(spaces: Path | None) -> list[str]:
    """``paper/experiment`` of every preset, sorted."""
    found = {
        f"{file.parent.name}/{file.name.removesuffix('.yaml')}"
        for root in roots(spaces)
        for file in root.glob("*/*.yaml")
        if file.name not in (PAPER, TUNED)
    }
    return sorted(found)


def load(name: str, spaces: Path | None) -> Preset:
    """A preset by ``paper/experiment``.

    Raises:
        InputError: an unknown name, with the nearest; or a file that is wrong, naming the place.
    """
    known = names(spaces)
    if name not in known:
        raise InputError(choices("experiment", name, known))
    paper_name, _, experiment = name.partition("/")
    paper = _paper(*_version(_file(spaces, paper_name, PAPER)))
    own_file = _file(spaces, paper_name, f"{experiment}.yaml")
    own = run = read(ExperimentSettings, own_file)
    run_name = own.runs or experiment
    if own.runs:
        if f"{paper_name}/{own.runs}" not in known:
            raise InputError(f"{own_file}: runs: {choices('experiment', f'{paper_name}/{own.runs}', known)}")
        run = read(ExperimentSettings, _file(spaces, paper_name, f"{own.runs}.yaml"))
    preset = Preset(
        paper_name, experiment, paper, own, run, run_name,
        _reported(_file(spaces, paper_name, f"{REPORTED}/{experiment}.csv", needed=False)),
        _tuned(*_version(_file(spaces, paper_name, TUNED, needed=False))),
    )  # fmt: skip
    _check(preset, own_file)
    return preset


def load_all(spaces: Path | None) -> Iterator[Preset]:
    """Every preset."""
    return (load(name, spaces) for name in names(spaces))


def _file(spaces: Path | None, paper: str, file: str, needed: bool = True) -> Path:
    paths = [root / paper / file for root in roots(spaces)]
    found = next((path for path in paths if path.is_file()), None)
    if found is None and needed:
        raise InputError(f"{paths[0]}: no such file")
    return found or paths[-1]


def _version(file: Path) -> tuple[Path, int]:
    """The file and when it was written, by which what was read of it is kept: experiments share the large files."""
    return file, file.stat().st_mtime_ns if file.is_file() else 0


@functools.lru_cache
def _paper(file: Path, written: int) -> PaperSettings:
    return read(PaperSettings, file)


@functools.lru_cache
def _tuned(file: Path, written: int) -> dict[str, Any]:
    tuned = read_yaml(file) if file.is_file() else {}
    if not isinstance(tuned, dict):
        raise InputError(f"{file}: expected data sets with their backbones, rows and settings")
    return tuned


def _reported(file: Path) -> dict[Key, float]:
    if not file.is_file():
        return {}
    with file.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.reader(lines))
    if not rows or rows[0] != COLUMNS:
        raise InputError(f"{file}, line 1: expected the columns {','.join(COLUMNS)}")
    found: dict[Key, float] = {}
    for number, row in enumerate(rows[1:], start=2):
        try:
            data, backbone, label, metric, value = row
            number_of = float(value)
        except ValueError:
            raise InputError(f"{file}, line {number}: expected {','.join(COLUMNS)} with a number as value") from None
        if (key := (data, backbone, label, metric)) in found:
            raise InputError(f"{file}, line {number}: {', '.join(key)} is there twice")
        found[key] = number_of
    return found


def _check(preset: Preset, file: Path) -> None:
    """Names of data sets and rows."""
    for name in preset.run.data:
        if name not in preset.paper.data:
            raise InputError(f"{file}: data: {choices('data set', name, preset.paper.data)}")
        if (like := preset.paper.data[name].like) and like not in preset.paper.data:
            raise InputError(f"{file}: {name}: like: {choices('data set', like, preset.paper.data)}")
    for row in (*preset.run.rows, *preset.run.extra):
        if row not in (known := {**preset.paper.rows, **preset.run.own_rows}):
            raise InputError(f"{file}: rows: {choices('row', row, known)}")
    if preset.own.simulation:
        return
    labels = {variant.label for variant in preset.variants()}
    for data, backbone, label, _ in preset.reported:
        where = f"{file.parent / REPORTED / preset.name}.csv"
        if data not in preset.run.data:
            raise InputError(f"{where}: {choices('data set', data, preset.run.data)}")
        if backbone not in preset.backbones:
            raise InputError(f"{where}: {choices('backbone', backbone, preset.backbones)}")
        if label not in labels:
            raise InputError(f"{where}: {choices('row', label, labels)}")
