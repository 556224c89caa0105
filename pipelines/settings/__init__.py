"""Every YAML file and command-line option as a pydantic model; nothing else parses configuration."""

from pipelines.settings.base import Settings, parse, read, read_yaml
from pipelines.settings.prepare import Columns, PrepareSettings
from pipelines.settings.sweep import BudgetSettings, DataSettings, ResourceSettings, SpaceSettings, SweepSettings
from pipelines.settings.trial import (
    COMPONENTS,
    DEFAULT_SAMPLER,
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
    "RESULT_VERSION",
    "SECTIONS",
    "BudgetSettings",
    "Columns",
    "ComponentSettings",
    "DataSettings",
    "OptimSettings",
    "PrepareSettings",
    "ProtocolSettings",
    "ResourceSettings",
    "Settings",
    "SpaceSettings",
    "SweepSettings",
    "TrainSettings",
    "Trial",
    "component",
    "construct",
    "dotted_names",
    "hyper_parameters",
    "make_trial",
    "parse",
    "read",
    "read_yaml",
]
