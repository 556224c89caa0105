"""Samplers of negatives by name. A new one is one class and one entry here."""

from typing import Any

from recloss.errors import InputError, choices
from recloss.interactions import Interactions
from recloss.sampling.base import Sampler, WholeBatch
from recloss.sampling.catalogue import SharedItems, UniformItems
from recloss.sampling.false_negatives import FalseNegatives, PooledFalseNegatives, false_negative_pool
from recloss.sampling.outside import InBatchNegatives, PopularityNegatives, UniformNegatives

SAMPLERS: dict[str, type[Sampler]] = {
    cls.name: cls
    for cls in (
        FalseNegatives,
        InBatchNegatives,
        PooledFalseNegatives,
        PopularityNegatives,
        SharedItems,
        UniformItems,
        UniformNegatives,
    )
}
DEFAULT = UniformNegatives.name
"""What training draws from where nothing else is asked for."""

__all__ = [
    "DEFAULT", "SAMPLERS", "FalseNegatives", "InBatchNegatives", "PooledFalseNegatives", "PopularityNegatives",
    "Sampler", "SharedItems", "UniformItems", "UniformNegatives", "WholeBatch", "build_sampler", "false_negative_pool",
    "get",
]  # fmt: skip


def get(name: str) -> type[Sampler]:
    """The sampler class of a name.

    Raises:
        InputError: naming the nearest sampler and all there are.
    """
    if name not in SAMPLERS:
        raise InputError(choices("sampler", str(name), SAMPLERS))
    return SAMPLERS[name]


def build_sampler(name: str, params: dict[str, Any], train: Interactions, pool: Interactions | None = None) -> Sampler:
    """A sampler of these training positives, on their device; ``pool`` is for the samplers that need one.

    Raises:
        ValueError: for a hyper-parameter out of range, or a user who has no negatives.
        InputError: for a sampler that needs a pool of false negatives, without one.
    """
    cls = get(name)
    if not cls.needs_pool:
        return cls(train, **params)
    if pool is None:
        raise InputError(f"the sampler {name!r} needs a pool of false negatives, which this data does not have")
    return cls(train, pool, **params)  # type: ignore[call-arg]
