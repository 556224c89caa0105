"""Comparisons of a sweep's losses: which, on which users, and what they find."""

import dataclasses
import math
import random
import statistics

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from pipelines.report.paired import holm
from pipelines.report.statistics import compare, compare_column, left_out, starred
from pipelines.report.table import Column, Row, Score, SeedValue
from pipelines.settings.reference import make_reference_trial
from pipelines.tracking import TrialRun

LOSSES = ("bpr", "sl", "psl", "talos")
PLANTED = dict(zip(LOSSES, (0, 0.001, 0.002, 0.05), strict=True))
"""What is added to every user's scores."""
N = 200


class Scored:
    """A fabricated sweep whose trials have scores per user."""

    def __init__(self, fabric, losses=LOSSES, baselines=("bpr",)):
        self.fabric, self.users = fabric, {}
        fabric.raw |= {"losses": dict.fromkeys(losses), "baselines": list(baselines)}

    def cell(self, loss, values, ids=None, **where):
        """A cell confirmed with (seeds, users) values."""
        values = np.asarray(values, dtype=float)
        seeds = where.pop("seeds", range(1, len(values) + 1))
        self.fabric.cell(loss, [float(np.nanmean(line)) for line in values], seeds=seeds, **where)
        for trial, line in zip(self.fabric.trials[-len(values) :], values, strict=True):
            known = pa.array(line, mask=np.isnan(line))
            self.users[trial.hash] = pa.table({"user": np.arange(len(line)) if ids is None else ids, "ndcg_20": known})
        return [trial.hash for trial in self.fabric.trials[-len(values) :]]

    def results(self, **settings):
        return self.fabric.results(**settings)

    def compare(self, **settings):
        return compare(self.results(**settings), self.users, "ndcg_20")

    def left_out(self, **settings):
        return left_out(self.results(**settings), self.users, "ndcg_20")


@pytest.fixture
def scored(fabric):
    return Scored(fabric)


def noisy(seed, mean=0.0, n=N, n_seeds=3, spread=0.1):
    """Scores of users that differ more than losses do."""
    users = np.random.default_rng(0).beta(1, 3, size=n)
    return users + np.random.default_rng(seed).normal(mean, spread, size=(n_seeds, n))


@pytest.fixture
def four(scored):
    for seed, (loss, mean) in enumerate(PLANTED.items(), start=11):
        scored.cell(loss, noisy(seed, mean))
    return scored


def of(comparisons, question):
    return [c for c in comparisons if c.question == question]


def test_every_loss_meets_the_best_baseline_and_the_best_loss_every_other(four):
    found = four.compare(baselines=["bpr", "sl"])
    means = {loss: noisy(seed, m).mean() for seed, (loss, m) in enumerate(PLANTED.items(), start=11)}
    strongest = max(("bpr", "sl"), key=means.__getitem__)
    assert {(c.one, c.other, c.hypotheses) for c in of(found, "baseline")} == {
        ("psl", strongest, 4),
        ("talos", strongest, 4),
    }
    assert {(c.one, c.other, c.hypotheses) for c in of(found, "best")} == {
        ("talos", loss, 6) for loss in ("bpr", "sl", "psl")
    }
    assert {c.question for c in four.compare(baselines=[])} == {"best"}


def test_every_number_of_a_comparison(four):
    """Against plain Python, and SciPy's test."""
    scores = {loss: noisy(i, m) for i, (loss, m) in enumerate(PLANTED.items(), start=11)}
    per_user = {loss: [statistics.fmean(values[:, u]) for u in range(N)] for loss, values in scores.items()}
    found = four.compare()
    p_all = {}
    for c in found:
        differences = [a - b for a, b in zip(per_user[c.one], per_user[c.other], strict=True)]
        mean, deviation = statistics.fmean(differences), statistics.stdev(differences)
        assert (c.data, c.backbone, c.metric, c.n_users, c.n_seeds) == ("ml-100k", "mf", "ndcg_20", N, 3)
        assert c.difference == pytest.approx(mean)
        assert c.effect == pytest.approx(mean / deviation)
        assert c.t == pytest.approx(mean / (deviation / math.sqrt(N)))
        assert c.p == pytest.approx(2 * stats.t.sf(abs(c.t), N - 1))
        normal = [mean + z * deviation / math.sqrt(N) for z in (-1.96, 1.96)]
        assert [c.ci_low, c.ci_high] == pytest.approx(normal, abs=0.2 * deviation / math.sqrt(N))
        assert c.significant == (c.p_holm < 0.05)
    baseline = of(found, "baseline")
    assert [c.p_holm for c in baseline] == pytest.approx(holm([c.p for c in baseline]))
    for i, one in enumerate(LOSSES):
        for other in LOSSES[i + 1 :]:
            p_all[frozenset((one, other))] = stats.ttest_rel(per_user[one], per_user[other]).pvalue
    corrected = dict(zip(p_all, holm(list(p_all.values())), strict=True))
    for c in of(found, "best"):
        assert c.p_holm == pytest.approx(corrected[frozenset((c.one, c.other))])


