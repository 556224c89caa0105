"""A sweep file: data sets, backbones, losses and their grids, how to search, and what it may cost."""

from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from pipelines.settings.base import Settings
from pipelines.settings.prepare import PrepareSettings
from recloss import backbones, losses
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

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.fetch and self.raw:
            raise ValueError(f"data {self.name!r}: give either 'fetch' or 'raw', not both")
        if self.prepare and not (self.fetch or self.raw):
            raise ValueError(f"data {self.name!r}: 'prepare' needs 'raw' (a file) or 'fetch' (a public data set)")
        return self


class ResourceSettings(Settings):
    """What one trial occupies."""

    cpus: float = Field(default=1, gt=0)
    gpus: float = Field(default=0, ge=0)
    workers: int = Field(default=1, ge=1)
    """Data-parallel processes of one trial, each with ``cpus`` and ``gpus``."""


class BudgetSettings(Settings):
    """Limits of the search."""

    trials_per_cell: int | None = Field(default=None, ge=1)
    """Refuse a sweep in which a cell has more grid points than this."""


class SweepSettings(Settings):
    """A sweep file: data sets x backbones x losses x grid, how to search and what it may cost."""

    name: str = Field(pattern=r"^[\w.-]+$")
    data: tuple[DataSettings, ...] = Field(min_length=1)
    backbones: dict[str, dict[str, Any]] = Field(min_length=1)
    losses: dict[str, dict[str, Any]] = Field(min_length=1)
    """Per loss, dotted settings: a list is a grid axis, a scalar is fixed; other axes come from the loss's own file."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Dotted settings shared by every trial: ``optim.*``, ``train.*``, ``sampler``, ... (a loss's preset wins)."""
    search: Literal["grid"] = "grid"
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    """Seeds of the grid trials; selection averages over them."""
    confirm_seeds: tuple[int, ...] = Field(default=(1, 2, 3), min_length=1)
    """Seeds on which a cell's selected configuration is trained again and scored on test."""
    baselines: tuple[str, ...] = ()
    budget: BudgetSettings = BudgetSettings()
    resources: ResourceSettings = ResourceSettings()

    @model_validator(mode="before")
    @classmethod
    def _empty_sections(cls, raw: Any) -> Any:
        """``sl:`` without a value means the loss's own space."""
        if isinstance(raw, dict):
            for key in ("backbones", "losses"):
                if isinstance(raw.get(key), dict):
                    raw = raw | {key: {name: section or {} for name, section in raw[key].items()}}
        return raw

    @model_validator(mode="after")
    def _names(self) -> Self:
        for name in self.backbones:
            backbones.get(name)
        for name in self.losses:
            losses.get(name)
        for name in self.baselines:
            if name not in self.losses:
                raise InputError(f"baselines: {choices('loss of this sweep', name, self.losses)}")
        if len({data.name for data in self.data}) < len(self.data):
            raise ValueError("data: two entries have the same name")
        for kind, seeds in (("seeds", self.seeds), ("confirm_seeds", self.confirm_seeds)):
            if len(set(seeds)) < len(seeds):
                raise ValueError(f"{kind}: {list(seeds)} names a seed twice")
        return self


class SpaceSettings(Settings):
    """A file in ``tune_spaces/losses`` or ``backbones``: where its grid is from, what it presets, its axes."""

    source: str
    preset: dict[str, Any] = Field(default_factory=dict)
    space: dict[str, list[Any]] = Field(default_factory=dict)
