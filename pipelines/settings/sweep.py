"""A sweep file: data sets, backbones, losses and their grids, how to search, and what it may cost."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import ByteSize, Field, field_validator, model_validator

from pipelines import references
from pipelines.settings.base import Settings
from pipelines.settings.prepare import PrepareSettings
from pipelines.settings.tasks import TASKS, Task
from recloss.errors import InputError, choices


class DataSettings(Settings):
    """A prepared dataset of a sweep, and how to make it where it is missing."""

    name: str = Field(pattern=r"^[\w.-]+$")
    path: Path
    fetch: str | None = None
    """Name of a public data set (``recloss data list``)."""
    raw: Path | None = None
    """A raw log of the user's own."""
    prepare: PrepareSettings | None = None
    split_seeds: tuple[int, ...] = ()
    """Each makes a prepared dataset of its own, ``<path>-split<seed>``, and columns of ``<name> (split <seed>)``."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.fetch and self.raw:
            raise ValueError(f"data {self.name!r}: give either 'fetch' or 'raw', not both")
        if self.prepare and not (self.fetch or self.raw):
            raise ValueError(f"data {self.name!r}: 'prepare' needs 'raw' (a file) or 'fetch' (a public data set)")
        if self.split_seeds:
            self._check_split_seeds()
        return self

    def _check_split_seeds(self) -> None:
        if not (self.fetch or self.raw):
            raise ValueError(f"data {self.name!r}: 'split_seeds' needs 'raw' (a file) or 'fetch' (a public data set)")
        if len(set(self.split_seeds)) < len(self.split_seeds) or min(self.split_seeds) < 0:
            raise ValueError(f"split_seeds: {list(self.split_seeds)} must be different numbers of at least 0")
        if self.prepare and self.prepare.split_seed:
            raise ValueError(
                f"data {self.name!r}: give either 'split_seeds' or 'prepare: {{split_seed: ...}}', not both"
            )
        if self.prepare and self.prepare.task == "sequence":
            raise ValueError(
                f"data {self.name!r}: split_seeds have no effect with task 'sequence': its split draws nothing"
            )

    def splits(self) -> list["DataSettings"]:
        """One entry per split seed; itself alone where none are given."""
        return [
            self.model_copy(
                update={
                    "name": f"{self.name} (split {seed})",
                    "path": self.path.with_name(f"{self.path.name}-split{seed}"),
                    "prepare": (self.prepare or PrepareSettings()).model_copy(update={"split_seed": seed}),
                    "split_seeds": (),
                }
            )
            for seed in self.split_seeds
        ] or [self]


class ResourceSettings(Settings):
    """What one trial occupies, and how many there are at once."""

    cpus: float = Field(default=1, gt=0)
    gpus: float = Field(default=0, ge=0)
    """A part of one, such as 0.5, shares it between trials."""
    memory: ByteSize | None = Field(default=None, gt=0)
    """Such as ``4 GB``: trials are packed on a node by it; nothing enforces it."""
    workers: int = Field(default=1, ge=1)
    """Data-parallel processes of one trial, each with ``cpus``, ``gpus`` and ``memory``."""
    concurrent: int | None = Field(default=None, ge=1)
    """Trials at once, at most; default as many as fit on the nodes that are there at the start. A cluster that adds
    nodes while trials wait for them grows until so many fit."""


class SearchSettings(Settings):
    """How the configurations of a cell are found."""

    method: Literal["grid", "random", "tpe"] = "grid"
    """Every point of the grid; points drawn evenly; or points proposed by Optuna's tree-structured Parzen estimator."""
    trials: int | None = Field(default=None, ge=1)
    """Configurations per cell, each on every grid seed (random and tpe)."""
    seed: int = Field(default=0, ge=0)
    """Of the points of random and tpe, and of the part of a grid that an equal budget leaves."""
    in_flight: int = Field(default=4, ge=1)
    """Configurations that tpe proposes at a time: before the next ones it waits for the results of all of them."""

    @model_validator(mode="after")
    def _have_effect(self) -> Self:
        if self.method == "grid" and self.trials is not None:
            raise ValueError("a grid is exhaustive, 'trials' has no effect on it; to try a part, give 'budget'")
        if self.method != "grid" and self.trials is None:
            raise ValueError(f"method {self.method!r} needs 'trials', the number of configurations per cell")
        if self.method != "tpe" and self.in_flight != type(self).model_fields["in_flight"].default:
            raise ValueError(f"'in_flight' has no effect with method {self.method!r}, only with 'tpe'")
        return self


class HalvingSettings(Settings):
    """Successive halving: after each rung the best 1/``reduction`` of a cell's configurations train on."""

    first: int = Field(ge=1)
    """Epochs of the first rung; each later one is ``reduction`` times as long. A rung ends at the next validation."""
    reduction: int = Field(default=3, ge=2)


class BudgetSettings(Settings):
    """Limits of the search."""

    trials_per_cell: int | None = Field(default=None, ge=1)
    """Configurations per cell: a sweep with more is refused; with ``equal`` it tries this many of them."""
    hours_per_cell: float | None = Field(default=None, gt=0)
    """Training hours of a cell's search, summed over its trials; when they are spent, it starts no trial any more."""
    equal: bool = False
    """Every loss gets the same number of configurations: ``trials_per_cell``, else as many as the smallest grid has."""