def test_a_planted_effect_is_found_and_gets_the_star(four):
    found = four.compare()
    assert starred(found) == {("ml-100k", "mf", "ndcg_20", "talos")}
    (planted,) = [c for c in of(found, "baseline") if c.one == "talos"]
    assert planted.difference == pytest.approx(0.05, abs=0.02)
    assert planted.ci_low < 0.05 < planted.ci_high
    assert all(c.better for c in of(found, "best"))


def test_a_significantly_worse_loss_gets_no_star(scored):
    for loss, mean in zip(LOSSES, (0.1, 0, 0, 0), strict=True):
        scored.cell(loss, noisy(LOSSES.index(loss), mean))
    found = scored.compare()
    assert all(c.significant and c.difference < 0 and not c.better for c in of(found, "baseline"))
    assert starred(found) == set()


def test_seeds_are_averaged_not_counted(scored):
    """Five copies of one seed tell no more than one."""
    one, other = noisy(1, n_seeds=1), noisy(2, 0.01, n_seeds=1)
    for loss, values in (("bpr", one), ("talos", other)):
        scored.cell(loss, np.repeat(values, 5, axis=0), seeds=range(5))
    (c, _) = scored.compare(losses={"bpr": None, "talos": None}, confirm_seeds=list(range(5)))
    expected = stats.ttest_rel(other[0], one[0])
    assert (c.t, c.p, c.n_users, c.n_seeds) == (
        pytest.approx(expected.statistic), pytest.approx(expected.pvalue), N, 5,
    )  # fmt: skip


def test_identical_losses_are_not_told_apart(scored):
    for loss in LOSSES:
        scored.cell(loss, noisy(1))
    for c in scored.compare():
        assert (c.difference, c.t, c.p, c.p_holm, c.effect, c.ci_low, c.ci_high) == (0, 0, 1, 1, 0, 0, 0)
        assert not c.significant


def test_the_order_of_users_and_trials_does_not_matter(four):
    before = four.compare()
    rng = np.random.default_rng(0)
    four.users = {trial: table.take(rng.permutation(N)) for trial, table in four.users.items()}
    names = list(four.users)
    random.Random(0).shuffle(names)
    four.users = {name: four.users[name] for name in names}
    assert four.compare() == before


def test_the_order_of_losses_does_not_matter(four):
    def by_pair(comparisons):
        numbers = [field.name for field in dataclasses.fields(comparisons[0]) if field.type in ("float", float)]
        return {(c.question, c.one, c.other): [getattr(c, name) for name in numbers] for c in comparisons}

    before = by_pair(four.compare())
    after = by_pair(four.compare(losses=dict.fromkeys(LOSSES[::-1])))
    assert after.keys() == before.keys()
    for pair, values in before.items():
        assert after[pair] == pytest.approx(values, rel=1e-9, abs=1e-14)


