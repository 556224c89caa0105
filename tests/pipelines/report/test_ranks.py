"""Ranks across data sets: Demšar's worked example, SciPy, and what is left out."""

import numpy as np
import pytest
from scipy import stats

from pipelines.report.ranks import Friedman, Ranking, friedman, mean_ranks, rank

C45 = """
0.763 0.768 0.771 0.798
0.599 0.591 0.590 0.569
0.954 0.971 0.968 0.967
0.628 0.661 0.654 0.657
0.882 0.888 0.886 0.898
0.936 0.931 0.916 0.931
0.661 0.668 0.609 0.685
0.583 0.583 0.563 0.625
0.775 0.838 0.866 0.875
1.000 1.000 1.000 1.000
0.940 0.962 0.965 0.962
0.619 0.666 0.614 0.669
0.972 0.981 0.9751 0.9749
0.957 0.978 0.946 0.970
"""
"""Table 6 of Demšar (2006): AUC of four variants of C4.5 on 14 data sets. He prints 0.975 twice in the last row but
one, with ranks 2 and 3."""


@pytest.fixture(scope="module")
def c45():
    return np.array([[float(word) for word in line.split()] for line in C45.strip().splitlines()])


def test_demsar_example(c45):
    """His mean ranks, his chi-square (not corrected for ties), his critical difference."""
    ranks = mean_ranks(c45)
    assert ranks.round(3).tolist() == [3.143, 2.0, 2.893, 1.964]
    n, k = c45.shape
    assert 12 * n / (k * (k + 1)) * ((ranks**2).sum() - k * (k + 1) ** 2 / 4) == pytest.approx(9.28, abs=0.01)
    found = friedman(c45)
    assert found.critical_difference == pytest.approx(1.25, abs=0.005)
    assert (found.statistic, found.p) == pytest.approx(tuple(stats.friedmanchisquare(*c45.T)))
    assert found.statistic > 9.28
    assert found.p < 0.05


def test_pairs_agree_with_the_critical_difference(c45):
    """p < 0.05 just where the mean ranks are further apart; in his example (0.10) nearly, C4.5 and C4.5+m+cf."""
    ranks, found = mean_ranks(c45), friedman(c45)
    for i in range(4):
        assert found.pairs[i][i] == 1
        for j in range(4):
            assert found.pairs[i][j] == pytest.approx(found.pairs[j][i])
            assert (found.pairs[i][j] < 0.05) == (abs(ranks[i] - ranks[j]) > found.critical_difference)
    assert 0.05 < found.pairs[0][3] < 0.10


def test_a_pair_against_the_normal_range():
    """Two losses would be a normal z test: the studentized range of 2 is sqrt(2) |z|."""
    scores = np.random.default_rng(0).random((30, 3))
    found = friedman(scores)
    z = abs(np.subtract(*mean_ranks(scores)[:2])) / np.sqrt(3 * 4 / (6 * 30))
    rng = np.random.default_rng(1).normal(size=(200_000, 3))
    simulated = (np.ptp(rng, axis=1) > z * np.sqrt(2)).mean()
    assert found.pairs[0][1] == pytest.approx(simulated, abs=0.005)


def test_scores_that_are_all_equal():
    found = friedman(np.full((4, 3), 0.5))
    assert (found.statistic, found.p) == (0, 1)


def scores(fabric, means, **where):
    for loss, mean in means.items():
        fabric.cell(loss, [mean] * 3, **where)


def sweep(fabric, table, **settings):
    """Results of a table {data set: {loss: mean}}, of one backbone."""
    for number, (data, means) in enumerate(table.items()):
        scores(fabric, means, data=data, fingerprint=f"{number:064x}")
    losses = dict.fromkeys(loss for means in table.values() for loss in means)
    data = [{"name": name, "path": "p"} for name in table]
    return fabric.results(data=data, losses=losses, **settings)


def test_ranks_are_means_over_data_sets_best_first(fabric):
    table = {
        "a": {"bpr": 0.1, "sl": 0.2, "talos": 0.3, "psl": 0.05},
        "b": {"bpr": 0.5, "sl": 0.6, "talos": 0.6, "psl": 0.1},
        "c": {"bpr": 0.3, "sl": 0.2, "talos": 0.9, "psl": 0.1},
    }
    (found,) = rank(sweep(fabric, table), "ndcg_20")
    assert found.data == ("a", "b", "c")
    assert found.losses == ("talos", "sl", "bpr", "psl")
    assert found.titles == ("Talos", "SL", "BPR", "PSL")
    assert found.ranks == pytest.approx(((1 + 1.5 + 1) / 3, (2 + 1.5 + 3) / 3, (3 + 3 + 2) / 3, 4))
    columns = [[table[data][loss] for data in "abc"] for loss in found.losses]
    assert (found.test.statistic, found.test.p) == pytest.approx(tuple(stats.friedmanchisquare(*columns)))
    assert found.notes == ()


