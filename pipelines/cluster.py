"""Ray: connect to the cluster of ``RAY_ADDRESS`` or start a quiet local instance; check that a trial fits."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from pipelines.settings import ResourceSettings
from recloss.errors import InputError

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
}
"""Environment of a local instance: no telemetry, no token for a cluster that only this user can reach, no banners."""


@contextmanager
def connected() -> Iterator[None]:
    """Ray for the duration of the block; an instance that is already there is used and left running."""
    address = os.environ.get("RAY_ADDRESS")
    if not address:
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
    import ray

    for name in ("ray.tune", "ray.train", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if ray.is_initialized():
        yield
        return
    dashboard = None if address else False
    ray.init(address=address or "local", include_dashboard=dashboard, log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()


def check_fits(resources: ResourceSettings) -> int:
    """How many trials the cluster runs at once.

    Raises:
        InputError: with the numbers, if not even one fits; Ray itself would wait for ever.
    """
    import ray

    have = ray.cluster_resources()
    need = {"CPU": resources.cpus * resources.workers, "GPU": resources.gpus * resources.workers}
    for kind, amount in need.items():
        if amount > have.get(kind, 0):
            raise InputError(f"resources: one trial needs {amount:g} {kind}, the Ray cluster has {have.get(kind, 0):g}")
    return int(min(have[kind] // amount for kind, amount in need.items() if amount))
