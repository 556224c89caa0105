"""The context of a loss's hooks: scores of the model as it is, negatives by (seed, epoch, purpose, user)."""

import pytest
import torch

from recloss.context import Context
from recloss.interactions import Interactions

N_USERS, N_ITEMS = 20, 30


def interactions() -> Interactions:
    seen = torch.rand(N_USERS, N_ITEMS, generator=torch.Generator().manual_seed(0)) < 0.4
    return Interactions(*seen.nonzero(as_tuple=True), N_USERS, N_ITEMS)


class Tables:
    """Embeddings that count how often they are asked for."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(1)
        self.user = torch.randn(N_USERS, 4, generator=generator, requires_grad=True)
        self.item = torch.randn(N_ITEMS, 4, generator=generator, requires_grad=True)
        self.calls = 0

    def __call__(self) -> tuple[torch.Tensor, torch.Tensor]:
        self.calls += 1
        return self.user * 1, self.item * 1


def test_scores_are_dot_products_without_gradient_in_the_order_asked_for():
    tables = Tables()
    context = Context(1, interactions(), tables)
    users = torch.tensor([3, 0, 3, 19])
    scores = context.scores(users)
    assert not scores.requires_grad
    for b, u in enumerate(users.tolist()):
        for i in range(N_ITEMS):
            expected = sum(x * y for x, y in zip(tables.user[u].tolist(), tables.item[i].tolist(), strict=True))
            assert scores[b, i].item() == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_embeddings_are_computed_at_most_once_and_only_for_scores():
    tables = Tables()
    context = Context(1, interactions(), tables)
    context.negatives(torch.arange(5), 3, "threshold")
    assert tables.calls == 0
    first = context.scores(torch.arange(5))
    with torch.no_grad():
        tables.user.zero_()
    assert torch.equal(context.scores(torch.arange(5)), first)
    assert tables.calls == 1
    assert bool((Context(2, interactions(), tables).scores(torch.arange(5)) == 0).all())
    assert tables.calls == 2


def test_negatives_are_a_function_of_seed_epoch_purpose_and_user():
    def draw(users, epoch=2, purpose="threshold", seed=5):
        return Context(epoch, interactions(), Tables(), seed).negatives(users, 12, purpose)

    everyone = torch.arange(N_USERS)
    expected = draw(everyone)
    assert torch.equal(draw(everyone), expected)
    some = torch.tensor([7, 0, 19, 7])
    assert torch.equal(draw(some), expected[some])
    for other in (draw(everyone, epoch=3), draw(everyone, purpose="ranking"), draw(everyone, seed=6)):
        assert other.shape == expected.shape
        assert not torch.equal(other, expected)
    nobody = Interactions(torch.tensor([5]), torch.tensor([0]), N_USERS, N_ITEMS)
    free = Context(2, nobody, Tables()).negatives(everyone, 12, "threshold")
    assert len({tuple(row) for row in free.tolist()}) == N_USERS, "users of the same positives differ too"


def test_a_context_gives_the_same_negatives_each_time_it_is_asked():
    context = Context(4, interactions(), Tables())
    users = torch.arange(N_USERS)
    first = context.negatives(users, 9, "threshold")
    context.negatives(users, 5, "other")
    assert torch.equal(context.negatives(users, 9, "threshold"), first)


def test_negatives_are_uniform_over_the_items_outside_the_users_positives():
    train = interactions()
    users = torch.arange(N_USERS)
    drawn = Context(1, train, Tables()).negatives(users, 6000, "threshold")
    for u in users.tolist():
        positives = set(train.item[train.user == u].tolist())
        counts = torch.bincount(drawn[u], minlength=N_ITEMS)
        free = [i for i in range(N_ITEMS) if i not in positives]
        assert int(counts[free].sum()) == 6000
        expected = 6000 / len(free)
        chi_square = float((counts[free] - expected).square().sum()) / expected
        assert chi_square < 2.5 * len(free)
