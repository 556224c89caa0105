"""A trial: one configuration on one seed, and how dotted settings become one."""

import functools
import hashlib
import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, Self

import torch
from pydantic import Field, create_model, model_validator

from pipelines import references
from pipelines.settings.base import Settings, parse
from recloss import backbones, losses, sampling
from recloss.errors import InputError, choices
from recloss.interactions import Interactions
from recloss.metrics import METRICS, metric_name, parse_metric
from recloss.ties import TIE_RULE

RESULT_VERSION = 1
"""Part of every trial's identity: raise it when the same settings give other numbers."""
REFERENCE: Final = "reference"
"""Task of a trial that fits a reference model, its backbone's name, and the section of the model's settings."""


class ComponentSettings(Settings):
    """A backbone, a loss, a sampler or a reference by name, with every hyper-parameter resolved."""

    name: str
    params: dict[str, Any] = Field(default_factory=dict)


class OptimSettings(Settings):
    """Adam with coupled L2."""

    lr: float = Field(default=0.01, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)


class TrainSettings(Settings):
    """Budget and batching of one training run."""

    epochs: int = Field(default=200, ge=1)
    batch_size: int = Field(default=1024, ge=1)
    negatives: int = Field(default=1000, ge=1)
    """Negatives per positive, drawn by the sampler."""
    valid_every: int = Field(default=5, ge=1)
    """Epochs between validations."""
    patience: int = Field(default=5, ge=1)
    """Training stops after this many validations without a new best."""
    stream: bool = False
    """Read the training pairs through Ray Data, in another random order (`pipelines.train.stream`), where they do not
    fit in memory."""


class ProtocolSettings(Settings):
    """How a model is scored and selected."""

    metric: str = "ndcg_20"
    """Validation metric that selects the epoch and the configuration."""
    cutoffs: tuple[int, ...] = (20,)
    mask_valid: bool = False
    """Hide validation positives when testing (training positives are always hidden)."""
    ties: Literal["item-hash"] = TIE_RULE

    @model_validator(mode="after")
    def _metric_is_measured(self) -> Self:
        _, k = parse_metric(self.metric)
        if any(cutoff < 1 for cutoff in self.cutoffs):
            raise ValueError(f"cutoffs must be at least 1, got {list(self.cutoffs)}")
        if k not in self.cutoffs:
            measured = ", ".join(metric_name(m, c) for c in self.cutoffs for m in METRICS)
            raise ValueError(f"protocol.metric {self.metric!r} is not among the measured metrics ({measured})")
        return self


DEFAULT_SAMPLER = ComponentSettings(name=sampling.DEFAULT)


class Trial(Settings):
    """One configuration on one seed: all that determines its result, and nothing else."""

    data: str
    """Content fingerprint of the prepared dataset."""
    task: Literal["pairs", "reference"] = "pairs"
    """Training on pairs, or fitting a reference model (see `pipelines.settings.reference`)."""
    backbone: ComponentSettings
    loss: ComponentSettings
    """Of a reference, the model."""
    sampler: ComponentSettings = DEFAULT_SAMPLER
    """Of the negatives."""
    optim: OptimSettings = OptimSettings()
    train: TrainSettings = TrainSettings()
    protocol: ProtocolSettings = ProtocolSettings()
    seed: int = Field(default=0, ge=0)
    result_version: int = RESULT_VERSION

    @property
    def hash(self) -> str:
        """Identity of the trial: 16 hex digits of the SHA-256 of its canonical JSON.

        The default sampler and a stream that is not used are left out, so that trials keep the identity they had
        before there were others; of a reference, all that has no effect on it.
        """
        content = self.model_dump(mode="json", exclude={"sampler"} if self.sampler == DEFAULT_SAMPLER else None)
        if self.task == REFERENCE:
            del content["optim"], content["train"]
        elif not self.train.stream:
            del content["train"]["stream"]
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    def flat(self) -> dict[str, Any]:
        """Flat parameters for trackers and tables: ``loss``, ``loss.tau``, ``optim.lr``, ...; of a reference
        ``reference.l2`` and so on."""
        flat: dict[str, Any] = {"data": self.data, "task": self.task, "seed": self.seed}
        sections = ["protocol"]
        if self.task == REFERENCE:
            flat |= {"backbone": self.backbone.name, "loss": self.loss.name}
            flat |= {f"{REFERENCE}.{key}": value for key, value in self.loss.params.items()}
        else:
            sections = ["optim", "train", "protocol"]
            for role in COMPONENTS:
                component: ComponentSettings = getattr(self, role)
                flat[role] = component.name
                flat |= {f"{role}.{key}": value for key, value in component.params.items()}
        for section in sections:
            flat |= {f"{section}.{k}": v for k, v in getattr(self, section).model_dump(mode="json").items()}
        if not self.train.stream:
            flat.pop("train.stream", None)
        return flat | {"result_version": self.result_version}


