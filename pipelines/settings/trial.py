"""A trial: one configuration on one seed, and how dotted settings become one."""

import hashlib
import inspect
import json
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from pipelines.settings.base import Settings, parse
from pipelines.settings.components import (
    COMPONENTS,
    DEFAULT_SAMPLER,
    REFERENCE,
    ComponentSettings,
    component,
    component_class,
    construct,
    hyper_parameters,
)
from pipelines.settings.tasks import TASKS, Task
from recloss import backbones, sampling
from recloss.errors import InputError, choices
from recloss.sequences import Positions
from recloss.ties import TIE_RULE

RESULT_VERSION = 1
"""Part of every trial's identity: raise it when the same settings give other numbers."""


class OptimSettings(Settings):
    """Adam with coupled L2."""

    lr: float = Field(default=0.01, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)


class TrainSettings(Settings):
    """Budget and batching of one training run; some settings are of some tasks alone (see `TaskSpec.train`)."""

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
    positions: Positions = "all"
    """Which places of a sequence are positives (see `recloss.sequences.Windows`); ``batch_size`` counts windows."""
    slate: int = Field(default=240, ge=2)
    """Documents of a query in a batch, at most (rank); ``batch_size`` counts queries."""


class ProtocolSettings(Settings):
    """How a model is scored and selected."""

    metric: str = "ndcg_20"
    """Validation metric that selects the epoch and the configuration."""
    cutoffs: tuple[int, ...] = (20,)
    mask_valid: bool = False
    """Hide validation positives when testing (training positives are always hidden)."""
    ties: Literal["item-hash", "mean-rank"] = TIE_RULE
    """How equal scores rank; each task has one rule."""

    @model_validator(mode="after")
    def _are_cutoffs(self) -> Self:
        if any(cutoff < 1 for cutoff in self.cutoffs):
            raise ValueError(f"cutoffs must be at least 1, got {list(self.cutoffs)}")
        return self


class SoftLabelSettings(Settings):
    """How soft labels are made for a loss that needs them: a model is trained with softmax, its users' vectors are
    clustered, and their items spread over the users of a cluster (see `recloss.soft_labels.propagate`)."""

    tau: float = Field(default=1.0, gt=0)
    """Temperature of the distances between vectors, whose scale it must fit."""
    clusters: int = Field(default=16, ge=1)
    alpha: float = Field(default=0.5, gt=0, lt=1)
    iterations: int = Field(default=20, ge=1)
    """Of the propagation ..."""
    kmeans_iterations: int = Field(default=100, ge=1)
    """... and, at most, of K-means."""
    reassigned: float = Field(default=0.0, ge=0, le=1)
    """Share of the users that are put into another cluster, to see what the clusters are worth."""
    epochs: int = Field(default=20, ge=1)
    """Budget of the training with softmax; all else is that of the trial."""


class Trial(Settings):
    """One configuration on one seed: all that determines its result, and nothing else."""

    data: str
    """Content fingerprint of the prepared dataset."""
    task: Task | Literal["reference"] = "pairs"
    """What is trained for, or fitting a reference model (see `pipelines.settings.reference`)."""
    backbone: ComponentSettings
    loss: ComponentSettings
    """Of a reference, the model."""
    sampler: ComponentSettings = DEFAULT_SAMPLER
    """Of the negatives."""
    optim: OptimSettings = OptimSettings()
    train: TrainSettings = TrainSettings()
    protocol: ProtocolSettings = ProtocolSettings()
    soft_labels: SoftLabelSettings | None = None
    """Of a loss that needs them."""
    seed: int = Field(default=0, ge=0)
    result_version: int = RESULT_VERSION

    @property
    def hash(self) -> str:
        """Identity of the trial: 16 hex digits of the SHA-256 of its canonical JSON.

        What has no effect is left out, and so are the default sampler and a stream that is not used: trials keep the
        identity they had before there were others.
        """
        content = self.model_dump(mode="json", exclude={"sampler"} if self.sampler == DEFAULT_SAMPLER else None)
        if self.soft_labels is None:
            del content["soft_labels"]
        if self.task == REFERENCE:
            del content["optim"], content["train"]
        else:
            content["train"] = self._training()
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    def flat(self) -> dict[str, Any]:
        """Flat parameters for trackers and tables: ``loss``, ``loss.tau``, ``optim.lr``, ...; of a reference
        ``reference.l2`` and so on."""
        flat: dict[str, Any] = {"data": self.data, "task": self.task, "seed": self.seed}
        protocol = self.protocol.model_dump(mode="json")
        if self.task == REFERENCE:
            flat |= {"backbone": self.backbone.name, "loss": self.loss.name}
            sections = {REFERENCE: self.loss.params, "protocol": protocol}
        else:
            for role in COMPONENTS:
                if role != "sampler" or TASKS[self.task].samples:
                    part: ComponentSettings = getattr(self, role)
                    flat |= {role: part.name} | {f"{role}.{key}": value for key, value in part.params.items()}
            sections = {"optim": self.optim.model_dump(mode="json"), "train": self._training(), "protocol": protocol}
            if self.soft_labels is not None:
                sections["soft_labels"] = self.soft_labels.model_dump(mode="json")
        for section, settings in sections.items():
            flat |= {f"{section}.{key}": value for key, value in settings.items()}
        return flat | {"result_version": self.result_version}

    def _training(self) -> dict[str, Any]:
        """The settings of training that have an effect."""
        assert self.task != REFERENCE
        unread = _SOMETIMES - TASKS[self.task].train
        settings = self.train.model_dump(mode="json", exclude=set(unread))
        if not self.train.stream:
            settings.pop("stream", None)
        return settings


