"""The encoder and the decoders against dense matrices, and what carries messages."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from recloss.links import GCN, build, get
from recloss.links.decoders import MLPDecoder
from recloss.links.messages import MessageGraph


@pytest.fixture
def double():
    """float64 as the default."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def dense_messages(edges: torch.Tensor, n: int) -> torch.Tensor:
    """D^-1/2 (A + I) D^-1/2, edge by edge."""
    A = torch.eye(n)
    for u, v in edges.tolist():
        A[u, v] = A[v, u] = 1
    degree = A.sum(1)
    return A / degree[:, None].sqrt() / degree[None].sqrt()


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("n_features", [12, None])
def test_vectors_are_those_of_dense_matrices(some_links, double, layers, n_features):
    links = some_links(n_features=n_features)
    gcn = GCN(links, layers=layers, hidden=5, dropout=0.5).eval()
    for bias in gcn.biases:
        torch.nn.init.normal_(bias)
    S = dense_messages(links.train, links.n_nodes)
    z = gcn.nodes.weight if n_features is None else links.features.to_dense().double()
    for layer in range(layers):
        z = S @ (z.relu() if layer else z) @ gcn.weights[layer] + gcn.biases[layer]
    torch.testing.assert_close(gcn.embed(), z)


def test_an_edge_left_out_is_as_if_it_had_never_been(some_links):
    links = some_links()
    batch = links.train[[1, 4, 9]]
    torch.manual_seed(0)
    gcn = GCN(links, hidden=5).eval()
    torch.manual_seed(0)
    never = GCN(
        replace(links, train=torch.cat([links.train[:1], links.train[2:4], links.train[5:9], links.train[10:]])),
        hidden=5,
    )
    never.eval()
    assert torch.equal(gcn.embed(without=batch), never.embed())
    assert torch.equal(gcn.embed(without=batch.flip(1)), never.embed())
    assert not torch.equal(gcn.embed(), never.embed())


def test_all_edges_may_be_left_out_and_every_node_keeps_itself(some_links):
    links = some_links()
    graph = MessageGraph(links.train, links.n_nodes)
    x = torch.rand(links.n_nodes, 3)
    torch.testing.assert_close(graph(links.train)(x), x)
    torch.testing.assert_close(graph()(x), dense_messages(links.train, links.n_nodes) @ x)


def test_held_out_edges_carry_no_message(some_links):
    links = some_links()
    torch.manual_seed(0)
    gcn = GCN(links, hidden=5).eval()
    torch.manual_seed(0)
    nothing = links.train[:0]
    blind = GCN(replace(links, valid=nothing, test=nothing, valid_negatives=links.valid_negatives[:0],
                        test_negatives=links.test_negatives[:0]), hidden=5).eval()  # fmt: skip
    assert torch.equal(gcn.embed(), blind.embed())
    held_out = torch.cat([links.valid, links.test])
    assert torch.equal(gcn.embed(without=held_out), gcn.embed())


@pytest.mark.parametrize("decoder", ["dot", "mlp"])
@pytest.mark.parametrize("similarity", ["cosine", "dot"])
@pytest.mark.parametrize("n_features", [6, None])
def test_gradients_are_exact(some_links, double, decoder, similarity, n_features):
    links = some_links(n_nodes=9, n_features=n_features, m=4, seed=3)
    torch.manual_seed(1)
    gcn = GCN(links, decoder=decoder, layers=2, hidden=3, dropout=0.0, decoder_layers=2)
    for bias in gcn.biases:
        torch.nn.init.normal_(bias)  # away from the bend of ReLU, where node 0 without features would be
    sources, targets = torch.tensor([0, 3, 3]), torch.tensor([[1, 2], [4, 4], [0, 8]])
    names = [name for name, _ in gcn.named_parameters()]

    def scores(*values):
        def run(without):
            return gcn.score(gcn.embed(without), sources, targets, similarity)

        return torch.func.functional_call(
            _Wrapped(gcn, run), {f"gcn.{n}": v for n, v in zip(names, values, strict=True)}, (links.train[:2],)
        )

    assert torch.autograd.gradcheck(scores, [p.detach().clone().requires_grad_() for p in gcn.parameters()])


class _Wrapped(torch.nn.Module):
    def __init__(self, gcn, run):
        super().__init__()
        self.gcn, self.run = gcn, run

    def forward(self, without):
        return self.run(without)


def test_the_dot_decoder_scores_by_the_loss_s_similarity(some_links):
    links = some_links()
    gcn = GCN(links, hidden=5)
    z = torch.randn(links.n_nodes, 5)
    sources, targets = torch.tensor([0, 7]), torch.tensor([[1, 2, 3], [7, 0, 29]])
    dots = torch.stack([z[targets[b]] @ z[sources[b]] for b in range(2)])
    norms = z.norm(dim=1)
    torch.testing.assert_close(gcn.score(z, sources, targets, "dot"), dots)
    cosines = dots / norms[targets] / norms[sources][:, None]
    torch.testing.assert_close(gcn.score(z, sources, targets, "cosine"), cosines)