COMPONENTS: dict[str, Callable[[str], type]] = {
    "backbone": backbones.get,
    "loss": losses.get,
    "sampler": sampling.get,
}
"""What a trial of training is made of by name, and how a name becomes its class."""
_CLASSES = COMPONENTS | {REFERENCE: references.get}
SECTIONS: dict[str, type[Settings]] = {
    "optim": OptimSettings,
    "train": TrainSettings,
    "protocol": ProtocolSettings,
}


def component(role: str, name: str, given: Mapping[str, Any], where: str) -> ComponentSettings:
    """Check hyper-parameters against the constructor and fill in its defaults.

    Raises:
        InputError: for an unknown name, an unknown parameter or a value the constructor refuses.
    """
    cls: Any = _CLASSES[role](name)
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
    if (accepted_before := (role, cls.name, repr(values))) not in _ACCEPTED:
        try:
            construct(role, name, values)
        except ValueError as error:
            raise InputError(f"{where}: {role} {cls.name!r}: {error}") from None
        _ACCEPTED.add(accepted_before)
    return ComponentSettings(name=cls.name, params=params.model_dump(mode="json"))


_ACCEPTED: set[tuple[str, str, str]] = set()
"""Role, name and hyper-parameters that a constructor has accepted: the trials of a grid share most of them."""


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


def construct(role: str, name: str, params: dict[str, Any]) -> Any:
    """The component at no cost in memory: its constructor checks its hyper-parameters."""
    if role == REFERENCE:
        return references.build(name, params)
    if role == "backbone":
        nothing = torch.zeros(0, dtype=torch.int64)
        return backbones.build(name, params, Interactions(nothing, nothing, 1, 1), seed=0)
    if role == "sampler":
        two = Interactions(torch.arange(2), torch.arange(2), 2, 2)
        return sampling.build_sampler(name, params, two, pool=two)
    with torch.device("meta"):
        return losses.build(name, params, n_users=1, n_items=2**31, n_pairs=1, n_negatives=1, seed=0)


def make_trial(
    data: str, backbone: str, loss: str, dotted: Mapping[str, Any], *, seed: int = 0, where: str = "--set"
) -> Trial:
    """A trial from dotted settings such as ``{"loss.tau": 0.1, "optim.lr": 0.01}``; all else takes its default.

    The sampler has no argument of its own: ``{"sampler": "popularity", "sampler.power": 0.5}``.

    Raises:
        InputError: naming the setting that is unknown, refused or without effect.
    """
    names = {"backbone": backbone, "loss": loss, "sampler": _sampler_name(dotted, where)}
    nested: dict[str, dict[str, Any]] = {section: {} for section in (*COMPONENTS, *SECTIONS)}
    for key, value in dotted.items():
        section, dot, field = key.partition(".")
        if key == "sampler":
            continue
        if not dot or section not in nested:
            raise InputError(f"{where}: {choices('setting', key, dotted_names(names))}")
        nested[section][field] = value
    components = {role: component(role, name, nested[role], where) for role, name in names.items()}
    _check_sampler_has_effect(components["loss"], components["sampler"], where)
    sections = {name: parse(model, nested[name], f"{where}: {name}") for name, model in SECTIONS.items()}
    trial = Trial(data=data, seed=seed, **components, **sections)  # type: ignore[arg-type]
    if trial.train.stream:
        _check_streams(trial, where)
    return trial


def _sampler_name(dotted: Mapping[str, Any], where: str) -> str:
    name = dotted.get("sampler", sampling.DEFAULT)
    if name not in list(sampling.SAMPLERS):
        raise InputError(f"{where}: {choices('sampler', str(name), sampling.SAMPLERS)}")
    return name


def _check_sampler_has_effect(loss: ComponentSettings, sampler: ComponentSettings, where: str) -> None:
    if sampler != DEFAULT_SAMPLER and not construct("loss", loss.name, loss.params).sampled:
        raise InputError(
            f"{where}: the loss {loss.name!r} reads no sampled negatives here, "
            f"so the sampler {sampler.name!r} would have no effect"
        )


def _check_streams(trial: Trial, where: str) -> None:
    if "pair" in construct("loss", trial.loss.name, trial.loss.params).needs:
        raise InputError(
            f"{where}: train.stream: the loss {trial.loss.name!r} keeps a number per training pair in memory"
        )
    backbone = trial.backbone.name
    if "train" in inspect.signature(backbones.get(backbone)).parameters:
        raise InputError(f"{where}: train.stream: the backbone {backbone!r} keeps all training pairs in memory")


def dotted_names(components: Mapping[str, str]) -> list[str]:
    """Every dotted setting a trial of these components (role to name) accepts."""
    names = [f"{section}.{field}" for section, model in SECTIONS.items() for field in model.model_fields]
    for role, name in components.items():
        names += [f"{role}.{p.name}" for p in hyper_parameters(COMPONENTS[role](name))]
    return ["sampler", *names]
