"""Sweeps recorded by a real MLflow server, on SQLite and on PostgreSQL; several drivers at a time."""

import os
import pwd
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import psycopg
import pytest
from rich.console import Console

from pipelines.report import build_report, write_report
from pipelines.settings import SweepSettings, read
from pipelines.sweep.run import run_sweep
from pipelines.tracking import read_results


def database_binaries() -> Path | None:
    """The folder of PostgreSQL's programs: on the path, or where Debian puts them."""
    if found := shutil.which("initdb"):
        return Path(found).parent
    return max(Path("/usr/lib/postgresql").glob("*/bin"), default=None, key=lambda folder: float(folder.parent.name))


@pytest.fixture
def database(background, free_port) -> Iterator[str]:
    """A PostgreSQL of this test, with a password; its URI."""
    binaries = database_binaries()
    if binaries is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt install postgresql)")
    user = "postgres" if os.getuid() == 0 else None  # it refuses to run as root
    if user and user not in {entry.pw_name for entry in pwd.getpwall()}:
        pytest.skip("PostgreSQL does not run as root, and there is no user 'postgres'")
    password, port = secrets.token_hex(16), free_port()
    with TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        place = Path(folder)
        (place / "password").write_text(password)
        if user:
            shutil.chown(place, user)
            shutil.chown(place / "password", user)
        initdb = [binaries / "initdb", "-D", place / "data", "-A", "scram-sha-256", "-U", "recloss"]
        subprocess.run(
            [*initdb, "--no-sync", f"--pwfile={place}/password"], user=user, check=True, stdout=subprocess.DEVNULL
        )
        options = ("-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={place}", "-c", "fsync=off")
        server = background.start(
            binaries / "postgres", "-D", place / "data", "-p", port, *options, user=user, cwd=place
        )
        uri = f"postgresql://recloss:{password}@127.0.0.1:{port}/postgres"
        background.until(lambda: accepts(uri), 30, server)
        yield uri
        background.stop(server)


def accepts(uri: str) -> bool:
    try:
        psycopg.connect(uri).close()
    except psycopg.OperationalError:
        return False
    return True


@pytest.fixture(params=["postgresql", pytest.param("sqlite", marks=pytest.mark.slow)])
def server(request, background, free_port, tmp_path) -> str:
    """An MLflow server on a database of its own; its address."""
    store = f"sqlite:///{tmp_path}/server.db" if request.param == "sqlite" else request.getfixturevalue("database")
    port = free_port()
    background.mlflow(store, port, tmp_path / "artifacts")
    return f"http://127.0.0.1:{port}"


def report(uri: str, folder: Path) -> list[bytes]:
    """The files of the report that hold quality."""
    write_report(build_report(read_results(uri, "toy")), folder, ["csv"])
    return [(folder / name).read_bytes() for name in ("table.csv", "seeds.csv")]


def test_drivers_at_the_same_time_record_on_a_server_what_a_file_would_hold(
    server, background, write_sweep, exact, tmp_path, ray_local
):
    import ray

    files = [write_sweep(name, seeds=[seed]) for seed, name in enumerate(("toy", "other", "third"))]
    on_cluster = {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    storage = tmp_path / "shared"
    drivers = [background.sweep(file, storage, "--tracking-uri", server, env=on_cluster) for file in files]
    for driver in drivers:
        background.finish(driver, 600)

    alone = tmp_path / "alone"
    uri = f"sqlite:///{alone}/mlflow.db"
    toy = read(SweepSettings, files[0])
    assert run_sweep(toy, storage=alone, tracking_uri=uri, spaces=None, console=Console(quiet=True))
    assert exact(server) == exact(uri)
    assert report(server, tmp_path / "a") == report(uri, tmp_path / "b")
    for seed, name in enumerate(("other", "third"), start=1):
        trials = exact(server, name)
        assert [trial[2] for trial in trials] == ["FINISHED"] * (5 if seed > 1 else 3)
        assert {trial[3]["seed"] for trial in trials if "grid" in trial[1]} == {str(seed)}
    assert not (storage / "mlflow.db").exists()
