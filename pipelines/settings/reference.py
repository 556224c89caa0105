"""From dotted settings to the trial of a reference model."""

from collections.abc import Mapping
from typing import Any

from pipelines import references
from pipelines.settings.base import parse
from pipelines.settings.components import COMPONENTS, REFERENCE, ComponentSettings, component, hyper_parameters
from pipelines.settings.tasks import TASKS, task_of_reference
from pipelines.settings.trial import SECTIONS, ProtocolSettings, TrainSettings, Trial, check_metric
from recloss.errors import InputError, choices

ONE_FIT = TrainSettings(epochs=1, valid_every=1)
"""A reference is fitted once and validated once."""


def make_reference_trial(data: str, name: str, dotted: Mapping[str, Any], *, seed: int, where: str) -> Trial:
    """A trial of a reference from settings such as ``{"reference.l2": 100, "protocol.metric": "ndcg_10"}``.

    Raises:
        InputError: naming the setting that is unknown, refused or without effect.
    """
    cls = references.get(name)
    accepted = [f"{REFERENCE}.{parameter.name}" for parameter in hyper_parameters(cls)]
    accepted += [f"protocol.{field}" for field in ProtocolSettings.model_fields]
    nested: dict[str, dict[str, Any]] = {REFERENCE: {}, "protocol": {}}
    spec = TASKS[task_of_reference(name)]
    for key, value in {**spec.defaults, **dotted}.items():
        section, _, field = key.partition(".")
        if section in (*COMPONENTS, *SECTIONS) and key not in accepted:
            raise InputError(
                f"{where}: {key} has no effect on the reference {cls.name!r} (accepted: {', '.join(accepted)})"
            )
        if key not in accepted:
            raise InputError(f"{where}: {choices(f'setting of the reference {cls.name!r}:', key, accepted)}")
        nested[section][field] = value
    protocol = parse(ProtocolSettings, nested["protocol"], f"{where}: protocol")
    check_metric(protocol, spec.measured(protocol.cutoffs), where)
    for key, value in spec.fixed.items():
        if dotted.get(key, value) != value:
            raise InputError(f"{where}: {key} is always {value} for the reference {cls.name!r}")
    return Trial(
        data=data,
        task=REFERENCE,
        backbone=ComponentSettings(name=REFERENCE),
        loss=component(REFERENCE, cls.name, nested[REFERENCE], where),
        train=ONE_FIT,
        protocol=protocol,
        seed=seed,
    )
