"""What a reader is told of comparisons and rankings."""

import csv
import io
from dataclasses import replace

import pytest

from pipelines.report.in_words import by_question, ranking_lines, sentence, significance_csv
from pipelines.report.ranks import Friedman, Ranking
from pipelines.report.statistics import Comparison

BASE = Comparison(
    data="ml-100k", backbone="mf", backbone_title="MF", metric="ndcg_20", metric_title="NDCG@20",
    question="baseline", hypotheses=4, one="slatk", one_title="SL@K", other="sl", other_title="SL",
    n_users=938, n_seeds=3, difference=0.0034, ci_low=0.0012, ci_high=0.0056, t=3.0, p=0.003, p_holm=0.012,
    effect=0.10, significant=True,
)  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {},
            "SL@K is better than SL by 0.0034 NDCG@20 (95 % CI 0.0012 to 0.0056; 938 users, 3 seeds; "
            "t-test p = 0.003, Holm-corrected 0.012; d_z = 0.10, a very small effect)",
        ),
        (
            {"difference": -0.0034, "ci_low": -0.0056, "ci_high": -0.0012, "effect": -0.3, "p": 1e-9, "p_holm": 1e-8},
            "SL@K is worse than SL by 0.0034 NDCG@20 (95 % CI 0.0012 to 0.0056; 938 users, 3 seeds; "
            "t-test p < 0.001, Holm-corrected < 0.001; d_z = 0.30, a small effect)",
        ),
        (
            {"p": 0.03, "p_holm": 0.12, "significant": False, "n_seeds": 1, "effect": 0.5},
            "SL@K is better than SL by 0.0034 NDCG@20, but not significantly once corrected (95 % CI 0.0012 to 0.0056; "
            "938 users, 1 seed; t-test p = 0.030, Holm-corrected 0.120; d_z = 0.50, a medium effect)",
        ),
        (
            {"difference": -0.0034, "ci_low": -0.006, "ci_high": 0.001, "p": 0.4, "p_holm": 1.0, "significant": False,
             "effect": -0.9},
            "SL@K cannot be told from SL, difference -0.0034 NDCG@20 (95 % CI -0.0060 to 0.0010; 938 users, 3 seeds; "
            "t-test p = 0.400, Holm-corrected 1.000; d_z = -0.90, a large effect)",
        ),
        (
            {"effect": float("inf")},
            "SL@K is better than SL by 0.0034 NDCG@20 (95 % CI 0.0012 to 0.0056; 938 users, 3 seeds; "
            "t-test p = 0.003, Holm-corrected 0.012; the same difference for every user)",
        ),
    ],
)  # fmt: skip
def test_a_comparison_is_a_sentence(changes, said):
    assert sentence(replace(BASE, **changes)) == said


def test_families_have_headings():
    best = replace(BASE, question="best", hypotheses=1, other="bpr", other_title="BPR")
    elsewhere = replace(BASE, data="gowalla")
    found = by_question([BASE, replace(BASE, one="psl", one_title="PSL"), best, elsewhere])
    assert [heading for heading, _ in found] == [
        "ml-100k, MF, NDCG@20: against the best baseline, SL (p corrected for 4 pairs)",
        "ml-100k, MF, NDCG@20: the best, SL@K, against the others (p corrected for 1 pair)",
        "gowalla, MF, NDCG@20: against the best baseline, SL (p corrected for 4 pairs)",
    ]
    assert [len(lines) for _, lines in found] == [2, 1, 1]
    assert found[0][1][1].startswith("PSL is better than SL")


def test_csv_holds_every_number_unrounded():
    lines = list(csv.DictReader(io.StringIO(significance_csv([BASE, replace(BASE, one='a,"b', p=1e-300)]))))
    assert float(lines[1]["p"]) == 1e-300
    assert lines[1]["one"] == 'a,"b'
    assert lines[0] == {
        "data": "ml-100k", "backbone": "mf", "metric": "ndcg_20", "question": "baseline", "hypotheses": "4",
        "one": "slatk", "other": "sl", "n_users": "938", "n_seeds": "3", "difference": "0.0034", "ci_low": "0.0012",
        "ci_high": "0.0056", "t": "3.0", "p": "0.003", "p_holm": "0.012", "effect": "0.1", "significant": "True",
    }  # fmt: skip
    assert significance_csv([]).count("\n") == 1


PAIRS = ((1.0, 0.9, 0.01), (0.9, 1.0, 0.2), (0.01, 0.2, 1.0))
RANKING = Ranking(
    "mf", "MF", "ndcg_20", "NDCG@20", ("a", "b", "c"), ("talos", "sl", "bpr"), ("Talos", "SL", "BPR"), (1, 2, 3),
    Friedman(6.0, 0.0498, 1.91, PAIRS), ("d is left out: no loss is ranked on it",),
)  # fmt: skip


def test_a_ranking_that_tells_losses_apart():
    assert ranking_lines(RANKING) == [
        "MF, NDCG@20, mean ranks over 3 data sets (a, b, c), 1 is best: Talos 1.00, SL 2.00, BPR 3.00",
        "Friedman's test: chi-square 6.00, 2 degrees of freedom, p = 0.0498: the losses differ; mean ranks further "
        "apart than 1.91 differ significantly (Nemenyi, 5 %)",
        "cannot be told apart: Talos, SL",
        "cannot be told apart: SL, BPR",
        "d is left out: no loss is ranked on it",
    ]


def test_a_ranking_that_does_not():
    lines = ranking_lines(replace(RANKING, test=Friedman(1.0, 0.6, 1.91, PAIRS), notes=()))
    assert lines[1:] == [
        "Friedman's test: chi-square 1.00, 2 degrees of freedom, p = 0.600: no difference between the losses is shown"
    ]


def test_a_ranking_without_a_test():
    nothing = replace(RANKING, data=(), losses=(), titles=(), ranks=(), test=None, notes=("no Friedman test",))
    assert ranking_lines(nothing) == [
        "MF, NDCG@20, mean ranks over no data set, 1 is best: none",
        "no Friedman test",
    ]
