"""What a trial occupies, against what the nodes of the Ray cluster have."""

import os
import time
from collections.abc import Mapping, Sequence

from pipelines.settings import ResourceSettings
from pipelines.sweep.progress import Say
from recloss.errors import InputError

NODE_SECONDS = 600.0
"""A cluster that starts nodes when they are asked for gets so long to bring one on which a trial fits."""
_NAMES = {"CPU": "CPU", "GPU": "GPU", "memory": "GB of memory"}
_GB = 1e9

Node = Mapping[str, float]
"""Ray's names of resources to amounts."""


def bundle(resources: ResourceSettings) -> dict[str, float]:
    """What one worker of a trial asks of Ray."""
    need = {"CPU": resources.cpus, "GPU": resources.gpus, "memory": float(resources.memory or 0)}
    return {name: amount for name, amount in need.items() if amount}


def at_once(nodes: Sequence[Node], resources: ResourceSettings) -> int:
    """How many trials the nodes run at once; a worker of a trial is on one node."""
    need = bundle(resources)
    workers = sum(int(min(node.get(name, 0) / amount for name, amount in need.items())) for node in nodes)
    return workers // resources.workers


def nodes() -> list[Node]:
    """The nodes that are alive."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def shortage(nodes: Sequence[Node], resources: ResourceSettings) -> str:
    """The numbers, where no trial fits."""
    each = "a worker of a trial" if resources.workers > 1 else "one trial"
    count = f" and a trial has {resources.workers} workers" if resources.workers > 1 else ""
    have = "; ".join(sorted({_shown({name: node.get(name, 0) for name in bundle(resources)}) for node in nodes}))
    return (
        f"{each} needs {_shown(bundle(resources))} on one node{count}; the Ray cluster's nodes have {have or 'nothing'}"
    )


def check_fits(resources: ResourceSettings, say: Say) -> int:
    """How many trials the cluster shall run at once.

    Where none fits, a cluster of ``RAY_ADDRESS`` is asked for more nodes and waited for; others do not grow.

    Raises:
        InputError: with the numbers, if not even one fits; Ray itself would wait for ever.
    """
    found = at_once(nodes(), resources)
    if not found and os.environ.get("RAY_ADDRESS"):
        from ray.autoscaler.sdk import request_resources

        minutes = f"{NODE_SECONDS / 60:g} minutes"
        say(f"{shortage(nodes(), resources)}; asking for more and waiting {minutes}")
        request_resources(bundles=[bundle(resources)] * resources.workers)
        deadline = time.monotonic() + NODE_SECONDS
        while not (found := at_once(nodes(), resources)) and time.monotonic() < deadline:
            time.sleep(2)
        request_resources(bundles=[])
    if not found:
        raise InputError(f"resources: {shortage(nodes(), resources)}")
    return resources.concurrent or found


def _shown(amounts: Node) -> str:
    scale = {"memory": _GB}
    return ", ".join(f"{amount / scale.get(name, 1):.4g} {_NAMES[name]}" for name, amount in amounts.items())
