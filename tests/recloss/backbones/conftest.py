"""What tests of backbones share: float64, a small graph, planted data and what learning from it means."""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from recloss import backbones, losses
from recloss.backbones import Backbone
from recloss.evaluation import evaluate
from recloss.interactions import Interactions
from recloss.training import FitSettings, fit


@pytest.fixture
def double() -> Iterator[None]:
    """float64 as the default, as the goldens are."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def small() -> Interactions:
    """12 users and 9 items; user 3 and item 4 have no neighbours."""
    linked = torch.rand(12, 9, generator=torch.Generator().manual_seed(0)) < 0.3
    linked[3] = False
    linked[:, 4] = False
    return Interactions(*linked.nonzero(as_tuple=True), 12, 9)


@pytest.fixture
def planted() -> tuple[Interactions, Interactions]:
    """Users like the items of their group of three; every fifth of those is for validation. Item 0 is never trained."""
    generator = torch.Generator().manual_seed(0)
    liked = torch.rand(40, 30, generator=generator) < 0.05
    liked |= (torch.arange(40)[:, None] % 3 == torch.arange(30) % 3) & (torch.rand(40, 30, generator=generator) < 0.8)
    user, item = liked.nonzero(as_tuple=True)
    held_out = torch.arange(len(user)) % 5 == 0
    return tuple(Interactions(user[rows], item[rows], 40, 30) for rows in (~held_out & (item > 0), held_out))  # type: ignore[return-value]


class _Outputs(nn.Module):
    """All a backbone gives for a batch, with the same noise at each call."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, users: Tensor, items: Tensor) -> tuple[Tensor, ...]:
        torch.manual_seed(0)
        embeddings = self.backbone.embed()
        auxiliary = self.backbone.auxiliary_loss(users, items)
        return embeddings if auxiliary is None else (*embeddings, auxiliary)


@pytest.fixture
def differentiates(double: None) -> Callable[[Backbone], bool]:
    """Whether the gradients of all outputs in all parameters are those found by differences (float64)."""

    def check(backbone: Backbone) -> bool:
        outputs, batch = _Outputs(backbone), (torch.tensor([0, 1, 1]), torch.tensor([1, 0, 0]))
        names, values = zip(*outputs.named_parameters(), strict=True)

        def of_parameters(*given: Tensor) -> tuple[Tensor, ...]:
            return torch.func.functional_call(outputs, dict(zip(names, given, strict=True)), batch)

        return torch.autograd.gradcheck(of_parameters, values)

    return check


@pytest.fixture
def learns(planted: tuple[Interactions, Interactions]) -> Callable[..., None]:
    """``learns("mf", lr=0.03, epochs=2)``: training with SL ranks held-out items far better than the start did."""

    def check(name: str, *, lr: float, epochs: int) -> None:
        backbone = backbones.build(name, {"dim": 16}, planted[0], seed=0)
        before = evaluate(backbone, "cosine", planted[1], [planted[0]], (5,)).mean()["ndcg_5"]
        settings = FitSettings(
            lr=lr, epochs=epochs, batch_size=16, negatives=8, valid_every=epochs, metric="ndcg_5", cutoffs=(5,)
        )
        after = fit(backbone, losses.SL(tau=0.2), *planted, settings).best
        assert after > before + 0.2
        assert after > 0.6, "a scorer that knows nothing reaches about 0.2"

    return check
