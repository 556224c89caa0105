"""`recloss sweep` as a job on a cluster with token authentication, the way `docs/cluster.md` tells."""

import json
import secrets
import shlex
import shutil
import sys
from pathlib import Path

import psutil
import pytest

from pipelines.train import journal

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.slow
def test_a_sweep_runs_as_a_job_and_a_job_that_died_is_submitted_again(
    background, ray_folder, free_port, write_sweep, exact, tmp_path
):
    pytest.importorskip("aiohttp_cors", reason="jobs need the dashboard: pip install 'ray[default]'")
    checkout, storage = tmp_path / "checkout", tmp_path / "shared"
    checkout.mkdir()
    for name in ("recloss", "pipelines", "tune_spaces"):
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / ".rayignore", checkout)
    shutil.copy(write_sweep(epochs=200), checkout / "toy.yaml")

    port, address = free_port(), f"http://127.0.0.1:{free_port()}"
    secret = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_TMPDIR": ray_folder}
    head = background.start(
        *background.RAY, "start", "--head", "--block", "--num-cpus", 2, "--port", port, "--dashboard-host", "127.0.0.1",
        "--dashboard-port", address.rpartition(":")[2], "--dashboard-agent-listen-port", free_port(), env=secret,
    )  # fmt: skip
    jobs = f"{address}/api/jobs/"
    background.until(lambda: background.answers(jobs), 60, head)
    assert background.answers(jobs) == 401, "without the token"
    assert background.answers(jobs, Authorization=f"Bearer {'0' * 64}") in (401, 403)
    assert background.answers(jobs, Authorization=f"Bearer {secret['RAY_AUTH_TOKEN']}") == 200

    def job(*words, **more):
        return background.start(
            *background.RAY, "job", *words, env=secret | {"RAY_API_SERVER_ADDRESS": address}, **more
        )

    def submit(name, *options):
        python = shlex.quote(sys.executable)
        sweep = f"{python} -m pipelines.cli sweep toy.yaml --storage {shlex.quote(str(storage))}"
        where = f"{python} -c 'import pipelines; print(pipelines.__file__)'"
        entry = ["sh", "-c", f"{where} && {sweep}"]
        return job("submit", "--working-dir", ".", "--submission-id", name, *options, "--", *entry, cwd=checkout)

    background.finish(submit("first", "--no-wait"), 60)
    trials = storage / "toy"
    begun = background.until(
        lambda: [file.parent for file in trials.glob("*/journal.jsonl") if len(journal.read(file.parent)) > 3],
        120,
        head,
    )
    (driver,) = (p for p in psutil.Process(head.pid).children(recursive=True) if "toy.yaml" in p.cmdline()[-3:])
    driver.kill()

    def first():
        return background.finish(job("status", "first"), 60)

    background.until(lambda: "failed" in first().lower(), 60, head)
    started = {folder: journal.read(folder)[0]["time"] for folder in begun}

    output = background.finish(submit("second"), 240)
    uploaded = next(line for line in output.splitlines() if line.endswith("pipelines/__init__.py"))
    assert Path(uploaded).is_relative_to(ray_folder), "the code is what was uploaded, not what is installed"
    assert "Job 'second' succeeded" in output
    assert {folder: journal.read(folder)[0]["time"] for folder in begun} == started, "resumed, not started again"
    assert [trial[2] for trial in exact(f"sqlite:///{storage}/mlflow.db")] == ["FINISHED"] * 5
    assert secret["RAY_AUTH_TOKEN"] not in json.dumps([file.read_text() for file in trials.glob("*/journal.jsonl")])
