"""Every YAML file and command-line option as a pydantic model; nothing else parses configuration."""

from pipelines.settings.base import Settings, parse, read, read_yaml
from pipelines.settings.prepare import Columns, EngineSettings, KCore, Noise, PrepareSettings
from pipelines.settings.public import PublicDataset, PublicSource
from pipelines.settings.reference import make_reference_trial
from pipelines.settings.space import Choices, Range, parse_axes
from pipelines.settings.sweep import (
    BudgetSettings,
    DataSettings,
    HalvingSettings,
    ResourceSettings,
    SearchSettings,
    SpaceSettings,
    SweepSettings,
)
from pipelines.settings.trial import (
    COMPONENTS,
    DEFAULT_SAMPLER,
    REFERENCE,
    RESULT_VERSION,
    SECTIONS,
    ComponentSettings,
    OptimSettings,
    ProtocolSettings,
    TrainSettings,
    Trial,
    component,
    construct,
    dotted_names,
    hyper_parameters,
    make_trial,
)

__all__ = [
    "COMPONENTS",
    "DEFAULT_SAMPLER",
    "REFERENCE",
    "RESULT_VERSION",
    "SECTIONS",
    "BudgetSettings",
    "Choices",
    "Columns",
    "ComponentSettings",
    "DataSettings",
    "EngineSettings",
    "HalvingSettings",
    "KCore",
    "Noise",
    "OptimSettings",
    "PrepareSettings",
    "ProtocolSettings",
    "PublicDataset",
    "PublicSource",
    "Range",
    "ResourceSettings",
    "SearchSettings",
    "Settings",
    "SpaceSettings",
    "SweepSettings",
    "TrainSettings",
    "Trial",
    "component",
    "construct",
    "dotted_names",
    "hyper_parameters",
    "make_reference_trial",
    "make_trial",
    "parse",
    "parse_axes",
    "read",
    "read_yaml",
]