def test_backbones_are_ranked_apart(fabric):
    for backbone, means in {"mf": {"bpr": 1, "sl": 2, "psl": 3}, "lightgcn": {"bpr": 3, "sl": 2, "psl": 1}}.items():
        for number in range(3):
            where = {"data": f"d{number}", "fingerprint": f"{number:064x}", "backbone": backbone}
            scores(fabric, {loss: mean / 10 for loss, mean in means.items()}, **where)
    data = [{"name": f"d{number}", "path": "p"} for number in range(3)]
    settings = {"backbones": {"mf": None, "lightgcn": None}, "losses": dict.fromkeys(("bpr", "sl", "psl"))}
    one, other = rank(fabric.results(data=data, **settings), "ndcg_20")
    assert (one.backbone, one.losses, one.ranks) == ("mf", ("psl", "sl", "bpr"), (1, 2, 3))
    assert (other.backbone, other.losses, other.ranks) == ("lightgcn", ("bpr", "sl", "psl"), (1, 2, 3))


def test_too_few_data_sets_or_losses_are_said(fabric):
    means = {"bpr": 0.1, "sl": 0.2, "psl": 0.3}
    (found,) = rank(sweep(fabric, {"a": means, "b": means}), "ndcg_20")
    assert found.test is None
    assert found.groups == []
    assert found.ranks == (1, 2, 3)
    assert found.notes == ("no Friedman test: it needs at least 3 data sets, and there are 2",)


def test_too_few_losses_are_said(fabric):
    (found,) = rank(sweep(fabric, {data: {"bpr": 0.1, "sl": 0.2} for data in "abc"}), "ndcg_20")
    assert found.test is None
    assert found.notes == ("no Friedman test: it needs at least 3 losses, and there are 2 ranked on all of them",)


def test_what_is_missing_is_left_out_and_never_0(fabric):
    means = {"bpr": 0.1, "sl": 0.2, "psl": 0.3, "talos": 0.4}
    table = {"a": means, "b": {loss: m for loss, m in means.items() if loss != "talos"}, "c": means, "d": {}}
    (found,) = rank(sweep(fabric, table), "ndcg_20")
    assert found.data == ("a", "b", "c")
    assert (found.losses, found.ranks) == (("psl", "sl", "bpr"), (1, 2, 3))
    assert found.test is not None
    assert found.notes == (
        "d is left out: no loss is ranked on it",
        "Talos is left out: it is not ranked on b",
    )


def ranking(ranks, pairs, p=0.01):
    names = tuple("abcdefgh"[: len(ranks)])
    test = Friedman(9.0, p, 1.0, tuple(map(tuple, pairs)))
    return Ranking("mf", "MF", "ndcg_20", "NDCG@20", ("x", "y", "z"), names, names, tuple(ranks), test, ())


def by_distance(ranks, limit):
    return [[0.5 if abs(a - b) < limit else 0.01 for b in ranks] for a in ranks]


@pytest.mark.parametrize(
    ("ranks", "limit", "groups"),
    [
        ((1, 2, 3, 4), 0.5, []),
        ((1, 2, 3, 4), 9, [(0, 3)]),
        ((1, 2, 3, 4), 1.5, [(0, 1), (1, 2), (2, 3)]),
        ((1, 1.5, 2, 4, 4.5), 1.2, [(0, 2), (3, 4)]),
        ((1, 1.9, 2, 2.8), 1, [(0, 1), (1, 3)]),
        ((1, 3, 5, 5.2), 1, [(2, 3)]),
    ],
)
def test_groups_are_the_largest_runs(ranks, limit, groups):
    assert ranking(ranks, by_distance(ranks, limit)).groups == groups


def test_a_friedman_test_that_does_not_reject_joins_all():
    assert ranking((1, 2, 3, 4), by_distance((1, 2, 3, 4), 0.5), p=0.05).groups == [(0, 3)]


def test_false_positives_of_friedman_are_as_rare_as_promised():
    """200 sweeps of 8 data sets and 5 losses that are equal but for chance."""
    scores = np.random.default_rng(2).random((200, 8, 5))
    rejected = sum(stats.friedmanchisquare(*block.T).pvalue < 0.05 for block in scores)
    assert rejected <= stats.binom.ppf(1 - 1e-3, 200, 0.05)