class SweepSettings(Settings):
    """A sweep file: data sets x backbones x losses x grid, how to search and what it may cost."""

    name: str = Field(pattern=r"^[\w.-]+$")
    task: Task = "pairs"
    """What its trials train for; its data are prepared for the same."""
    data: tuple[DataSettings, ...] = Field(min_length=1)
    backbones: dict[str, dict[str, Any]] = Field(min_length=1)
    losses: dict[str, dict[str, Any]] = Field(min_length=1)
    """Per loss, dotted settings: a list is an axis of choices, ``{low, high, log}`` a range, a scalar is fixed, and
    ``{choices, when: {setting: value}}`` an axis under a condition; other axes come from the loss's own file."""
    references: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Reference models (`pipelines.references`), each with dotted settings like a loss: ``reference.l2: [10, 100]``."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Dotted settings shared by every trial: ``optim.*``, ``train.*``, ``sampler``, ... (a loss's preset wins). Of
    references, ``protocol.*`` alone."""
    search: SearchSettings = SearchSettings()
    """``grid``, ``random`` or ``tpe``, or a mapping with the method's own settings."""
    halving: HalvingSettings | None = None
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    """Seeds of the search's trials; selection averages over them."""
    confirm_seeds: tuple[int, ...] = Field(default=(1, 2, 3), min_length=1)
    """Seeds on which a cell's selected configuration is trained again and scored on test."""
    baselines: tuple[str, ...] = ()
    budget: BudgetSettings = BudgetSettings()
    resources: ResourceSettings = ResourceSettings()

    @property
    def datasets(self) -> list[DataSettings]:
        """The prepared datasets: an entry of ``data`` for each of its split seeds."""
        return [split for data in self.data for split in data.splits()]

    @model_validator(mode="before")
    @classmethod
    def _empty_sections(cls, raw: Any) -> Any:
        """``sl:`` without a value means the loss's own space; data are prepared for the sweep's task."""
        if isinstance(raw, dict):
            if raw.get("task", "pairs") != "pairs" and isinstance(raw.get("data"), list | tuple):
                raw = raw | {"data": [_prepared_for(raw["task"], data) for data in raw["data"]]}
            for key in ("backbones", "losses", "references"):
                if isinstance(raw.get(key), dict):
                    raw = raw | {key: {name: section or {} for name, section in raw[key].items()}}
        return raw

    @field_validator("search", mode="before")
    @classmethod
    def _method_alone(cls, raw: Any) -> Any:
        """``search: grid`` is short for ``search: {method: grid}``."""
        return {"method": raw} if isinstance(raw, str) else raw

    @model_validator(mode="after")
    def _names(self) -> Self:
        spec = TASKS[self.task]
        for name in self.backbones:
            spec.backbone(name)
        for name in self.losses:
            spec.loss(name)
        for name in self.references:
            if references.get(name).name not in spec.references:
                raise InputError(f"references: {name!r} is no model of the task {self.task!r}{_those(spec.references)}")
        if self.resources.workers > 1 and not spec.divides:
            workers = self.resources.workers
            raise ValueError(f"resources.workers: a trial of the task {self.task!r} has one, got {workers}")
        for name in self.baselines:
            if name not in (rows := [*self.losses, *self.references]):
                raise InputError(f"baselines: {choices('loss or reference of this sweep', name, rows)}")
        for data in self.data:
            if data.prepare and data.prepare.task != self.task:
                raise ValueError(
                    f"data {data.name!r} is prepared for the task {data.prepare.task!r}, the sweep's is {self.task!r}"
                )
        if len({data.name for data in self.data}) < len(self.data):
            raise ValueError("data: two entries have the same name")
        if self.search.trials and self.budget.trials_per_cell and self.search.trials > self.budget.trials_per_cell:
            raise ValueError(
                f"search: {self.search.trials} trials exceed budget.trials_per_cell = {self.budget.trials_per_cell}"
            )
        for kind, seeds in (("seeds", self.seeds), ("confirm_seeds", self.confirm_seeds)):
            if len(set(seeds)) < len(seeds):
                raise ValueError(f"{kind}: {list(seeds)} names a seed twice")
        return self


def _those(names: Iterable[str]) -> str:
    return f" (accepted: {', '.join(names)})" if names else ", which has none"


def _prepared_for(task: Any, data: Any) -> Any:
    """An entry of ``data`` that is prepared by the sweep, for this task where it names none."""
    if not isinstance(data, dict) or not (data.get("raw") or data.get("fetch")):
        return data
    prepare = data.get("prepare") or {}
    return data | {"prepare": {"task": task} | prepare} if isinstance(prepare, dict) else data


class SpaceSettings(Settings):
    """A file in ``tune_spaces/losses``, ``backbones`` or ``references``: where its grid is from, presets, axes."""

    source: str
    preset: dict[str, Any] = Field(default_factory=dict)
    space: dict[str, list[Any] | dict[str, Any]] = Field(default_factory=dict)
    """Per dotted setting a list of choices, or a mapping as in a sweep's losses."""
