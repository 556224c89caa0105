"""The native kernels: built once, left out on request or without a compiler; no number moves by more than rounding."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from recloss import losses, native
from recloss.backbones import MF
from recloss.interactions import Interactions
from recloss.training import FitSettings, fit

ASK = "from recloss import native; print(native.kernel(), native.why_not())"
CURVES = Path(__file__).parents[1] / "golden" / "curves.json"


def ask(**environment: str) -> str:
    inherited = {name: value for name, value in os.environ.items() if name not in ("RECLOSS_NATIVE", "CC")}
    said = subprocess.run(
        [sys.executable, "-c", ASK], capture_output=True, text=True, env=inherited | environment, check=True
    )
    assert said.stderr == ""
    return said.stdout.strip()


def test_it_can_be_switched_off():
    assert ask(RECLOSS_NATIVE="0") == "torch switched off by RECLOSS_NATIVE=0"


@pytest.mark.parametrize(
    ("compiler", "reason"),
    [
        ("/nowhere/cc", "cannot be built: .*/nowhere/cc"),
        ("false", "do not compile"),
        (sys.executable, "do not compile: ."),
    ],
    ids=["missing", "failing", "not a compiler"],
)
def test_without_a_compiler_that_works_torch_does_it(compiler, reason, tmp_path):
    assert re.match(f"torch they {reason}", ask(CC=compiler, RECLOSS_CACHE=str(tmp_path)))
    assert not [path for path in tmp_path.rglob("*") if path.is_file()], "nothing half-built is left"


def test_without_a_place_for_the_cache_torch_does_it(tmp_path):
    (tmp_path / "file").touch()
    assert ask(RECLOSS_CACHE=str(tmp_path / "file")).startswith("torch they cannot be built: ")


@pytest.mark.usefixtures("kernels")
def test_it_is_built_once_and_by_several_processes_at_a_time(tmp_path, kernels):
    if kernels == "torch":
        return
    environment = os.environ | {"RECLOSS_CACHE": str(tmp_path)}
    command = [sys.executable, "-c", ASK]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(3)]
    assert [process.communicate()[0].strip() for process in running] == ["native None"] * 3
    (built,) = (path for path in tmp_path.rglob("*") if path.is_file())
    before = built.stat().st_mtime_ns
    assert ask(RECLOSS_CACHE=str(tmp_path)) == "native None"
    assert built.stat().st_mtime_ns == before


GRADIENTS = """
import torch
from recloss import native
from recloss.similarity import sampled_scores

torch.set_num_threads(4)
u = torch.randn(64, 8, dtype=torch.float64, requires_grad=True)
v = torch.randn(90, 8, dtype=torch.float64, requires_grad=True)
items = torch.randint(90, (64, 16))
for _ in range(3):  # freed blocks of an earlier round are what an unwritten part would hold
    found = torch.autograd.grad(sampled_scores(u, v, items).square().sum(), (u, v))
    right = torch.autograd.grad((u @ v.T).gather(1, items).square().sum(), (u, v))
    torch.testing.assert_close(found, right)
print(native.kernel())
"""


@pytest.mark.parametrize("limit", ["no OpenMP", "a limit of one thread"])
def test_fewer_threads_than_torch_has_give_the_same_gradients(limit, tmp_path, kernels):
    if kernels == "torch":
        return
    environment = os.environ | {"RECLOSS_CACHE": str(tmp_path)}
    if limit == "no OpenMP":  # a compiler that, like Apple's, does not know the option
        compiler = tmp_path / "cc"
        compiler.write_text('#!/bin/sh\ncase "$*" in *-fopenmp*) exit 1;; esac\nexec cc "$@"\n')
        compiler.chmod(0o755)
        environment["CC"] = str(compiler)
    else:
        environment["OMP_THREAD_LIMIT"] = "1"
    command = [sys.executable, "-c", GRADIENTS]
    said = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (said.stdout.strip(), said.returncode) == ("native", 0), said.stderr


def planted() -> tuple[Interactions, Interactions]:
    generator = torch.Generator().manual_seed(0)
    liked = torch.rand(50, 90, generator=generator) < 0.05
    liked |= (torch.arange(50)[:, None] % 3 == torch.arange(90) % 3) & (torch.rand(50, 90, generator=generator) < 0.5)
    user, item = liked.nonzero(as_tuple=True)
    held_out = torch.arange(len(user)) % 5 == 0
    return tuple(Interactions(user[rows], item[rows], 50, 90) for rows in (~held_out, held_out))  # type: ignore[return-value]


def curve(name: str, dtype: torch.dtype) -> list[float]:
    """The loss of 50 steps, each on all training pairs; 90 items are too many for the matrix product."""
    train, valid = planted()
    params = {"slatk": {"k": 5, "samples": 20}, "talos": {"k": 5, "threshold_lr": 0.01}}.get(name, {})
    sizes = {"n_users": 50, "n_items": 90, "n_pairs": len(train), "n_negatives": 16}
    torch.manual_seed(0)
    backbone, loss = MF(50, 90, dim=8).to(dtype), losses.build(name, params, **sizes, seed=0).to(dtype)
    settings = FitSettings(
        lr=0.02, weight_decay=1e-4, epochs=50, batch_size=len(train), negatives=16, valid_every=1, patience=50,
        metric="ndcg_5", cutoffs=(5,), seed=3,
    )  # fmt: skip
    return [validation.loss for validation in fit(backbone, loss, train, valid, settings).history]


TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-4}


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("name", ["sl", "psl", "slatk", "talos"])
def test_fifty_steps_follow_the_stored_curve(name, dtype, kernels):
    """The curves were written once by ``curve(name, torch.float64)`` on torch; every kernel has to follow them."""
    stored = json.loads(CURVES.read_text())[name]
    assert len(stored) == 50
    assert stored[-1] < stored[0] - 0.5
    assert curve(name, dtype) == pytest.approx(stored, rel=TOLERANCE[dtype], abs=TOLERANCE[dtype])


def test_the_kernel_is_recorded_and_takes_what_it_says(kernels):
    assert native.kernel() == kernels
    x = torch.zeros(3)
    assert native.takes(x) == native.takes(x, x) == (kernels == "native")
    assert not native.takes(x.double())
    assert not native.takes(x, x.double(), dtypes=(torch.float32, torch.float64))
    assert not native.takes(x.to("meta"))
