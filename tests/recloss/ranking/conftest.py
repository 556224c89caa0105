"""Small lists made in the test."""

from collections.abc import Callable

import pytest
import torch

from recloss.ranking import Lists


def made(lengths: list[int], n_features: int = 5, seed: int = 0, grades: int = 5) -> Lists:
    """Lists whose grades follow from the features, with noise."""
    generator = torch.Generator().manual_seed(seed)
    n = sum(lengths)
    features = torch.randn(n, n_features, generator=generator)
    told = features[:, 0] + 0.5 * features[:, 1] * features[:, 2] + 0.3 * torch.randn(n, generator=generator)
    graded = ((told + 1) * grades / 3).floor().clamp(0, grades - 1)
    return Lists(features, graded, torch.tensor([0, *lengths]).cumsum(0))


@pytest.fixture
def lists_of() -> Callable[..., Lists]:
    return made
