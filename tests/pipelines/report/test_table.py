import statistics

import pytest

from pipelines.report import build_table
from recloss.errors import InputError


def row(table, loss):
    return next(row for row in table.rows if row.loss == loss)


def score(table, loss, column=0):
    return row(table, loss).scores[column]


def why(table, noted):
    return [table.notes[number - 1] for number in noted.notes]


def test_mean_and_standard_deviation_by_hand(fabric):
    fabric.cell("talos", [0.1, 0.2, 0.6])
    ndcg = score(build_table(fabric.results(), ["ndcg_20"]), "talos")
    assert ndcg.mean == pytest.approx(0.3)
    assert ndcg.std == pytest.approx(((0.2**2 + 0.1**2 + 0.3**2) / 2) ** 0.5)
    assert [(v.seed, v.value) for v in ndcg.values] == [(1, 0.1), (2, 0.2), (3, 0.6)]
    assert [v.trial for v in ndcg.values] == [t.hash for t in fabric.trials if t.stages == ("confirm",)]


def test_one_seed_has_no_standard_deviation(fabric):
    fabric.cell("talos", [0.25], seeds=[1])
    ndcg = score(build_table(fabric.results(confirm_seeds=[1]), ["ndcg_20"]), "talos")
    assert (ndcg.mean, ndcg.std, ndcg.mark) == (0.25, None, "best")


def test_shape_follows_the_sweep(fabric):
    settings = {
        "data": [{"name": name, "path": "p"} for name in ("b-data", "a-data")],
        "backbones": {"mf": None, "lightgcn": None},
        "losses": {"talos": None, "SL@K": None, "bpr": None},
        "settings": {"protocol.cutoffs": [20]},
    }
    table = build_table(fabric.results(**settings))
    assert [(r.loss, r.title) for r in table.rows] == [("bpr", "BPR"), ("talos", "Talos"), ("slatk", "SL@K")]
    assert [(c.data, c.backbone, c.backbone_title, c.metric, c.metric_title) for c in table.columns[:5]] == [
        ("b-data", "mf", "MF", "recall_20", "Recall@20"),
        ("b-data", "mf", "MF", "ndcg_20", "NDCG@20"),
        ("b-data", "lightgcn", "LightGCN", "recall_20", "Recall@20"),
        ("b-data", "lightgcn", "LightGCN", "ndcg_20", "NDCG@20"),
        ("a-data", "mf", "MF", "recall_20", "Recall@20"),
    ]
    assert all(len(r.scores) == 8 for r in table.rows)
    assert table.improvements == ()


def test_default_columns_are_recall_and_ndcg_at_each_cutoff(fabric):
    fabric.select(fabric.trial("talos", protocol__cutoffs=[50, 20]))
    names = [column.metric for column in build_table(fabric.results()).columns]
    assert names == ["recall_20", "ndcg_20", "recall_50", "ndcg_50"]


@pytest.mark.parametrize(
    ("means", "marks"),
    [
        ({"bpr": 0.1, "sl": 0.3, "talos": 0.2}, {"sl": "best", "talos": "second"}),
        ({"bpr": 0.3, "sl": 0.3, "talos": 0.2}, {"bpr": "best", "sl": "best", "talos": "second"}),
        ({"bpr": 0.3, "sl": 0.2, "talos": 0.2}, {"bpr": "best", "sl": "second", "talos": "second"}),
        ({"bpr": 0.3, "sl": 0.30001, "talos": 0.30002}, {"talos": "best", "sl": "second"}),  # unrounded
        ({"bpr": 0.0}, {"bpr": "best"}),
    ],
)
def test_marks(fabric, means, marks):
    for loss, mean in means.items():
        fabric.cell(loss, [mean] * 3)
    table = build_table(fabric.results(losses=dict.fromkeys(means)), ["ndcg_20"])
    assert {r.loss: r.scores[0].mark for r in table.rows if r.scores[0].mark} == marks


def test_grid_trials_and_other_seeds_and_earlier_selections_do_not_count(fabric):
    fabric.cell("talos", [0.9, 0.9, 0.9], loss__tau=0.3)  # selected before the grid grew
    fabric.trial("talos", seed=7, stage="confirm", scores={"test/ndcg_20": 0.9})
    fabric.trial("talos", seed=1, stage="grid", scores={"test/ndcg_20": 0.9})
    fabric.cell("talos", [0.1, 0.1, 0.1])
    assert score(build_table(fabric.results(), ["ndcg_20"]), "talos").mean == pytest.approx(0.1)