def test_the_mlp_decoder_gives_logits_of_the_product_whatever_the_similarity(some_links):
    links = some_links()
    gcn = GCN(links, decoder="mlp", hidden=5, decoder_layers=3).eval()
    first, second, last = (m for m in gcn.decoder.layers if isinstance(m, torch.nn.Linear))
    z = torch.randn(links.n_nodes, 5)
    sources, targets = torch.tensor([0, 7]), torch.tensor([[1, 2, 3], [7, 0, 29]])
    logits = [
        [last(second(first(z[u] * z[v]).relu()).relu()).item() for v in row]
        for u, row in zip([0, 7], targets, strict=True)
    ]
    for similarity in ("cosine", "dot"):
        torch.testing.assert_close(gcn.score(z, sources, targets, similarity), torch.tensor(logits))


def test_pieces_of_the_mlp_decoder_give_the_same_scores_and_gradients(double):
    decoder = MLPDecoder(4, layers=3, dropout=0.0)
    results = []
    for pairs_at_once in (100, 7):
        decoder.pairs_at_once = pairs_at_once
        z = torch.randn(10, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
        decoder.zero_grad()
        targets = torch.arange(30).view(5, 6) % 10
        scores = decoder(z, torch.arange(5), targets, "dot")
        (scores * torch.arange(30).view(5, 6)).sum().backward()
        results.append([scores.detach(), z.grad, *(p.grad.clone() for p in decoder.parameters())])
    for whole, pieces in zip(*results, strict=True):
        torch.testing.assert_close(whole, pieces)


def test_pieces_with_dropout_are_differentiated_at_the_draws_they_were_made_with(double):
    """Backward, each piece is computed again: with other draws the gradient would not be that of the scores."""
    decoder = MLPDecoder(6, layers=2, dropout=0.5)
    decoder.pairs_at_once = 5
    z = torch.randn(8, 6, requires_grad=True)
    targets = torch.arange(12).view(4, 3) % 8

    def scores(z):
        torch.manual_seed(5)
        return decoder(z, torch.arange(4), targets, "dot")

    assert torch.autograd.gradcheck(scores, [z])


def test_memory_of_a_piece_is_bounded():
    decoder = MLPDecoder(256, layers=2, dropout=0.0)
    assert decoder.pairs_at_once * 256 * 4 == 64 * 2**20


def test_dropout_acts_on_features_and_hidden_layers_in_training_alone(some_links):
    links = some_links()
    gcn = GCN(links, hidden=5, dropout=0.5)
    assert not torch.equal(gcn.embed(), gcn.embed())
    gcn.eval()
    assert torch.equal(gcn.embed(), gcn.embed())
    features = gcn.nodes
    features.train()
    weight = torch.eye(12)
    mean = torch.stack([features(weight, 0.5) for _ in range(900)]).mean(0)
    torch.testing.assert_close(mean, links.features.to_dense(), rtol=0, atol=0.2)
    kept = features(weight, 0.5)
    doubled = torch.isclose(kept, 2 * links.features.to_dense())
    assert (doubled | (kept == 0)).all()


def test_construction_is_by_name_and_seed(some_links):
    links = some_links()
    state = torch.get_rng_state()
    first, again, other = (build("GCN", {"hidden": 4, "decoder": "mlp"}, links, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    for a, b, c in zip(first.parameters(), again.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
        assert a.dim() == 1 or not torch.equal(a, c)
    with pytest.raises(
        ValueError, match=r"unknown backbone of links 'lightgcn'; did you mean 'gcn'\? \(accepted: gcn\)"
    ):
        get("lightgcn")


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"decoder": "bilinear"}, "decoder must be one of dot, mlp, got 'bilinear'"),
        ({"layers": 0}, "layers must be at least 1, got 0"),
        ({"hidden": 0}, "hidden must be at least 1, got 0"),
        ({"decoder_layers": 0}, "decoder_layers must be at least 1, got 0"),
        ({"dropout": 1.0}, r"dropout must be a number in \[0, 1\), got 1.0"),
    ],
)
def test_hyper_parameters_out_of_range_are_refused(some_links, params, message):
    with pytest.raises(ValueError, match=message):
        GCN(some_links(), **params)


def test_glorot_weights_and_zero_biases(some_links):
    gcn = GCN(some_links(), layers=2, hidden=64)
    bound = (6 / (12 + 64)) ** 0.5
    assert bound * 0.9 < gcn.weights[0].abs().max() <= bound
    assert all(F.l1_loss(b, torch.zeros(64)) == 0 for b in gcn.biases)
