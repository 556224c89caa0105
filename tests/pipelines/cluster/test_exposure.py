"""Who can reach what runs on this machine, and where a password goes."""

import os
import subprocess
import sys

import psutil

from pipelines.tracking import read_results
from pipelines.tracking.store import contact

SECRET = "s3cret-hunter2"


def listens(process: psutil.Process) -> set[str]:
    """The addresses at which a process and its children accept connections."""
    family = [process, *process.children(recursive=True)]
    found = [c for one in family for c in one.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
    return {connection.laddr.ip for connection in found}


def test_the_ui_serves_this_machine_and_a_password_is_kept_nowhere(
    background, free_port, write_sweep, ray_folder, tmp_path
):
    port, storage = free_port(), tmp_path / "runs"
    with contact(f"sqlite:///{tmp_path}/served/mlflow.db", create=True):
        pass
    command = (sys.executable, "-m", "pipelines.cli", "ui", "--port", port, "--storage", tmp_path / "served")
    server = background.start(*command, cwd=tmp_path)
    background.until(lambda: background.answers(f"http://127.0.0.1:{port}/health"), 90, server)
    assert listens(server) == {"127.0.0.1"}
    address = f"http://127.0.0.1:{port}/api/2.0/mlflow/experiments/search?max_results=1"
    assert background.answers(address) == 200
    assert background.answers(address, Host="evil.example") == 403, "a page elsewhere cannot act through the browser"

    env = {"MLFLOW_TRACKING_URI": f"http://ann:{SECRET}@127.0.0.1:{port}", "RAY_TMPDIR": ray_folder}
    output = background.finish(background.sweep(write_sweep(), storage, env=env), 180)
    assert {trial.status for trial in read_results(env["MLFLOW_TRACKING_URI"], "toy").trials} == {"FINISHED"}
    background.stop(server)
    failed = background.sweep(write_sweep(), storage, env=env)
    assert failed.wait(180) == 2
    assert f"http://***@127.0.0.1:{port}" in background.output(failed)

    written = [path for place in (tmp_path, ray_folder) for path in place.rglob("*") if path.is_file()]
    assert len(written) > 30
    assert [path for path in written if SECRET.encode() in path.read_bytes()] == []
    assert SECRET not in output


LOCAL = """
import os, subprocess, sys
import pipelines.sweep.trials
from pipelines.cluster import connected

stranger = "import sys; from ray._raylet import GcsClient; GcsClient(address=sys.argv[1]).internal_kv_keys(b'', None)"
with connected():
    import ray
    address = ray.get_runtime_context().gcs_address
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    for token in ({"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}, os.environ):
        said = subprocess.run([sys.executable, "-c", stranger, address], env=clean | dict(token), capture_output=True)
        print(said.returncode, b"InvalidAuthToken" in said.stderr)
    print(ray.get(ray.remote(lambda: os.environ["MALLOC_ARENA_MAX"]).remote()))
"""


def test_a_local_ray_obeys_its_own_processes_only(ray_folder, tmp_path):
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    env |= {"RAY_TMPDIR": str(ray_folder), "HOME": str(tmp_path)}
    said = subprocess.run([sys.executable, "-c", LOCAL], env=env, capture_output=True, text=True, timeout=180)
    *refused, heaps = said.stdout.splitlines()
    assert refused == ["1 True", "1 True", "0 False"], said.stdout + said.stderr
    assert heaps == "2", "a process that runs many trials does not keep what each needed"
    assert list(tmp_path.iterdir()) == [], "the token is written nowhere"