def add_reference(fabric, name, ndcg, **where):
    """A reference model, confirmed with these test NDCGs."""
    other = type(fabric)()
    other.cell("bpr", ndcg, **where)
    other.rename(backbone="reference", loss=name)
    fabric.trials += other.trials
    (selection,) = other.selections.values()
    fabric.selections[where.get("data", "ml-100k"), "reference", name] = selection


class TestReferences:
    def test_a_reference_is_a_row_of_every_backbone_and_comes_first(self, fabric):
        for backbone in ("mf", "lightgcn"):
            fabric.cell("bpr", [0.2] * 3, backbone=backbone)
            fabric.cell("talos", [0.1] * 3, backbone=backbone)
        add_reference(fabric, "ease", [0.3] * 3)
        table = build_table(
            fabric.results(
                backbones={"mf": None, "lightgcn": None}, references={"ease": None, "mostpop": None}, baselines=["bpr"]
            ),
            ["ndcg_20"],
        )
        assert [(r.family, r.title) for r in table.rows] == [
            ("references", "EASE"),
            ("references", "MostPop"),
            ("pointwise and pairwise", "BPR"),
            ("top-K accuracy", "Talos"),
        ]
        assert [c.backbone for c in table.columns] == ["mf", "lightgcn"]
        ease = row(table, "ease").scores
        assert [s.mean for s in ease] == pytest.approx([0.3, 0.3])
        assert [s.mark for s in ease] == ["best", "best"]
        assert [why(table, s) for s in row(table, "mostpop").scores] == [["no trial yet"]] * 2
        assert [round(i.percent, 6) for i in table.improvements] == [-50, -50], "of Talos, not of EASE"
        assert "tuning budget, grid points: EASE 1, MostPop 0, BPR 1, Talos 1" in table.header

    def test_a_reference_may_be_the_baseline(self, fabric):
        fabric.cell("bpr", [0.45] * 3)
        add_reference(fabric, "ease", [0.3] * 3)
        (gain,) = build_table(
            fabric.results(losses={"bpr": None}, references={"ease": None}, baselines=["ease"]), ["ndcg_20"]
        ).improvements
        assert gain.percent == pytest.approx(50)

    def test_each_data_set_has_its_own(self, fabric):
        data = [{"name": name, "path": "p"} for name in ("a", "b")]
        for name, value in (("a", 0.2), ("b", 0.4)):
            fabric.cell("bpr", [value] * 3, data=name, fingerprint=name * 64)
            add_reference(fabric, "ease", [value / 2] * 3, data=name, fingerprint=name * 64)
        results = fabric.results(data=data, losses={"bpr": None}, references={"ease": None})
        ease = row(build_table(results, ["ndcg_20"]), "ease")
        assert [s.mean for s in ease.scores] == pytest.approx([0.1, 0.2])


def test_rows_stand_in_families_and_within_one_as_in_the_sweep(fabric):
    losses = dict.fromkeys(("slatk", "psl", "talos", "mse", "sl", "bpr"))
    table = build_table(fabric.results(losses=losses))
    assert [(family, [r.loss for r in rows]) for family, rows in table.families] == [
        ("pointwise and pairwise", ["mse", "bpr"]),
        ("softmax", ["psl", "sl"]),
        ("top-K accuracy", ["talos"]),
        ("top-K ranking", ["slatk"]),
    ]


def test_where_lower_is_better_the_lowest_is_best(fabric):
    for loss, value in {"bpr": 0.8, "sl": 0.4, "talos": 0.6}.items():
        grid = fabric.trial(loss)
        fabric.select(grid)
        for seed in (1, 2, 3):
            fabric.trial(loss, seed=seed, stage="confirm", scores={"test/gini_20": value, "test/coverage_20": value})
    results = fabric.results(losses=dict.fromkeys(("bpr", "sl", "talos")), baselines=["bpr"])
    table = build_table(results, ["gini_20", "coverage_20"])
    marks = {r.loss: tuple(s.mark for s in r.scores) for r in table.rows}
    assert marks == {"sl": ("best", ""), "talos": ("second", "second"), "bpr": ("", "best")}
    assert [i.percent for i in table.improvements] == pytest.approx([50, -25])
    assert [c.metric_title for c in table.columns] == ["Gini@20 ↓", "Coverage@20"]


