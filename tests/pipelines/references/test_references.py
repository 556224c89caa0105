"""The reference models against their formulas, written out on dense matrices."""

import warnings

import numpy as np
import pytest
import torch

from pipelines.references import EASE, IALS, REFERENCES, ItemKNN, MostPop, build, ease, get
from recloss.errors import InputError
from recloss.evaluation import evaluate_scores
from recloss.interactions import Interactions


def interactions(x: np.ndarray) -> Interactions:
    user, item = (torch.from_numpy(part) for part in np.nonzero(x))
    return Interactions(user, item, *x.shape)


def drawn(n_users: int = 40, n_items: int = 17, seed: int = 0) -> np.ndarray:
    """Items of unequal popularity; user 3 and item 5 have no interaction, user 4 has every other item."""
    rng = np.random.default_rng(seed)
    x = rng.random((n_users, n_items)) < np.linspace(0.05, 0.6, n_items)
    x[4] = True
    x[3], x[:, 5] = False, False
    return x


def scores(reference, x: np.ndarray, seed: int = 0) -> np.ndarray:
    train = interactions(x)
    state = reference.fit(train, seed=seed, threads=1)
    score = reference.scorer(train, state)
    whole = score(torch.arange(train.n_users)).numpy()
    some = torch.tensor([7, 3, 3, 20])
    np.testing.assert_array_equal(score(some).numpy(), whole[some])
    assert all(isinstance(tensor, torch.Tensor) for tensor in state.values())
    return whole


def test_mostpop_counts():
    x = drawn()
    np.testing.assert_array_equal(scores(MostPop(), x), np.tile(x.sum(0), (len(x), 1)))


@pytest.mark.parametrize("l2", [0.5, 20.0])
def test_ease_is_the_ridge_regression_of_each_item_on_the_others(l2):
    x = drawn().astype(np.float64)
    weights = np.zeros((x.shape[1], x.shape[1]))
    for item in range(x.shape[1]):
        others = [other for other in range(x.shape[1]) if other != item]
        a = x[:, others]
        weights[others, item] = np.linalg.solve(a.T @ a + l2 * np.eye(len(others)), a.T @ x[:, item])
    np.testing.assert_allclose(scores(EASE(l2=l2), x), x @ weights, rtol=1e-5, atol=1e-6)


def test_ease_by_blocks_of_items_is_the_same(monkeypatch):
    whole = scores(EASE(l2=5.0), drawn())
    monkeypatch.setattr(ease, "_ROWS", 3)
    np.testing.assert_array_equal(scores(EASE(l2=5.0), drawn()), whole)


def test_ease_refuses_a_catalogue_whose_square_does_not_fit():
    nothing = torch.zeros(0, dtype=torch.int64)
    with pytest.raises(InputError) as error:
        EASE().fit(Interactions(nothing, nothing, 1, 60_000), seed=0, threads=1)
    assert str(error.value) == (
        "EASE inverts a matrix of items by items: 60,000 items need 58 GB of memory; "
        "it is fitted for up to 32,768 items (17 GB)"
    )


def naive_similarity(x: np.ndarray, weighting: str, k1: float, b: float) -> np.ndarray:
    n_users, n_items = x.shape
    idf = np.log(n_items) - np.log(1 + x.sum(1))
    weights = np.zeros(x.shape)
    for u in range(n_users):
        for i in range(n_items):
            if x[u, i]:
                length = 1 - b + b * x[:, i].sum() / (x.sum() / n_items)
                factor = {"cosine": 1, "tfidf": idf[u], "bm25": idf[u] * (k1 + 1) / (k1 * length + 1)}[weighting]
                weights[u, i] = factor
    found = weights.T @ weights
    if weighting != "bm25":
        norms = np.sqrt(np.diag(found))
        norms[norms == 0] = 1
        found = found / norms[:, None] / norms
    return found


@pytest.mark.parametrize("neighbours", [1, 4, 100])
@pytest.mark.parametrize(
    "params",
    [
        {"weighting": "cosine"},
        {"weighting": "tfidf"},
        {"weighting": "bm25"},
        {"weighting": "bm25", "k1": 3.0, "b": 0.2},
    ],
    ids=str,
)
def test_itemknn_sums_the_votes_of_nearest_neighbours(params, neighbours):
    x = drawn(n_users=211, seed=2)
    similarity = naive_similarity(x, params["weighting"], params.get("k1", 1.2), params.get("b", 0.75))
    np.fill_diagonal(similarity, 0)
    for row in similarity:
        row[np.argsort(-row)[neighbours:]] = 0
    expected = x.astype(np.float64) @ np.maximum(similarity, 0)
    np.testing.assert_allclose(scores(ItemKNN(neighbours=neighbours, **params), x), expected, rtol=1e-5, atol=1e-6)


def test_itemknn_of_an_item_without_any_weight_is_finite():
    """The log of the items equals that of one more than the user's items: the weight is exactly 0."""
    x = np.zeros((3, 4), dtype=bool)
    x[0, :3] = x[1, 1:3] = x[2, 2] = True
    assert np.isfinite(scores_of(ItemKNN(weighting="tfidf"), x)).all()


