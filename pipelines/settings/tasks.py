"""The tasks that trials train for, and what is different in the settings of each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import nn

from pipelines import references
from recloss import backbones, links, losses
from recloss.interactions import Interactions
from recloss.metrics import METRICS, metric_name
from recloss.ranking import Lists, scorers
from recloss.ranking import losses as list_losses
from recloss.sequences import Sequences
from recloss.ties import TIE_RULE

Task = Literal["pairs", "sequence", "rank", "link"]
"""What a data set is prepared for and a trial trains on."""


@dataclass(frozen=True)
class TaskSpec:
    """What a task's trials are made of.

    Attributes:
        backbones, losses: by name, for titles and listings.
        backbone, loss: the class of a name, or one of its aliases; raise `InputError` for another.
        make_backbone, make_loss: construct by name and hyper-parameters at no cost in memory, which checks these.
        train: the settings of training (see `TrainSettings`) that it reads and not every task does.
        samples: whether its negatives come from a sampler of `recloss.sampling`.
        divides: whether several processes, or micro-batches, can share a batch.
        measured: names of the metrics at given cut-offs.
        shown: kinds of metrics that a table shows, if it is not asked for others.
        families: the losses by what they optimise, in the order of a table.
        fixed: dotted settings that have one value in it.
        references: models that a table of its losses is read against, by name.
        defaults: dotted settings that have another default in it.
        units: what is ranked for, one by one.
        ranking: a line that says how its scores come about, with ``cutoffs``, ``masking`` and ``ties``.
    """

    backbones: Mapping[str, type[Any]]
    losses: Mapping[str, type[Any]]
    backbone: Callable[[str], type[Any]]
    loss: Callable[[str], type[Any]]
    make_backbone: Callable[[str, dict[str, Any]], nn.Module]
    make_loss: Callable[[str, dict[str, Any]], nn.Module]
    train: frozenset[str]
    samples: bool
    divides: bool
    measured: Callable[[Sequence[int]], list[str]]
    shown: tuple[str, ...]
    families: Mapping[str, tuple[type[Any], ...]]
    fixed: Mapping[str, Any] = field(default_factory=lambda: {"protocol.ties": TIE_RULE})
    defaults: Mapping[str, Any] = field(default_factory=dict)
    units: str = "users"
    references: Mapping[str, type[Any]] = field(default_factory=dict)
    ranking: str = "all items, K = {cutoffs}, {masking}, ties by {ties}"

    def shown_at(self, cutoffs: Sequence[int]) -> list[str]:
        """Names of the metrics that a table shows, those without a cut-off last."""
        named = [metric_name(kind, k) for k in cutoffs for kind in self.shown] + list(self.shown)
        measured = self.measured(cutoffs)
        return [name for name in named if name in measured]


def _pair_backbone(name: str, params: dict[str, Any]) -> nn.Module:
    nothing = torch.zeros(0, dtype=torch.int64)
    return backbones.build(name, params, Interactions(nothing, nothing, 1, 1), seed=0)


def _sequence_backbone(name: str, params: dict[str, Any]) -> nn.Module:
    nothing = torch.zeros(0, dtype=torch.int64)
    return backbones.build_sequential(name, params, Sequences(nothing, torch.zeros(2, dtype=torch.int64), 1), seed=0)


def _loss(name: str, params: dict[str, Any]) -> nn.Module:
    with torch.device("meta"):
        return losses.build(name, params, n_users=1, n_items=2**31, n_pairs=1, n_negatives=1, seed=0)


def _list_scorer(name: str, params: dict[str, Any]) -> nn.Module:
    nothing = torch.zeros(0)
    return scorers.build(name, params, Lists(nothing[:, None], nothing, torch.zeros(1, dtype=torch.int64)), seed=0)


def _link_backbone(name: str, params: dict[str, Any]) -> nn.Module:
    edges, negatives = torch.zeros(0, 2, dtype=torch.int64), torch.zeros(0, 1, 2, dtype=torch.int64)
    unlinked = links.Links(1, None, edges, edges, edges, negatives, negatives)
    with torch.device("meta"):
        return links.get(name)(unlinked, **params)


def _link_loss_class(name: str) -> type[losses.Loss]:
    cls = losses.get(name)
    links.check_loss(cls)
    return cls


def _link_loss(name: str, params: dict[str, Any]) -> nn.Module:
    with torch.device("meta"):
        loss = losses.build(name, params, n_users=1, n_items=2**31, n_pairs=1, n_negatives=1, seed=0)
    links.check_loss(loss)
    return loss


def _at_cutoffs(cutoffs: Sequence[int]) -> list[str]:
    return [metric_name(metric, k) for k in cutoffs for metric in METRICS]


TASKS: dict[Task, TaskSpec] = {
    "pairs": TaskSpec(
        backbones=backbones.BACKBONES,
        losses=losses.LOSSES,
        backbone=backbones.get,
        loss=losses.get,
        make_backbone=_pair_backbone,
        make_loss=_loss,
        train=frozenset({"negatives", "stream"}),
        samples=True,
        divides=True,
        measured=_at_cutoffs,
        shown=("recall", "ndcg"),
        families=losses.FAMILIES,
        references=references.REFERENCES,
    ),
    "sequence": TaskSpec(
        backbones=backbones.SEQUENCE_BACKBONES,
        losses=losses.LOSSES,
        backbone=backbones.get_sequential,
        loss=losses.get,
        make_backbone=_sequence_backbone,
        make_loss=_loss,
        train=frozenset({"negatives", "positions"}),
        samples=True,
        divides=True,
        measured=_at_cutoffs,
        shown=("hit_rate", "ndcg"),
        families=losses.FAMILIES,
        fixed={"protocol.mask_valid": True, "protocol.ties": TIE_RULE},
        ranking="all items but the user's history, K = {cutoffs}, ties by {ties}",
    ),
    "rank": TaskSpec(
        backbones=scorers.SCORERS,
        losses=list_losses.LIST_LOSSES,
        backbone=scorers.get,
        loss=list_losses.get,
        make_backbone=_list_scorer,
        make_loss=list_losses.build,
        train=frozenset({"slate"}),
        samples=False,
        divides=False,
        measured=lambda cutoffs: [metric_name("ndcg", k) for k in cutoffs],
        shown=("ndcg",),
        families={"list-wise": tuple(list_losses.LIST_LOSSES.values())},
        fixed={"protocol.mask_valid": False, "protocol.ties": TIE_RULE},
        defaults={"protocol.cutoffs": [1, 3, 5, 10], "protocol.metric": "ndcg_5"},
        units="queries",
        references=references.LIST_REFERENCES,
        ranking="the query's documents, gains 2^grade - 1, queries without a relevant document left out, "
        "K = {cutoffs}, ties by {ties}",
    ),
    "link": TaskSpec(
        backbones=links.LINK_BACKBONES,
        losses={name: cls for name, cls in losses.LOSSES.items() if cls.needs <= links.FIELDS.keys()},
        backbone=links.get,
        loss=_link_loss_class,
        make_backbone=_link_backbone,
        make_loss=_link_loss,
        train=frozenset({"negatives"}),
        samples=False,
        divides=False,
        measured=lambda cutoffs: [*(metric_name("hit_rate", k) for k in cutoffs), "mrr"],
        shown=("hit_rate", "mrr"),
        families=losses.FAMILIES,
        fixed={"protocol.mask_valid": False, "protocol.ties": links.LINK_TIE_RULE},
        defaults={"protocol.metric": "mrr"},
        units="edges",
        ranking="each held-out edge among its own negatives, messages on training edges alone, K = {cutoffs}, MRR "
        "without a cut-off, an edge takes the mean rank among equal scores",
    ),
}
assert set(TASKS) == set(get_args(Task))


def task_of_reference(name: str) -> Task:
    """The task that a reference model is of.

    Raises:
        InputError: naming the nearest reference and all there are.
    """
    found = references.get(name).name
    return next(task for task, spec in TASKS.items() if found in spec.references)
