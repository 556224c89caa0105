"""A small log made in the test, prepared once; an empty tracking store, set up once."""

from pathlib import Path

import numpy as np
import pytest

from pipelines.prepare import prepare
from pipelines.settings import PrepareSettings
from pipelines.tracking.store import contact


def write_log(path: Path, n_users: int = 60, n_items: int = 40, seed: int = 0) -> Path:
    """A CSV log of users who like the items of their group of four."""
    rng = np.random.default_rng(seed)
    same_group = np.arange(n_users)[:, None] % 4 == np.arange(n_items) % 4
    liked = rng.random((n_users, n_items)) < np.where(same_group, 0.8, 0.08)
    rows = [f"u{user},i{item},{rng.integers(1, 6)}" for user, item in np.argwhere(liked)]
    path.write_text("who,what,stars\n" + "\n".join(rows) + "\n")
    return path


@pytest.fixture(scope="session")
def raw_log(tmp_path_factory) -> Path:
    return write_log(tmp_path_factory.mktemp("raw") / "log.csv")


@pytest.fixture(scope="session")
def prepared(raw_log, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("prepared") / "toy"
    columns = {"user": "who", "item": "what", "rating": "stars"}
    prepare(raw_log, out, PrepareSettings(format="csv", columns=columns, min_rating=2, k_core=3), engine="local")
    return out


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory) -> Path:
    """MLflow needs seconds to set up a SQLite file: once, then copied."""
    path = tmp_path_factory.mktemp("store") / "template.db"
    with contact(f"sqlite:///{path}", create=True):
        return path