def scores_of(reference, x):
    train = interactions(x)
    return reference.scorer(train, reference.fit(train, seed=0, threads=1))(torch.arange(len(x))).numpy()


def planted(seed: int = 0) -> tuple[Interactions, Interactions]:
    """Users of six groups like the items of theirs, whatever their popularity; a fifth of it is held out."""
    rng = np.random.default_rng(seed)
    same_group = np.arange(300)[:, None] % 6 == np.arange(90) % 6
    liked = rng.random((300, 90)) < np.where(same_group, 0.7, 0.02) * np.linspace(0.4, 1.0, 90)
    held_out = liked & (rng.random(liked.shape) < 0.2)
    return interactions(liked & ~held_out), interactions(held_out)


def recall(reference, train: Interactions, test: Interactions) -> float:
    state = reference.fit(train, seed=0, threads=1)
    return evaluate_scores(reference.scorer(train, state), test, [train], [10]).mean()["recall_10"]


def test_every_reference_but_mostpop_finds_planted_groups():
    train, test = planted()
    chance = recall(MostPop(), train, test)
    assert 0.1 < chance < 0.3
    for reference in (ItemKNN(), EASE(l2=50.0), IALS(factors=8)):
        assert recall(reference, train, test) > 2.5 * chance, reference.title


def objective(x: np.ndarray, users: np.ndarray, items: np.ndarray, regularization: float, alpha: float) -> float:
    errors = np.where(x, alpha, 1) * (x - users @ items.T) ** 2
    return errors.sum() + regularization * ((users**2).sum() + (items**2).sum())


def test_every_sweep_of_ials_lowers_its_loss():
    x = drawn(n_users=60, n_items=25)
    losses = []
    for iterations in (1, 2, 3, 6):
        model = IALS(factors=5, regularization=0.3, alpha=7.0, iterations=iterations)
        state = model.fit(interactions(x), seed=3, threads=1)
        losses.append(objective(x, state["users"].numpy(), state["items"].numpy(), 0.3, 7.0))
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.9 * objective(x, np.zeros((60, 1)), np.zeros((25, 1)), 0.3, 7.0)


def test_the_factors_of_ials_come_to_solve_the_least_squares_of_its_docstring():
    x = drawn(n_users=60, n_items=25)
    state = IALS(factors=3, regularization=0.3, alpha=7.0, iterations=300).fit(interactions(x), seed=3, threads=1)
    users, items = (state[part].numpy().astype(np.float64) for part in ("users", "items"))
    for user in range(len(x)):
        c = np.diag(np.where(x[user], 7.0, 1.0))
        solved = np.linalg.solve(items.T @ c @ items + 0.3 * np.eye(3), items.T @ c @ x[user])
        np.testing.assert_allclose(users[user], solved, atol=2e-3)


def test_ials_is_a_function_of_its_seed_and_not_of_the_threads():
    train, _ = planted()
    model = IALS(factors=8, iterations=4)
    one = model.fit(train, seed=1, threads=1)
    for threads in (1, 2):
        again = model.fit(train, seed=1, threads=threads)
        assert all(torch.equal(again[name], one[name]) for name in one)
    assert not torch.equal(model.fit(train, seed=2, threads=1)["items"], one["items"])


def test_ials_says_nothing_of_blas_threads():
    from implicit import utils

    utils._checked_blas_config = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        IALS(factors=2, iterations=1).fit(interactions(drawn()), seed=0, threads=1)


def test_by_name():
    assert list(REFERENCES) == ["mostpop", "itemknn", "ease", "ials"]
    assert get("ials") is IALS
    assert build("ease", {"l2": 3.0}).l2 == 3.0
    with pytest.raises(InputError, match="unknown reference 'esae'; did you mean 'ease'"):
        get("esae")


@pytest.mark.parametrize(
    ("cls", "params", "message"),
    [
        (EASE, {"l2": 0}, "l2 must be a number above 0, got 0"),
        (ItemKNN, {"neighbours": 0}, "neighbours must be at least 1"),
        (ItemKNN, {"weighting": "okapi"}, "weighting must be one of cosine, tfidf, bm25, got 'okapi'"),
        (ItemKNN, {"k1": 2.0}, "k1 and b have no effect with weighting 'cosine'"),
        (ItemKNN, {"weighting": "bm25", "b": 1.5}, "b must lie in 0..1"),
        (ItemKNN, {"weighting": "bm25", "k1": -1}, "k1 must be at least 0"),
        (IALS, {"factors": 0}, "factors must be at least 1"),
        (IALS, {"iterations": 0}, "iterations must be at least 1"),
        (IALS, {"regularization": -1}, "regularization must be at least 0"),
        (IALS, {"alpha": 0}, "alpha must be a number above 0, got 0"),
    ],
)
def test_hyper_parameters_out_of_range_are_named(cls, params, message):
    with pytest.raises(ValueError, match=message):
        cls(**params)
