"""`cluster.yaml`, without a cloud: what Ray's launcher accepts, and what we promise about it."""

import re
import shutil
import zipfile
from pathlib import Path

import pytest
import yaml
from jsonschema import ValidationError
from ray._private.runtime_env.packaging import create_package
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).resolve().parents[3]
COMMANDS = (
    "initialization_commands",
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
)


def read() -> dict:
    return yaml.safe_load((ROOT / "cluster.yaml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def launcher() -> dict:
    config = prepare_config(read())
    validate_config(config)
    return config


@pytest.fixture(scope="module")
def workers(launcher) -> dict:
    return {name: kind for name, kind in launcher["available_node_types"].items() if name != launcher["head_node_type"]}


def start(launcher, kind: str) -> str:
    (command,) = (line for line in launcher[f"{kind}_start_ray_commands"] if "ray start" in line)
    return command


@pytest.mark.parametrize("typo", [{"max_wrokers": 3}, {"head_node_type": "haed"}])
def test_ray_refuses_a_typo(typo):
    with pytest.raises((ValidationError, ValueError)):
        validate_config(prepare_config(read() | typo))


def test_groups_of_gpu_workers_grow_from_nothing_and_some_are_spot(launcher, workers):
    head = launcher["available_node_types"][launcher["head_node_type"]]
    assert head["resources"] == {"CPU": 0}
    for kind in workers.values():
        assert kind["resources"]["GPU"] >= 1
        assert 0 == kind["min_workers"] < kind["max_workers"] <= launcher["max_workers"]
    assert sum(kind["max_workers"] for kind in workers.values()) <= launcher["max_workers"]
    spot = {
        name: kind["node_config"].get("InstanceMarketOptions", {}).get("MarketType") for name, kind in workers.items()
    }
    assert sorted(map(str, spot.values())) == ["None", "spot"]


@pytest.mark.parametrize("kind", ["head", "worker"])
def test_every_node_asks_for_the_same_token(kind, launcher):
    assert "export RAY_AUTH_MODE=token" in start(launcher, kind)
    assert launcher["file_mounts"]["/home/ec2-user/.ray/auth_token"] == "~/.ray/auth_token"
    assert "chmod 600 ~/.ray/auth_token" in launcher["setup_commands"]


def test_nothing_listens_to_the_world(launcher):
    text = (ROOT / "cluster.yaml").read_text()
    assert "0.0.0.0" not in text
    assert "--dashboard-host=127.0.0.1" in start(launcher, "head")
    (server,) = (line for line in launcher["head_setup_commands"] if "mlflow server" in line)
    hosts = re.search(r"--allowed-hosts (.*?) --backend", server)[1]
    assert hosts.endswith(":5000,localhost:5000")
    assert "*" not in hosts
    assert re.search(r"--host (.*?) --port", server)[1] == "$(hostname -I | cut -d' ' -f1)"
    for name, kind in launcher["available_node_types"].items():
        assert kind["node_config"]["SecurityGroupIds"], f"{name}: Ray's own group opens port 22 to the internet"


def test_the_tracking_store_is_a_database_that_needs_no_password(launcher):
    (server,) = (line for line in launcher["head_setup_commands"] if "mlflow server" in line)
    assert "--backend-store-uri 'postgresql:///mlflow?host=/var/run/postgresql'" in server
    assert "--artifacts-destination /shared/" in server
    assert "MLFLOW_TRACKING_URI=http://" in start(launcher, "head")
    assert "@" not in server


def test_head_and_workers_mount_the_same_storage(launcher):
    mounts = [line for line in launcher["setup_commands"] if "mount -t efs" in line]
    assert len(mounts) == 1, "setup_commands run on every node"
    assert mounts[0].endswith(":/ /shared")
    assert "-o tls" in mounts[0]


def test_what_is_installed_is_what_is_tested(launcher, workers):
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if line[:1] not in "#")
    lines = [line for key in COMMANDS for line in launcher[key]]
    named = [pin for line in lines for pin in re.findall(r"([\w-]+)==([\w.]+)", line)]
    assert named == [("torch", pins["torch"])]
    for kind in ("head", "worker"):
        assert "cd ~/recloss && pip install -q -c constraints.txt '.[pipelines,cluster]'" in [
            *launcher[f"{kind}_setup_commands"]
        ]
    cuda = [line for line in launcher["worker_setup_commands"] if "whl/cpu" in line]
    assert cuda == [], "workers take the public wheel, which has CUDA"
    assert {"ray", "boto3", "psycopg", "aiohttp-cors"} <= pins.keys()


@pytest.mark.parametrize("kind", ["head", "worker"])
def test_threads_are_limited(kind, launcher):
    assert "OMP_NUM_THREADS=1" in start(launcher, kind)


def test_a_job_uploads_the_code_and_nothing_large(tmp_path):
    checkout, package = tmp_path / "checkout", tmp_path / "package.zip"
    checkout.mkdir()
    for name in ("recloss", "pipelines", "tune_spaces"):
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in (".rayignore", ".gitignore", "pyproject.toml", "constraints.txt", "README.md", "cluster.yaml"):
        shutil.copy(ROOT / name, checkout / name)
    (checkout / "my_sweep.yaml").write_text("name: mine\n")
    large = (
        ".git/objects/pack/a.pack", ".venv/lib/torch.so", ".venv-gpu/lib/torch.so", "data/ml-100k/train/part-0.parquet",
        "runs/demo/0123456789abcdef/model.pt", "runs/mlflow.db", "mlflow.db", "model.pt", "mlruns/0/x",
        "report/table.md", "build/lib/x.so", "dist/recloss.whl", "tests/golden/x.json", "docs/losses.md",
        "benchmarks/RESULTS.md",
        "pipelines/__pycache__/cli.pyc", ".mypy_cache/x", ".hypothesis/x", "recloss.egg-info/PKG-INFO",
    )  # fmt: skip
    for name in large:
        file = checkout / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"\0" * 1_000_000)
    create_package(str(checkout), package, include_gitignore=True)
    inside = zipfile.ZipFile(package)
    names = {name for name in inside.namelist() if not name.endswith("/")}
    assert names.isdisjoint(large), sorted(names.intersection(large))
    assert {"my_sweep.yaml", "pipelines/cli.py", "recloss/losses/talos.py", "tune_spaces/sweeps/demo.yaml"} <= names
    assert sum(info.file_size for info in inside.infolist()) < 2_000_000
