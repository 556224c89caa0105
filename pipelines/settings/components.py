"""Backbones, losses, samplers and references by name, their hyper-parameters checked by their constructors."""

import functools
import inspect
from collections.abc import Mapping
from typing import Any, Final

import torch
from pydantic import Field, create_model

from pipelines import references
from pipelines.settings.base import Settings, parse
from pipelines.settings.tasks import TASKS, Task
from recloss import sampling
from recloss.errors import InputError, choices
from recloss.interactions import Interactions

REFERENCE: Final = "reference"
"""Task of a trial that fits a reference model, its backbone's name, and the section of the model's settings."""
COMPONENTS = ("backbone", "loss", "sampler")
"""What a trial of training is made of by name."""


class ComponentSettings(Settings):
    """A backbone, a loss, a sampler or a reference by name, with every hyper-parameter resolved."""

    name: str
    params: dict[str, Any] = Field(default_factory=dict)


DEFAULT_SAMPLER = ComponentSettings(name=sampling.DEFAULT)


def component_class(role: str, name: str, task: Task = "pairs") -> type[Any]:
    """How a name becomes its class.

    Raises:
        InputError: naming the nearest and all there are.
    """
    match role:
        case "backbone":
            return TASKS[task].backbone(name)
        case "loss":
            return TASKS[task].loss(name)
        case "sampler":
            return sampling.get(name)
    return references.get(name)


def component(role: str, name: str, given: Mapping[str, Any], where: str, task: Task = "pairs") -> ComponentSettings:
    """Check hyper-parameters against the constructor and fill in its defaults.

    Raises:
        InputError: for an unknown name, an unknown parameter or a value the constructor refuses.
    """
    cls: Any = component_class(role, name, task)
    model = _params_model(cls)
    fields = list(model.model_fields)
    for key in given:
        if key not in fields:
            accepted = choices(
                f"parameter of the {role} {cls.name!r}:", f"{role}.{key}", [f"{role}.{f}" for f in fields]
            )
            none = f"{where}: the {role} {cls.name!r} has no parameters, so {role}.{key} would have no effect"
            raise InputError(f"{where}: {accepted}" if fields else none)
    params = parse(model, given, f"{where}: {role}")
    values = params.model_dump()
    if (accepted_before := (task, role, cls.name, repr(values))) not in _ACCEPTED:
        try:
            construct(role, name, values, task)
        except ValueError as error:
            raise InputError(f"{where}: {role} {cls.name!r}: {error}") from None
        _ACCEPTED.add(accepted_before)
    return ComponentSettings(name=cls.name, params=params.model_dump(mode="json"))


_ACCEPTED: set[tuple[str, str, str, str]] = set()
"""Task, role, name and hyper-parameters that a constructor has accepted: the trials of a grid share most of them."""


@functools.cache
def _params_model(cls: type) -> type[Settings]:
    """The hyper-parameters of a component as a model; making one takes as long as training a tiny trial."""
    fields: dict[str, Any] = {
        p.name: (p.annotation, ... if p.default is p.empty else p.default) for p in hyper_parameters(cls)
    }
    return create_model(f"{cls.__name__}Params", __base__=Settings, **fields)


def hyper_parameters(cls: type) -> list[inspect.Parameter]:
    """The keyword-only arguments of a component's constructor."""
    return [p for p in inspect.signature(cls).parameters.values() if p.kind is p.KEYWORD_ONLY]


def construct(role: str, name: str, params: dict[str, Any], task: Task = "pairs") -> Any:
    """The component at no cost in memory: its constructor checks its hyper-parameters."""
    match role:
        case "backbone":
            return TASKS[task].make_backbone(name, params)
        case "loss":
            return TASKS[task].make_loss(name, params)
        case "sampler":
            two = Interactions(torch.arange(2), torch.arange(2), 2, 2)
            return sampling.build_sampler(name, params, two, pool=two)
    return references.build(name, params)
