"""Golden cases of the specification, and how a loss over scores is compared with them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from recloss import native

TOLERANCE = {
    torch.float64: {"rtol": 1e-9, "atol": 1e-12},
    torch.float32: {"rtol": 2e-5, "atol": 1e-6},
}


@pytest.fixture(params=["native", "torch"])
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What the inner loops run on in this test: ask for it to run a test, or with ``usefixtures`` a file, on both."""
    if request.param == "torch":
        monkeypatch.setattr(native, "_library", lambda: None)
    elif native.kernel() != "native":
        pytest.skip("no C compiler on this machine, or RECLOSS_NATIVE=0")
    return request.param


@pytest.fixture(scope="session")
def golden() -> Callable[[str], dict[str, Any]]:
    """``golden("SL_tau0.2_A")``: inputs, parameters and expected values of a case, expectations at the top level."""
    folder = Path(__file__).parents[1] / "golden"
    cases = json.loads((folder / "talos.json").read_text())
    for name, case in json.loads((folder / "slatk.json").read_text())["cases"].items():
        expected = dict(case["expected"])
        if "mean" in expected:
            expected["loss"] = expected["mean"]
        cases[name] = {"inputs": case["inputs"], **expected}
    return lambda name: dict(cases[name])


@pytest.fixture(params=[torch.float64, torch.float32], ids=["float64", "float32"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    """Both precisions a loss is compared in."""
    return request.param


@pytest.fixture
def agrees(dtype: torch.dtype) -> Callable[..., None]:
    """``agrees(per_sample, pos, neg, case)``: values, mean and gradients of the mean are those of the case."""

    def check(per_sample: Callable[[Tensor, Tensor], Tensor], pos: Any, neg: Any, case: dict[str, Any]) -> None:
        pos, neg = (torch.tensor(x, dtype=dtype, requires_grad=True) for x in (pos, neg))
        losses = per_sample(pos, neg)
        losses.mean().backward()
        found = {"per_sample": losses, "loss": losses.mean(), "grad_pos": pos.grad, "grad_neg": neg.grad}
        compared = found.keys() & case.keys()
        assert {"per_sample"} <= compared
        for name in compared:
            expected = torch.tensor(case[name], dtype=dtype).view_as(found[name])
            torch.testing.assert_close(found[name].detach(), expected, **TOLERANCE[dtype], msg=f"{name}: {found[name]}")

    return check
