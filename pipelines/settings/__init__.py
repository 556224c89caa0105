"""Every YAML file and command-line option as a pydantic model; nothing else parses configuration."""

from pipelines.settings.base import Settings, parse, read, read_yaml
from pipelines.settings.components import (
    COMPONENTS,
    DEFAULT_SAMPLER,
    REFERENCE,
    ComponentSettings,
    component,
    construct,
    hyper_parameters,
)
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
from pipelines.settings.tasks import TASKS, Task, TaskSpec, task_of_reference
from pipelines.settings.trial import (
    RESULT_VERSION,
    SECTIONS,
    OptimSettings,
    ProtocolSettings,
    SoftLabelSettings,
    TrainSettings,
    Trial,
    check_metric,
    dotted_names,
    make_trial,
)

__all__ = [
    "COMPONENTS",
    "DEFAULT_SAMPLER",
    "REFERENCE",
    "RESULT_VERSION",
    "SECTIONS",
    "TASKS",
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
    "SoftLabelSettings",
    "SpaceSettings",
    "SweepSettings",
    "Task",
    "TaskSpec",
    "TrainSettings",
    "Trial",
    "check_metric",
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
    "task_of_reference",
]
