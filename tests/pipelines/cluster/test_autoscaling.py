"""A cluster that begins with a head alone grows while trials wait, as that of `cluster.yaml` does."""

import secrets

import pytest
import yaml

WORKERS = 2
CONFIG = {
    "cluster_name": "fake",
    "max_workers": WORKERS,
    "idle_timeout_minutes": 5,
    "upscaling_speed": 4.0,
    "provider": {
        "type": "fake_multinode",
        "use_node_id_as_ip": True,
        "disable_node_updaters": True,
        "disable_launch_config_check": True,
    },
    "head_node_type": "head",
    "available_node_types": {
        "head": {"resources": {"CPU": 0}, "node_config": {}, "min_workers": 0, "max_workers": 0},
        "worker": {"resources": {"CPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": WORKERS},
    },
}
EMPTY = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")


@pytest.mark.slow
def test_nodes_come_when_trials_wait_for_them(hosts, background, ray_folder, write_sweep, exact, tmp_path):
    host = hosts[0]
    if not host.enter:
        pytest.skip("Ray's make-believe cloud insists on port 6379: it needs a network namespace of its own")
    nothing = {f"{kind}_commands": [] for kind in EMPTY} | {"auth": {}, "docker": {}, "file_mounts": {}}
    (tmp_path / "fake.yaml").write_text(yaml.safe_dump(CONFIG | nothing | {"cluster_synced_files": []}))
    env = host.env | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_TMPDIR": ray_folder}
    command = (
        *background.RAY, "start", "--head", "--block", "--port", 6379, "--num-cpus", 0, "--include-dashboard", "false",
        "--autoscaling-config", tmp_path / "fake.yaml",
    )  # fmt: skip
    fast = {"AUTOSCALER_UPDATE_INTERVAL_S": 1, "RAY_FAKE_CLUSTER": 1}
    head = background.start(*host.enter, *command, env=env | fast)
    background.until(lambda: "Ray runtime started" in background.output(head), 60, head)

    sweep = write_sweep(epochs=150, resources={"cpus": 1, "concurrent": WORKERS})
    address = {"RAY_ADDRESS": f"{host.address}:6379"}
    driver = background.sweep(sweep, tmp_path / "runs", enter=host.enter, env=env | address)

    def nodes() -> int:
        return sum(p.name() == "raylet" for p in head.children(recursive=True)) - 1

    background.until(lambda: nodes() == WORKERS, 600, driver)
    output = background.finish(driver, 600)
    assert "the Ray cluster's nodes have 0 CPU; asking for more" in output
    assert [trial[2] for trial in exact(f"sqlite:///{tmp_path}/runs/mlflow.db")] == ["FINISHED"] * 5