_SOMETIMES = frozenset[str]().union(*(spec.train for spec in TASKS.values()))
"""Settings of training that not every task reads."""
SECTIONS: dict[str, type[Settings]] = {
    "optim": OptimSettings,
    "train": TrainSettings,
    "protocol": ProtocolSettings,
    "soft_labels": SoftLabelSettings,
}
"""What a trial of training is made of besides components."""


def make_trial(
    data: str,
    backbone: str,
    loss: str,
    dotted: Mapping[str, Any],
    *,
    task: Task = "pairs",
    seed: int = 0,
    where: str = "--set",
) -> Trial:
    """A trial from dotted settings such as ``{"loss.tau": 0.1, "optim.lr": 0.01}``; all else takes its default.

    The sampler has no argument of its own: ``{"sampler": "popularity", "sampler.power": 0.5}``.

    Raises:
        InputError: naming the setting that is unknown, refused or without effect.
    """
    names = {"backbone": backbone, "loss": loss, "sampler": _sampler_name(dotted, where)}
    nested: dict[str, dict[str, Any]] = {section: {} for section in (*COMPONENTS, *SECTIONS)}
    fixed = TASKS[task].fixed
    for key, value in dotted.items():
        if key in fixed and value != fixed[key]:
            raise InputError(f"{where}: {key} is always {fixed[key]} in the task {task!r}")
    for key, value in {**TASKS[task].defaults, **dotted, **fixed}.items():
        section, dot, field = key.partition(".")
        if key == "sampler":
            continue
        if not dot or section not in nested:
            raise InputError(f"{where}: {choices('setting', key, dotted_names(names, task))}")
        nested[section][field] = value
    components = {role: component(role, name, nested[role], where, task) for role, name in names.items()}
    _check_sampler_has_effect(components["loss"], components["sampler"], task, where)
    _check_training(nested["train"], task, where)
    sections: dict[str, Any] = {
        name: parse(model, nested[name], f"{where}: {name}") for name, model in SECTIONS.items()
    }
    check_metric(sections["protocol"], TASKS[task].measured(sections["protocol"].cutoffs), where)
    if "soft_targets" not in getattr(construct("loss", loss, components["loss"].params, task), "needs", ()):
        if nested["soft_labels"]:
            raise InputError(
                f"{where}: the loss {components['loss'].name!r} needs no soft labels, "
                f"so soft_labels.{next(iter(nested['soft_labels']))} would have no effect"
            )
        del sections["soft_labels"]
    trial = Trial(data=data, task=task, seed=seed, **components, **sections)  # type: ignore[arg-type]
    if trial.train.stream:
        _check_streams(trial, where)
    return trial


def check_metric(protocol: ProtocolSettings, measured: list[str], where: str) -> None:
    """Refuse a selection metric that is not measured.

    Raises:
        InputError: naming those that are.
    """
    if protocol.metric in measured:
        return
    if protocol.metric.rpartition("_")[0] in {name.rpartition("_")[0] for name in measured}:
        raise InputError(
            f"{where}: protocol.metric {protocol.metric!r} is not among the measured metrics ({', '.join(measured)})"
        )
    raise InputError(f"{where}: protocol: {choices('metric', protocol.metric, measured)}")


def _sampler_name(dotted: Mapping[str, Any], where: str) -> str:
    name = dotted.get("sampler", sampling.DEFAULT)
    if name not in list(sampling.SAMPLERS):
        raise InputError(f"{where}: {choices('sampler', str(name), sampling.SAMPLERS)}")
    return name


def _check_sampler_has_effect(loss: ComponentSettings, sampler: ComponentSettings, task: Task, where: str) -> None:
    if sampler == DEFAULT_SAMPLER:
        return
    if not TASKS[task].samples:
        raise InputError(f"{where}: the task {task!r} has no sampler, so {sampler.name!r} would have no effect")
    if not construct("loss", loss.name, loss.params, task).sampled:
        raise InputError(
            f"{where}: the loss {loss.name!r} reads no sampled negatives here, "
            f"so the sampler {sampler.name!r} would have no effect"
        )


def _check_training(given: Mapping[str, Any], task: Task, where: str) -> None:
    for name in given:
        if name in _SOMETIMES - TASKS[task].train:
            tasks = ", ".join(other for other, spec in TASKS.items() if name in spec.train)
            raise InputError(f"{where}: train.{name} has no effect in the task {task!r}, only in {tasks}")


def _check_streams(trial: Trial, where: str) -> None:
    if "pair" in construct("loss", trial.loss.name, trial.loss.params).needs:
        raise InputError(
            f"{where}: train.stream: the loss {trial.loss.name!r} keeps a number per training pair in memory"
        )
    backbone = trial.backbone.name
    if "train" in inspect.signature(backbones.get(backbone)).parameters:
        raise InputError(f"{where}: train.stream: the backbone {backbone!r} keeps all training pairs in memory")


def dotted_names(components: Mapping[str, str], task: Task = "pairs") -> list[str]:
    """Every dotted setting a trial of these components (role to name) accepts."""
    unread = {f"train.{name}" for name in _SOMETIMES - TASKS[task].train}
    names = [f"{section}.{field}" for section, model in SECTIONS.items() for field in model.model_fields]
    for role, name in components.items():
        names += [f"{role}.{p.name}" for p in hyper_parameters(component_class(role, name, task))]
    return [name for name in ["sampler", *names] if name not in unread]
