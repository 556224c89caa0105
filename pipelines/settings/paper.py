"""A paper's experiments: ``tune_spaces/papers/<paper>/paper.yaml`` and the experiment files beside it."""

from typing import Any, Self

from pydantic import Field, model_validator

from pipelines.settings.base import Settings
from pipelines.settings.prepare import Noise, PrepareSettings
from pipelines.settings.tasks import Task


class FixedSetting(Settings):
    """A setting that an experiment fixes, and why: nothing differs from a default without a reason."""

    value: Any
    """A list is an axis that is searched."""
    why: str = Field(min_length=1)


class SourceSettings(Settings):
    """A data set of a paper: where its raw files are, and how they are prepared."""

    title: str
    """As the paper prints it."""
    raw: str | None = None
    """File or folder below the folder that RECLOSS_DATA names."""
    fetch: str | None = None
    """Name of a public data set (``recloss data list``)."""
    get: str = ""
    """Where the raw files can be had."""
    prepare: PrepareSettings = PrepareSettings()
    like: str | None = None
    """Another data set of the paper, with its raw files, preparation and tuned values, to which ``noise`` is added."""
    noise: Noise | None = None
    tuned_as: str | None = None
    """The data set whose tuned values are taken."""
    notes: tuple[str, ...] = ()
    """How it differs from the paper's."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.like is None and not self.get:
            raise ValueError("'get' must say where the raw files can be had")
        if (self.like is None) != (self.noise is None):
            raise ValueError("'like' (another data set) and 'noise' (what is added to it) need each other")
        return self


class RowSettings(Settings):
    """A row of a paper's tables: a loss with what the paper fixes of it."""

    loss: str
    settings: dict[str, FixedSetting] = Field(default_factory=dict)
    grid: dict[str, Any] = Field(default_factory=dict)
    """Axes of its search where they differ from those of the loss's own search space and the paper's common ones."""
    tuned_as: str | None = None
    """The row whose tuned values are taken."""
    target: bool = True
    """Whether the experiment's tolerance is a target for it."""
    notes: tuple[str, ...] = ()


class PaperSettings(Settings):
    """What the experiments of a paper share."""

    title: str
    source: str
    settings: dict[str, FixedSetting]
    """The protocol, as dotted settings of every trial."""
    data: dict[str, SourceSettings] = Field(min_length=1)
    backbones: dict[str, dict[str, FixedSetting]] = Field(default_factory=dict)
    """Settings of those backbones that have some."""
    grid: dict[str, Any] = Field(default_factory=dict)
    """Axes of the search that all losses share."""
    rows: dict[str, RowSettings] = Field(min_length=1)


class VarySettings(Settings):
    """A setting that takes several values: every row is run at each."""

    name: str
    """As the paper calls it; a row is named such as ``SL@20, tau_w = 2.25``."""
    setting: str
    values: tuple[float, ...] = Field(min_length=1)
    why: str = Field(min_length=1)


class ExperimentSettings(Settings):
    """A table or figure of a paper."""

    title: str
    shows: str
    """What the paper says it shows."""
    simulation: bool = False
    """Nothing is trained: the report makes it; then only notes are below."""
    runs: str | None = None
    """Another experiment of the paper, of whose trials this one shows other metrics; then data, rows and settings are
    that one's."""
    task: Task = "pairs"
    data: tuple[str, ...] = ()
    backbones: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()
    own_rows: dict[str, RowSettings] = Field(default_factory=dict)
    """Rows that are not the paper's common ones; the paper's common grid is not theirs."""
    extra: tuple[str, ...] = ()
    """Rows that the paper does not have: run and shown where they are asked for by name."""
    vary: VarySettings | None = None
    settings: dict[str, FixedSetting] = Field(default_factory=dict)
    """Win over the paper's."""
    metrics: tuple[str, ...] = ()
    """Shown of every row beside those that are reported: of the test, seconds per epoch, of the model's inside."""
    over_epochs: str | None = None
    """A metric of the training, such as ``train/threshold_error``, that is shown over the epochs."""
    tolerance: float | None = Field(default=None, gt=0)
    """Largest relative difference from a reported value that is a match; none where there is no target."""
    relative_to: str | None = None
    """A row: seconds per epoch are shown as multiples of its."""
    notes: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()
    """What running it taught, such as why a number is another than the paper's."""

    @model_validator(mode="after")
    def _runnable(self) -> Self:
        complete = bool(self.data and self.backbones and self.rows)
        if not (self.simulation or self.runs or complete):
            raise ValueError("an experiment needs 'data', 'backbones' and 'rows', or 'runs', or is a 'simulation'")
        return self
