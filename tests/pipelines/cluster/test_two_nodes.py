"""A data-parallel trial over two nodes, each with an address of its own, and the loss of one of them in the middle."""

import os
import secrets
import shutil
from pathlib import Path

import pytest

from pipelines.train import journal

IMPATIENT = {
    "RAY_health_check_initial_delay_ms": 1000,
    "RAY_health_check_period_ms": 1000,
    "RAY_health_check_timeout_ms": 1000,
    "RAY_health_check_failure_threshold": 3,
}


class Cluster:
    """A head of two CPUs, of which a trial's coordinator takes a sliver, and workers of one CPU."""

    def __init__(self, background, hosts, folder, port) -> None:
        self.background, self.hosts, self.address = background, hosts, f"{hosts[0].address}:{port}"
        self.env = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(32),
            "RAY_TMPDIR": folder,
            **IMPATIENT,
        }
        self.head = self._start(hosts[0], "--head", "--port", port, "--num-cpus", 2, "--include-dashboard", "false")

    def add(self, number: int, hides: Path | None = None):
        """A worker; with ``hides``, one that has another folder at this path."""
        return self._start(self.hosts[number], "--address", self.address, "--num-cpus", 1, hides=hides)

    def sweep(self, file, storage):
        """The driver, beside the head."""
        env = self.env | self.hosts[0].env | {"RAY_ADDRESS": self.address}
        return self.background.sweep(file, storage, enter=self.hosts[0].enter, env=env)

    def _start(self, host, *options, hides=None):
        other = ("unshare", "-m", "sh", "-c", 'mount -t tmpfs tmpfs "$0" && exec "$@"', hides) if hides else ()
        command = (*host.enter, *other, *self.background.RAY, "start", "--block", *options)
        node = self.background.start(*command, env=self.env | host.env)
        self.background.until(lambda: "Ray runtime started" in self.background.output(node), 60, node)
        return node


@pytest.mark.slow
def test_a_trial_over_two_nodes_survives_the_loss_of_one(
    hosts, background, ray_folder, free_port, write_sweep, exact, tmp_path
):
    changes = {"losses": {"sl": {"optim.lr": 0.1, "optim.weight_decay": 0, "loss.tau": 0.2}}, "epochs": 300}
    two = write_sweep(resources={"cpus": 1, "workers": 2}, **changes)
    cluster = Cluster(background, hosts, ray_folder, free_port())
    worker = cluster.add(1)

    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    background.finish(cluster.sweep(two, undisturbed), 600)

    driver = cluster.sweep(two, disturbed)

    def validations():
        return [len(journal.read(file.parent)) for file in disturbed.glob("toy/*/journal.jsonl")]

    background.until(lambda: sum(validations()) > 10, 300, driver)
    background.kill(worker)
    cluster.add(2)
    background.finish(driver, 900)
    store = "sqlite:///{}/mlflow.db"
    assert exact(store.format(disturbed)) == exact(store.format(undisturbed))


@pytest.mark.slow
def test_nodes_that_do_not_share_the_storage_are_refused(
    hosts, background, ray_folder, free_port, write_sweep, tmp_path
):
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("only root may give a node a file system of its own")
    (tmp_path / "storage").mkdir()
    cluster = Cluster(background, hosts, ray_folder, free_port())
    cluster.add(1, hides=tmp_path / "storage")
    driver = cluster.sweep(write_sweep(), tmp_path / "storage")
    assert driver.wait(300) == 2
    refusal = background.output(driver).splitlines()[-1]
    where = tmp_path / "storage" / "toy"
    assert (
        f"node {hosts[1].address} does not see this machine's {where}: --storage and prepared data must be" in refusal
    )
    assert [file.name for file in where.glob("probe-*")] == []
