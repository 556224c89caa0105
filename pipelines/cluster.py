"""Ray: connect to the cluster of ``RAY_ADDRESS`` or start a quiet local instance; do its nodes share the storage?"""

import gc
import logging
import os
import secrets
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from recloss.errors import InputError

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
}
"""Environment of a driver: no telemetry, no banners, no files that nobody reads."""
WORKERS = {"MALLOC_ARENA_MAX": "2"}
"""Environment of the processes of a local instance. Every trial runs in a new thread of one of them, which glibc gives
any of up to eight heaps per core; each would keep what the largest trial in it needed."""


@contextmanager
def connected() -> Iterator[None]:
    """Ray for the duration of the block; an instance that is already there is used and left running.

    On Linux a local instance listens on every network interface, so it gets a token that only its own processes know
    (unless ``RAY_AUTH_MODE`` says otherwise); a cluster has its own.
    """
    address = os.environ.get("RAY_ADDRESS")
    for name, value in (QUIET if address else QUIET | WORKERS).items():
        os.environ.setdefault(name, value)
    if not address and "RAY_AUTH_MODE" not in os.environ:
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    import ray

    for name in ("ray.train", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # it prints a trace for each process that dies
    if ray.is_initialized():
        yield
        return
    dashboard = None if address else False
    ray.init(address=address or "local", include_dashboard=dashboard, log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield
    finally:
        _shutdown()


def _shutdown() -> None:
    """End the connection to Ray; an object of Ray that another thread's garbage collection frees meanwhile would end
    the process with an exit code of 1. A further Ctrl-C has nothing to hurry here."""
    import ray

    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.collect()
    gc.disable()
    try:
        ray.shutdown()
    finally:
        gc.enable()
        signal.signal(signal.SIGINT, before)


def check_shared(storage: Path, data: Iterable[Path]) -> None:
    """Every node that is alive sees this machine's storage and data at the same path.

    Args:
        storage: a folder in which a file is made for a moment.
        data: files.

    Raises:
        InputError: naming a node and what it does not see.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = ray.get_runtime_context().get_node_id()
    others = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] != here]
    if not others:
        return
    look = ray.remote(num_cpus=0)(_missing)
    probe = storage.absolute() / f"probe-{secrets.token_hex(8)}"
    probe.touch()
    try:
        paths = [str(probe), *(str(path.absolute()) for path in data)]
        found = {
            node["NodeManagerAddress"]: look.options(
                scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=True)
            ).remote(paths)
            for node in others
        }
        for address, missing in found.items():
            if names := ray.get(missing):
                folders = ", ".join(str(Path(name).parent) for name in names)
                raise InputError(
                    f"node {address} does not see this machine's {folders}: --storage and prepared data must be on "
                    "storage that all nodes share, at the same path"
                )
    finally:
        probe.unlink()


def _missing(paths: list[str]) -> list[str]:
    return [path for path in paths if not Path(path).exists()]