def test_only_users_of_both_count(scored):
    """Users whom one loss does not know are as if nobody had known them."""
    some = np.arange(0, N, 2)
    for seed, loss in enumerate(LOSSES, start=1):
        values = noisy(seed, seed / 100)
        if loss == "sl":
            scored.cell(loss, values[:, some], ids=some)
        else:
            scored.cell(loss, values)
    found = {(c.question, c.one, c.other): c for c in scored.compare()}
    assert {pair: c.n_users for pair, c in found.items()} == {pair: N // 2 if "sl" in pair else N for pair in found}
    c = found["best", "talos", "sl"]
    expected = stats.ttest_rel(noisy(4, 0.04).mean(0)[some], noisy(2, 0.02).mean(0)[some])
    assert (c.t, c.p) == (pytest.approx(expected.statistic), pytest.approx(expected.pvalue))
    assert c.ci_low < c.difference < c.ci_high


def test_users_without_a_value_do_not_count(scored):
    """Nulls, as of users without relevant items of a popularity group."""
    for seed, loss in enumerate(LOSSES, start=1):
        values = noisy(seed, seed / 100)
        values[:, :50] = np.nan
        scored.cell(loss, values)
    assert {c.n_users for c in scored.compare()} == {N - 50}
    assert scored.left_out() == []


def test_a_user_whom_one_seed_does_not_know_does_not_count(scored):
    for seed, loss in enumerate(LOSSES, start=1):
        values = noisy(seed)
        values[1, 7] = np.nan
        scored.cell(loss, values)
    assert {c.n_users for c in scored.compare()} == {N - 1}


@pytest.fixture
def gap(scored):
    """SL has one seed less."""
    for seed, loss in enumerate(LOSSES, start=1):
        n_seeds = 2 if loss == "sl" else 3
        scored.cell(loss, noisy(seed, seed / 100, n_seeds=n_seeds), seeds=range(1, n_seeds + 1))
    return scored


def test_a_loss_that_is_not_ranked_is_left_out_with_the_reason(gap):
    assert {c.other for c in of(gap.compare(), "best")} == {"bpr", "psl"}
    assert {c.one for c in of(gap.compare(), "baseline")} == {"psl", "talos"}
    assert {c.hypotheses for c in gap.compare()} == {2, 3}
    (line,) = gap.left_out()
    assert line == "ml-100k, MF, NDCG@20: SL is not compared: 2 of 3 seeds, not ranked"


def test_without_every_baseline_none_is_the_best(gap):
    found = gap.compare(baselines=["bpr", "sl"])
    assert {c.question for c in found} == {"best"}
    assert starred(found) == set()
    assert gap.left_out(baselines=["bpr", "sl"])[1:] == [
        "ml-100k, MF, NDCG@20: no loss is compared with the best baseline before every baseline is"
    ]


def test_scores_per_user_that_are_missing_are_named(four):
    confirmed = [t for t in four.fabric.trials if t.loss == "psl" and t.stages == ("confirm",)]
    del four.users[confirmed[2].hash]
    assert "psl" not in {name for c in four.compare() for name in (c.one, c.other)}
    assert four.left_out() == [
        "ml-100k, MF, NDCG@20: PSL is not compared: no readable scores per user in the artifact store, of seed 3"
    ]
    four.users.clear()
    assert four.compare() == []
    assert len(four.left_out()) == 5


def test_a_metric_of_the_catalogue_is_not_tested(four):
    four.fabric.trials = [
        dataclasses.replace(t, metrics=t.metrics | {"test/coverage_20": 0.5}) for t in four.fabric.trials
    ]
    results = four.results()
    assert compare(results, four.users, "coverage_20") == []
    assert left_out(results, four.users, "coverage_20") == [
        "Coverage@20 is one number per trial, not one per user, so it is not tested"
    ]


def test_data_sets_and_backbones_are_families_of_their_own(scored):
    places = [(data, backbone) for data in ("a", "b") for backbone in ("mf", "lightgcn")]
    for number, (data, backbone) in enumerate(places):
        for seed, loss in enumerate(LOSSES, start=1):
            values = noisy(10 * number + seed, seed / 100)
            scored.cell(loss, values, data=data, backbone=backbone, fingerprint=data * 64)
    data = [{"name": name, "path": "p"} for name in ("a", "b")]
    found = scored.compare(data=data, backbones={"mf": None, "lightgcn": None})
    assert {(c.data, c.backbone) for c in found} == set(places)
    alone = scored.compare(data=data[1:], backbones={"lightgcn": None})
    assert [c for c in found if (c.data, c.backbone) == ("b", "lightgcn")] == alone


def test_a_reference_takes_part_in_every_backbone(scored):
    for backbone in ("mf", "lightgcn"):
        for seed, loss in enumerate(LOSSES, start=1):
            scored.cell(loss, noisy(seed + len(backbone), seed / 100), backbone=backbone)
    for seed, line in enumerate(noisy(99, -0.2), start=1):
        made = make_reference_trial("0123456789abcdef" * 4, "mostpop", {}, seed=seed, where="test")
        scored.fabric.trials.append(
            TrialRun(
                hash=made.hash, data="ml-100k", fingerprint=made.data, backbone="reference", loss="mostpop",
                seed=seed, stages=("grid", "confirm"), status="FINISHED",
                params={key: str(value) for key, value in made.flat().items()},
                metrics={"test/ndcg_20": float(line.mean()), "seconds": 1.0}, start=0.0, end=1.0, error=None,
            )
        )  # fmt: skip
        scored.users[made.hash] = pa.table({"user": np.arange(N), "ndcg_20": line})
    scored.fabric.select(scored.fabric.trials[-1])
    found = scored.compare(backbones={"mf": None, "lightgcn": None}, references={"mostpop": {}})
    met = [c for c in found if "mostpop" in (c.one, c.other)]
    assert {(c.backbone, c.question, c.one, c.other) for c in met} == {
        (backbone, *rest)
        for backbone in ("mf", "lightgcn")
        for rest in (("baseline", "mostpop", "bpr"), ("best", "talos", "mostpop"))
    }
    assert all(c.significant for c in met)


def test_a_false_claim_is_as_rare_as_promised():
    """Of 150 data sets on which five losses are the same but for chance, any claim is made on 5 % at most."""
    n_data, losses = 150, ("bpr", "sl", "psl", "talos", "slatk")
    rng = np.random.default_rng(6)
    found = []
    for number in range(n_data):
        values = rng.beta(1, 3, size=60) + rng.normal(0, 0.1, size=(len(losses), 60))
        column = Column(str(number), "", "mf", "MF", "ndcg_20")
        scores = [Score((SeedValue(1, float(line.mean()), ""),), True, "") for line in values]
        rows = [(Row(loss, loss, (score,), ""), score) for loss, score in zip(losses, scores, strict=True)]
        found += compare_column(column, rows, values, ["bpr", "sl"], resamples=2)
    most = stats.binom.ppf(1 - 1e-3, n_data, 0.05)
    for question in ("baseline", "best"):
        claims = of(found, question)
        assert len({c.data for c in claims if c.significant}) <= most, question
        assert len({c.data for c in claims if c.p < 0.05}) > most, question  # without the correction it is not so
    assert any(c.significant for c in found)
