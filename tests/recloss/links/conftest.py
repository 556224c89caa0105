"""Small graphs for the tests of links."""

from collections.abc import Callable, Iterator

import pytest
import torch

from recloss.links import Links, random_negatives, split_edges
from recloss.similarity import csr


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """These tensors are too small to share."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _edges(n_nodes: int, chance: torch.Tensor, seed: int) -> torch.Tensor:
    pairs = torch.combinations(torch.arange(n_nodes))
    return pairs[torch.rand(len(pairs), generator=torch.Generator().manual_seed(seed)) < chance]


def _features(n_nodes: int, n_features: int, seed: int) -> torch.Tensor:
    """CSR, about a third of the entries; node 0 has none."""
    dense = torch.rand(n_nodes, n_features, generator=torch.Generator().manual_seed(seed))
    dense = dense * (dense > 0.66)
    dense[0] = 0
    sparse = dense.to_sparse_csr()
    return csr(sparse.values(), sparse.col_indices(), sparse.crow_indices(), n_features)


def _links(n_nodes: int, edges: torch.Tensor, n_features: int | None, seed: int, m: int) -> Links:
    train, valid, test = split_edges(edges, seed=seed, valid=0.1, test=0.2)
    features = None if n_features is None else _features(n_nodes, n_features, seed)
    negatives = [random_negatives(part, edges, n_nodes, m, seed=i) for i, part in enumerate((valid, test))]
    return Links(n_nodes, features, train, valid, test, *negatives)


@pytest.fixture
def some_links() -> Callable[..., Links]:
    """A random graph, split by seed, with random negatives."""

    def made(n_nodes: int = 30, n_features: int | None = 12, seed: int = 0, m: int = 24) -> Links:
        return _links(n_nodes, _edges(n_nodes, torch.tensor(0.2), seed), n_features, seed, m)

    return made


@pytest.fixture
def block_links() -> Callable[..., Links]:
    """Nodes of one of 4 blocks are linked with probability 0.7, others with 0.02; the features are noise."""

    def made(n_nodes: int = 40, seed: int = 0, m: int = 24) -> Links:
        pairs = torch.combinations(torch.arange(n_nodes))
        chance = torch.where(pairs[:, 0] % 4 == pairs[:, 1] % 4, 0.7, 0.02)
        return _links(n_nodes, _edges(n_nodes, chance, seed), 16, seed, m)

    return made
