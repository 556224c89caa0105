"""What every test may use: one quiet Ray for the whole session, and the folder of real data."""

import os
from collections.abc import Iterator
from pathlib import Path

# Read by Ray and MLflow when they are imported, so before any test module is.
os.environ["RAY_AUTH_MODE"] = "disabled"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["DO_NOT_TRACK"] = "1"

import hypothesis
import pytest
import torch

torch.set_num_threads(min(2, torch.get_num_threads()))
hypothesis.settings.register_profile("untimed", deadline=None)  # a slow moment of the machine is no failure
hypothesis.settings.load_profile("untimed")


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What tests map goes to a cache of the session, beside the kernels that are built already."""
    kept = Path(os.environ.get("RECLOSS_CACHE") or Path.home() / ".cache" / "recloss") / "native"
    kept.mkdir(parents=True, exist_ok=True)
    folder = tmp_path_factory.mktemp("cache")
    (folder / "native").symlink_to(kept)
    os.environ["RECLOSS_CACHE"] = str(folder)


@pytest.fixture(autouse=True)
def seeded() -> None:
    """A test's draws are the same whatever ran before it."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def ray_local() -> Iterator[None]:
    """Ray with 2 CPUs on this machine, started once per session."""
    import ray

    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=300_000_000,
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def recloss_data() -> Path:
    """The folder of real datasets."""
    if "RECLOSS_DATA" not in os.environ:
        pytest.skip("RECLOSS_DATA is not set: tests on real data are skipped")
    folder = Path(os.environ["RECLOSS_DATA"])
    assert folder.is_dir(), f"RECLOSS_DATA={folder} is not a folder"
    return folder