@pytest.mark.parametrize(
    ("metric", "title"),
    [
        ("ndcg_20", "NDCG@20"),
        ("hit_rate_5", "HitRate@5"),
        ("precision_10", "Precision@10"),
        ("novelty_20", "Novelty@20"),
        ("recall_tail_20", "Recall@20 (tail)"),
    ],
)
def test_titles_of_metrics(fabric, metric, title):
    grid = fabric.trial("talos")
    fabric.select(grid)
    fabric.trial("talos", seed=1, stage="confirm", scores={f"test/{metric}": 0.5})
    (column,) = build_table(fabric.results(confirm_seeds=[1]), [metric]).columns
    assert column.metric_title == title


class TestMissing:
    def test_no_trial(self, fabric):
        table = build_table(fabric.results(), ["ndcg_20"])
        assert (score(table, "bpr").mean, why(table, score(table, "bpr"))) == (None, ["no trial yet"])
        assert (score(table, "bpr").notes, score(table, "talos").notes, len(table.notes)) == ((1,), (1,), 1)

    def test_nothing_selected(self, fabric):
        fabric.trial("talos")
        table = build_table(fabric.results(), ["ndcg_20"])
        assert why(table, score(table, "talos")) == ["no configuration selected yet"]

    def test_every_grid_trial_failed(self, fabric):
        fabric.trial("talos", status="FAILED", error="DivergedError: loss is nan")
        table = build_table(fabric.results(), ["ndcg_20"])
        assert why(table, score(table, "talos")) == ["every grid trial failed, one with: DivergedError: loss is nan"]

    @pytest.mark.parametrize("status", [None, "RUNNING", "KILLED"])
    def test_no_finished_confirmation_run(self, fabric, status):
        fabric.select(fabric.trial("talos"))
        if status:
            fabric.trial("talos", seed=1, stage="confirm", status=status)
        table = build_table(fabric.results(), ["ndcg_20"])
        assert why(table, score(table, "talos")) == ["no finished confirmation run"]

    def test_finished_but_not_scored(self, fabric):
        fabric.select(fabric.trial("talos"))
        fabric.trial("talos", seed=1, stage="confirm")
        table = build_table(fabric.results(), ["ndcg_20"])
        assert why(table, score(table, "talos")) == ["not scored on test yet"]

    def test_failed(self, fabric):
        fabric.select(fabric.trial("talos"))
        for seed in (1, 2, 3):
            fabric.trial("talos", seed=seed, stage="confirm", status="FAILED", error="CUDA out of memory")
        table = build_table(fabric.results(), ["ndcg_20"])
        assert (score(table, "talos").mean, score(table, "talos").mark) == (None, "")
        assert why(table, score(table, "talos")) == ["failed: CUDA out of memory"]

    def test_some_seeds_are_shown_but_not_ranked(self, fabric):
        fabric.cell("bpr", [0.1, 0.1, 0.1])
        fabric.cell("talos", [0.8, 0.9], seeds=[1, 3])
        fabric.trial("talos", seed=2, stage="confirm", status="FAILED", error="killed\n\x1b[31mby the node")
        table = build_table(fabric.results(baselines=["bpr"]), ["ndcg_20"])
        talos = score(table, "talos")
        assert (talos.mean, len(talos.values), talos.mark) == (pytest.approx(0.85), 2, "")
        assert why(table, talos) == ["2 of 3 seeds, not ranked; failed: killed [31mby the node"]
        assert score(table, "bpr").mark == "best"
        assert why(table, table.improvements[0]) == ["no loss beside the baselines is ranked"]


