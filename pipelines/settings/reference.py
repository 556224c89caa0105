"""From dotted settings to the trial of a reference model."""

from collections.abc import Mapping
from typing import Any

from pipelines import references
from pipelines.settings.base import parse
from pipelines.settings.trial import (
    COMPONENTS,
    REFERENCE,
    SECTIONS,
    ComponentSettings,
    ProtocolSettings,
    TrainSettings,
    Trial,
    component,
    hyper_parameters,
)
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
    for key, value in dotted.items():
        section, _, field = key.partition(".")
        if section in (*COMPONENTS, *SECTIONS) and key not in accepted:
            raise InputError(
                f"{where}: {key} has no effect on the reference {cls.name!r} (accepted: {', '.join(accepted)})"
            )
        if key not in accepted:
            raise InputError(f"{where}: {choices(f'setting of the reference {cls.name!r}:', key, accepted)}")
        nested[section][field] = value
    return Trial(
        data=data,
        task=REFERENCE,
        backbone=ComponentSettings(name=REFERENCE),
        loss=component(REFERENCE, cls.name, nested[REFERENCE], where),
        train=ONE_FIT,
        protocol=parse(ProtocolSettings, nested["protocol"], f"{where}: protocol"),
        seed=seed,
    )