class TestImprovement:
    def test_best_other_over_best_baseline(self, fabric):
        for loss, mean in {"bpr": 0.2, "sl": 0.4, "psl": 0.5, "talos": 0.3}.items():
            fabric.cell(loss, [mean] * 3)
        losses = dict.fromkeys(("bpr", "sl", "psl", "talos"))
        (gain,) = build_table(fabric.results(losses=losses, baselines=["bpr", "sl"]), ["ndcg_20"]).improvements
        assert gain.percent == pytest.approx(25)
        (loss,) = build_table(fabric.results(losses=losses, baselines=["psl"]), ["ndcg_20"]).improvements
        assert loss.percent == pytest.approx(-20)

    def test_needs_every_baseline(self, fabric):
        fabric.cell("bpr", [0.2] * 3)
        fabric.cell("talos", [0.3] * 3)
        losses = dict.fromkeys(("bpr", "sl", "talos"))
        table = build_table(fabric.results(losses=losses, baselines=["bpr", "sl"]), ["ndcg_20"])
        assert table.improvements[0].percent is None
        assert why(table, table.improvements[0]) == ["no improvement is told before every baseline is ranked"]

    def test_baseline_of_zero(self, fabric):
        fabric.cell("bpr", [0.0] * 3)
        fabric.cell("talos", [0.3] * 3)
        table = build_table(fabric.results(baselines=["bpr"]), ["ndcg_20"])
        assert (table.improvements[0].percent, score(table, "bpr").mean) == (None, 0.0)
        assert why(table, table.improvements[0]) == ["the best baseline scored 0"]


class TestContents:
    A, B = "aa" * 32, "bb" * 32

    def mixed(self, fabric):
        fabric.cell("bpr", [0.1] * 3, fingerprint=self.A)
        fabric.cell("psl", [0.2] * 3, fingerprint=self.B)
        fabric.cell("talos", [0.9] * 3, fingerprint=self.A)
        fabric.cell("sl", [0.3] * 3, fingerprint=self.B)
        return fabric.results(losses=dict.fromkeys(("bpr", "psl", "talos", "sl")), baselines=["psl"])

    def test_two_fingerprints_are_refused(self, fabric):
        results = self.mixed(fabric)
        with pytest.raises(InputError) as raised:
            build_table(results)
        assert str(raised.value) == (
            f"data set 'ml-100k': its results are from different contents, fingerprints {'aa' * 6} (mf, talos) and "
            f"{'bb' * 6} (mf, sl): how they differ is not recorded. They cannot share a column: run the sweep again "
            "on one of them, or see them side by side with --mix-fingerprints"
        )

    @pytest.mark.parametrize(
        ("one", "other", "words"),
        [
            ({"k_core": 5}, {"k_core": 10, "min_rating": 3}, "min_rating none against 3; k_core 5 against 10"),
            ({"k_core": 5}, {"k_core": {"users": 5, "items": 4}}, "k_core 5 against users 5, items 4."),
            ({}, {"split_seed": 1}, "split_seed 0 against 1"),
            ({}, {"split": "temporal", "gap_ratio": 0.2}, "split iid against temporal; "),
            ({}, {"sha256": "1" * 64}, "other raw files (u.data)"),
            ({}, {}, "neither in settings nor in raw files"),
        ],
    )
    def test_the_refusal_says_how_they_differ(self, fabric, one, other, words):
        fabric.manifest(self.A, **one)
        fabric.manifest(self.B, **other)
        results = self.mixed(fabric)
        with pytest.raises(InputError) as raised:
            build_table(results)
        assert f"they differ in {words}" in str(raised.value)

    def test_asked_for_they_share_a_column_with_a_footnote_and_without_a_rank(self, fabric):
        fabric.manifest(self.A)
        fabric.manifest(self.B, k_core=10)
        table = build_table(self.mixed(fabric), ["ndcg_20"], mix_fingerprints=True)
        assert table.columns[0].fingerprint == self.B, "the latest"
        scores = {r.loss: r.scores[0] for r in table.rows}
        assert {loss: s.mean for loss, s in scores.items()} == pytest.approx(
            {"bpr": 0.1, "psl": 0.2, "talos": 0.9, "sl": 0.3}
        )
        assert {loss: s.mark for loss, s in scores.items()} == {"bpr": "", "psl": "second", "talos": "", "sl": "best"}
        assert {loss: s.fingerprint[:2] for loss, s in scores.items()} == {
            "bpr": "aa",
            "psl": "bb",
            "talos": "aa",
            "sl": "bb",
        }
        why_not = f"on other data, fingerprint {'aa' * 6}, not ranked; they differ in k_core 10 against 1"
        assert (why(table, scores["bpr"]), why(table, scores["talos"])) == ([why_not], [why_not])
        assert table.improvements[0].percent == pytest.approx(50), "0.3 over 0.2, not 0.9"
        assert f"fingerprint {'bb' * 6} and {'aa' * 6}" in table.header[0]
        assert "tuning budget, grid points: BPR 1, PSL 1, Talos 1, SL 1" in table.header

    def test_an_improvement_needs_baselines_of_the_column(self, fabric):
        results = self.mixed(fabric)
        results.settings["baselines"] = ["bpr"]
        table = build_table(results, ["ndcg_20"], mix_fingerprints=True)
        assert table.improvements[0].percent is None

    def test_a_column_of_one_content_is_the_same_with_and_without_leave(self, fabric):
        fabric.cell("bpr", [0.1] * 3)
        fabric.cell("talos", [0.2] * 3)
        assert build_table(fabric.results(), mix_fingerprints=True) == build_table(fabric.results())

    def test_trials_on_an_earlier_content_do_not_count(self, fabric):
        fabric.cell("talos", [0.9] * 3, fingerprint="aa" * 32)
        fabric.cell("talos", [0.1] * 3, fingerprint="bb" * 32)
        table = build_table(fabric.results(), ["ndcg_20"])
        assert table.columns[0].fingerprint == "bb" * 32
        assert score(table, "talos").mean == pytest.approx(0.1)
        assert "tuning budget, grid points: BPR 0, Talos 1" in table.header


class TestHeader:
    def test_lines(self, fabric):
        fabric.cell("talos", [0.1] * 3)
        fabric.trial("talos", loss__tau=0.3)
        fabric.trial("talos", loss__tau=0.3, seed=5)
        prepare = {"raw": "ratings.csv", "prepare": {"k_core": 5}}
        header = build_table(fabric.results(data=[{"name": "ml-100k", "path": "p", **prepare}])).header
        assert header == (
            "data ml-100k: fingerprint 0123456789ab, min_rating None, k_core 5, split iid, test_ratio 0.2, "
            "valid_ratio 0.1, split_seed 0",
            "ranking: all items, K = 20, training positives hidden, ties by item-hash",
            "selection: validation ndcg_20, mean over seeds 0",
            "scores: test, mean ± standard deviation (n-1) over seeds 1, 2, 3",
            "tuning budget, grid points: BPR 0, Talos 2",
        )

    def test_the_baselines_are_named(self, fabric):
        header = build_table(fabric.results(losses={"SL@K": None, "talos": None}, baselines=["SL@K"])).header
        assert header[-1] == "Imp.%: the best other loss over the best baseline (SL@K)"

    def test_settings_that_differ_between_cells_show(self, fabric):
        fabric.cell("bpr", [0.1] * 3, protocol__mask_valid=True)
        fabric.cell("talos", [0.1] * 3)
        ranking = build_table(fabric.results()).header[1]
        assert "training positives hidden or training and validation positives hidden" in ranking

    def test_data_prepared_elsewhere(self, fabric):
        assert build_table(fabric.results()).header[0] == (
            "data ml-100k: fingerprint not known yet, split as in its manifest"
        )


def test_unknown_metric(fabric):
    fabric.cell("talos", [0.1] * 3)
    with pytest.raises(InputError, match=r"unknown metric 'ndcg_2'; did you mean 'ndcg_20'"):
        build_table(fabric.results(), ["ndcg_2"])
    with pytest.raises(InputError, match="unknown metric 'accuracy'"):
        build_table(fabric.results(), ["accuracy"])


def test_loss_this_installation_does_not_know(fabric):
    fabric.cell("talos", [0.1] * 3)
    results = fabric.results()
    results.settings["losses"] = {"old\nloss": {}, "talos": {}}
    assert [r.title for r in build_table(results).rows] == ["Talos", "old loss"]


def test_std_is_of_the_sample(fabric):
    values = [0.31, 0.3123, 0.2987]
    fabric.cell("talos", values)
    assert score(build_table(fabric.results(), ["ndcg_20"]), "talos").std == statistics.stdev(values)
