"""The presets as they are: they plan, they say why they differ from a default, and report what the papers print."""

import functools
import re
from pathlib import Path

import pytest

from pipelines.papers import catalogue
from pipelines.papers.deviations import deviations
from pipelines.papers.sweeps import HYPERS, paper_sweeps, sweep_settings
from pipelines.settings import SearchSettings, SweepSettings, make_trial, parse
from pipelines.sweep.plan import plan, presets, space
from recloss.errors import InputError

TUNABLE = re.compile(
    r"optim\.(lr|weight_decay)|backbone\.contrast_weight"
    r"|loss\.(tau|tau_pos|tau_neg|tau_weight|tau_rank|tau_step|refresh|ema|alpha|beta|delta|threshold_lr|adv_\w+|gamma_star|c)"
)
"""What a paper tunes; all else that differs from a default is a fixed setting with a reason."""

RUNS = Path("runs")
load = functools.cache(catalogue.load)
RUNNABLE = [name for name in catalogue.names(None) if not load(name, None).own.simulation]


def planned(preset, hyper, sweep):
    """The cells, each with one configuration of its space."""
    settings = sweep_settings(preset, sweep, hyper=hyper, seeds=3, storage=RUNS, raw={}, missing=True)
    return plan(settings.model_copy(update={"search": SearchSettings(method="random", trials=1)}), {})


@pytest.mark.parametrize("name", [name for name in RUNNABLE if not load(name, None).own.runs])
def test_every_sweep_plans_and_differs_from_a_default_by_what_the_preset_says_alone(name):
    preset = load(name, None)
    everything = [*preset.run.rows, *preset.run.extra]
    for hyper in HYPERS:
        sweeps = paper_sweeps(preset, hyper, losses=everything)
        assert len({sweep.name for sweep in sweeps}) == len(sweeps)
        for sweep in sweeps if hyper == "reported" else sweeps[:3]:
            by_loss = {variant.settings.loss: variant for variant in sweep.variants}
            assert len(by_loss) == len(sweep.variants), "a sweep has a loss once"
            said = {*preset.protocol, *preset.paper.backbones.get(sweep.backbone, {})}
            for cell in planned(preset, hyper, sweep):
                variant = by_loss[cell.loss]
                own = {*said, *variant.settings.settings, *([preset.run.vary.setting] if preset.run.vary else [])}
                flat = cell.configurations[0][0].flat()
                task = preset.run.task
                common = presets(sweep.backbone, cell.loss, None, task)
                if task in ("rank", "link"):  # they measure other metrics than the default one
                    common = common | {key: flat[key] for key in ("protocol.metric", "protocol.cutoffs")}
                default = make_trial("d", sweep.backbone, cell.loss, common, task=task).flat()
                differing = {key for key in flat if flat[key] != default.get(key)} - {"data"}
                searched = space("losses", cell.loss, None, task).space
                assert {key for key in differing - searched.keys() if not TUNABLE.fullmatch(key)} <= own


@pytest.mark.parametrize("name", RUNNABLE)
def test_tuned_values_and_grids_are_of_what_papers_tune(name):
    preset = load(name, None)
    given = [settings for by_row in preset.tuned.values() for rows in by_row.values() for settings in rows.values()]
    given += [preset.paper.grid, *(row.grid for row in preset.paper.rows.values())]
    assert all(TUNABLE.fullmatch(key) for settings in given for key in settings)


@pytest.mark.parametrize("name", RUNNABLE)
def test_every_deviation_has_a_reason_and_a_default_that_it_differs_from(name):
    found = deviations(load(name, None), None)
    assert found
    for deviation in found:
        assert deviation.why
        assert deviation.value != deviation.default
        assert deviation.default is not None or deviation.setting.startswith("sampler")


def test_the_default_of_a_row_is_what_its_search_space_presets():
    found = {(d.where, d.setting): (d.value, d.default) for d in deviations(load("slatk/table-17-18", None), None)}
    assert found["LambdaRank", "backbone.init"] == ("normal", "xavier_normal")
    assert found["LambdaLoss-S", "train.negatives"] == (200, 1)
    assert found["all", "train.negatives"] == (200, 1000)
    assert ("SL@20", "backbone.init") not in found


def test_health_with_mf_is_the_sweep_that_was_written_by_hand_first():
    by_hand = {
        "name": "slatk-table-2-health-mf",
        "data": [{"name": "health", "path": "p", "raw": "r", "prepare": {"split": "given", "rounding": "int"}}],
        "backbones": {"mf": None},
        "losses": {
            "sl": {"loss.tau": 0.2},
            "slatk": {"loss.tau": 0.2, "loss.tau_weight": 2.5, "loss.refresh": 5},
            "psl": {"loss.tau": 0.1, "loss.activation": "relu"},
            "bsl": {"loss.tau_pos": 0.2, "loss.tau_neg": 0.2, "loss.variant": "per_sample"},
            "bpr": {"optim.lr": 0.001, "optim.weight_decay": 0.0001},
            "guidedrec": {"optim.lr": 0.01},
            "llpauc": {"loss.alpha": 0.7, "loss.beta": 0.01},
            "advinfonce": {"loss.tau": 0.2, "loss.adv_every": 5, "loss.adv_epochs": 200, "loss.adv_lr": 5.0e-5},
            "songatk": {"loss.ema": 0.9, "loss.threshold_lr": 0.001},
        },
        "settings": {"train.negatives": 1000, "train.epochs": 200, "train.valid_every": 5, "train.patience": 40},
        "seeds": [0],
        "confirm_seeds": [0, 1, 2],
    }
    for name, settings in by_hand["losses"].items():
        by_hand["losses"][name] = {"optim.lr": 0.1, "optim.weight_decay": 0} | settings
    preset = load("slatk/table-2", None)
    (sweep,) = paper_sweeps(preset, "reported", data=["health"], backbones=["mf"])
    made = sweep_settings(preset, sweep, hyper="reported", seeds=3, storage=RUNS, raw={}, missing=True)
    wanted = parse(SweepSettings, by_hand, "by hand")
    assert (made.name, made.seeds, made.confirm_seeds) == (wanted.name, wanted.seeds, wanted.confirm_seeds)
    assert made.data[0].prepare == wanted.data[0].prepare
    hashes = [
        {cell.name: [t.hash for t in cell.grid] for cell in plan(settings, {"health": "f"})}
        for settings in (made, wanted)
    ]
    assert hashes[0] == hashes[1]
    assert all(len(trials) == 1 for trials in hashes[0].values())


def test_a_trial_on_seed_0_is_the_search_and_the_first_confirmation():
    preset = load("slatk/table-2", None)
    (sweep,) = paper_sweeps(preset, "reported", data=["health"], backbones=["mf"], losses=["sl"])
    settings = sweep_settings(preset, sweep, hyper="reported", seeds=2, storage=RUNS, raw={}, missing=True)
    assert settings.seeds == (0,)
    assert settings.confirm_seeds == (0, 1)


PRINTED = {
    "slatk/table-2": {
        ("health", "mf", "SL", "recall_20"): 0.1719,
        ("health", "mf", "SL", "ndcg_20"): 0.1261,
        ("health", "mf", "SL@20", "recall_20"): 0.1823,
        ("health", "mf", "SL@20", "ndcg_20"): 0.1390,
        ("book", "xsimgcl", "PSL", "ndcg_20"): 0.1228,
        ("gowalla", "mf", "BPR", "recall_20"): 0.1355,
    },
    "slatk/table-3": {
        ("health", "mf", "SL@5", "ndcg_5"): 0.1080,
        ("electronics", "mf", "SL@50", "ndcg_50"): 0.0760,
        ("health", "mf", "SONG@20", "ndcg_20"): 0.0650,
        ("health", "mf", "BPR", "ndcg_10"): 0.1037,
    },
    "slatk/table-4": {
        ("health", "mf", "SL@5", "ndcg_20"): 0.1379,
        ("electronics", "mf", "SL", "ndcg_100"): 0.0845,
    },
    "slatk/table-17-18": {
        ("ml-100k", "mf", "LambdaLoss@20-S", "recall_20"): 0.1580,
        ("ml-100k", "mf", "LambdaLoss-S", "ndcg_20"): 0.1523,
        ("food", "mf", "LambdaLoss@20", "epoch_seconds"): 494,
    },
    "slatk/figure-3": {
        ("health", "mf", "SL@20", "ndcg_20"): 0.1390,
        ("health-noise-0.05", "mf", "SL", "ndcg_20"): 0.1198,
        ("gowalla-noise-0.2", "mf", "SL@20", "ndcg_20"): 0.1690,
    },
    "slatk/figure-7": {("health", "mf", "SL@20, tau_w = 2.25", "ndcg_20"): 0.1369},
    "slatk/table-5": {("istella", "selfattention", "SL@5", "ndcg_5"): 0.6412},
    "slatk/table-6": {("beauty-sequences", "sasrec", "BCE", "hit_rate_20"): 0.1130},
    "slatk/table-7": {("cora", "gcn", "SL@20", "hit_rate_20"): 0.4839, ("citeseer", "gcn", "BCE", "mrr"): 0.1424},
    "talos/table-3.1": {
        ("beauty", "mf", "SL", "recall_20"): 0.1403,
        ("beauty", "mf", "Talos", "recall_20"): 0.1499,
        ("gowalla", "mf", "Talos", "precision_20"): 0.0642,
        ("electronics", "mf", "Talos", "recall_20"): 0.0655,
    },
    "talos/table-D.2": {("gowalla", "mf", "BPR", "ndcg_20"): 0.1167},
    "talos/table-3.2-3.3": {
        ("gowalla", "mf", "RS@K", "recall_50"): 0.1059,
        ("beauty", "mf", "SL", "recall_80"): 0.2617,
    },
    "talos/table-3.4": {("gowalla-temporal", "mf", "Talos", "recall_20"): 0.1577},
    "talos/table-A.1": {("games-temporal", "mf", "SL@20", "recall_20"): 0.0708},
    "talos/table-4.1": {
        ("beauty", "mf", "w/o-quantile", "recall_20"): 0.1487,
        ("electronics", "mf", "w/o-denominator", "precision_20"): 0.0018,
    },
    "talos/table-A.2": {("beauty", "mf", "Talos, N = 8", "precision_20"): 0.0173},
    "talos/table-A.4": {("ml-100k", "mf", "Talos", "threshold_error"): 0.0059},
    "slatk/figure-1": {("electronics", "mf", "LambdaLoss@20", "epoch_seconds"): 434.54},
    "talos/table-A.3": {("ml-100k", "mf", "SL@400", "precision_400"): 0.0400},
    "talos/figure-2": {("games", "mf", "Talos, tau = 0.125", "recall_20"): 0.1980},
    "talos/table-F.1": {("gowalla", "mf", "SL", "epoch_seconds"): 4.79, ("games", "mf", "SL", "epoch_seconds"): 0.31},
    "psl/table-1": {("electronics", "mf", "PSL-relu", "recall_20"): 0.0838, ("book", "mf", "BPR", "ndcg_20"): 0.0453},
    "psl/table-2": {("cd-popularity", "mf", "PSL-relu", "ndcg_20"): 0.0839},
    "psl/figures-C.1-C.4": {("book-pool", "mf", "PSL-atan, p = 0.05", "recall_20"): 0.1145},
    "drrl/table-1": {("kitchen", "mf", "MSE", "recall_20"): 0.0259, ("beauty", "mf", "BCE", "ndcg_20"): 0.0781},
    "drrl/table-2": {("electronics-temporal", "mf", "DrRL", "recall_20"): 0.05199},
    "drrl/figure-noise": {("kitchen", "mf", "DrRL, r = 0.1", "recall_20"): 0.0434},
}
COUNTS = {
    "slatk/table-2": 216, "slatk/table-3": 120, "slatk/table-4": 84, "slatk/table-17-18": 30, "slatk/figure-3": 40,
    "slatk/figure-7": 10, "talos/table-3.1": 240, "talos/table-D.2": 120, "talos/table-3.2-3.3": 66,
    "talos/table-4.1": 48, "talos/table-A.4": 8, "slatk/figure-1": 3,
    "psl/table-1": 192, "psl/table-2": 64, "psl/figures-C.1-C.4": 200, "drrl/table-1": 216,
}  # fmt: skip


@pytest.mark.parametrize("name", PRINTED)
def test_what_is_reported_is_what_the_paper_prints(name):
    reported = load(name, None).reported
    assert {key: reported.get(key) for key in PRINTED[name]} == PRINTED[name]
    assert len(reported) == COUNTS.get(name, len(reported))


def test_every_preset_that_reports_something_is_spot_checked():
    assert {name for name in RUNNABLE if load(name, None).reported} == PRINTED.keys()


def test_temperatures_of_the_psl_paper_are_doubled_but_for_psl():
    tuned = load("psl/table-1", None).tuned["electronics"]["mf"]
    assert tuned["SL"]["loss.tau"] == 0.2
    assert tuned["BSL"] == {"optim.lr": 0.1, "optim.weight_decay": 0, "loss.tau_pos": 0.5, "loss.tau_neg": 0.2}
    assert tuned["PSL-relu"]["loss.tau"] == 0.1


def test_what_talos_lost_is_searched_over_its_grid():
    preset = load("talos/table-4.1", None)
    for sweep in paper_sweeps(preset, "reported", data=["beauty"], backbones=["mf"], losses=["w/o-quantile"]):
        (cell,) = planned(preset, "reported", sweep)
        assert {key: axis.choices for key, axis in cell.space.axes.items() if axis.open} == {
            "optim.lr": [0.1, 0.01, 0.001],
            "optim.weight_decay": [0.0001, 0.000001, 0.00000001],
        }
        assert cell.configurations[0][0].loss.params["tau"] == 0.1


def test_rows_of_one_loss_and_values_of_what_varies_have_sweeps_of_their_own():
    found = paper_sweeps(load("talos/table-4.1", None), "reported", data=["beauty"])
    assert [sweep.name for sweep in found] == [
        "talos-table-4.1-beauty-mf-w-o-quantile",
        "talos-table-4.1-beauty-mf-w-o-outside",
        "talos-table-4.1-beauty-mf-w-o-denominator",
        "talos-table-4.1-beauty-mf-talos",
        "talos-table-4.1-beauty-mf-sl",
        "talos-table-4.1-beauty-mf-psl",
    ]
    found = paper_sweeps(load("slatk/figure-7", None), "search", data=["health"])
    assert [sweep.name for sweep in found][:2] == [
        "slatk-figure-7-health-mf-tau_w-2-search",
        "slatk-figure-7-health-mf-tau_w-2.25-search",
    ]


def test_an_experiment_that_shows_others_trials_has_their_sweeps():
    names_of = [
        [s.name for s in paper_sweeps(load(f"talos/{n}", None), backbones=["mf"])] for n in ("table-D.2", "table-3.1")
    ]
    assert names_of[0] == names_of[1]


def test_a_row_is_one_sweep_and_a_loss_all_its_rows():
    preset = load("talos/table-4.1", None)
    rows = [
        [variant.row for sweep in paper_sweeps(preset, data=["beauty"], losses=[name]) for variant in sweep.variants]
        for name in ("Talos", "talos", "SL")
    ]
    assert rows == [["Talos"], ["w/o-quantile", "w/o-outside", "w/o-denominator", "Talos"], ["SL"]]


def test_all_rows_are_run_where_the_paper_has_no_numbers():
    preset = load("slatk/figure-1", None)
    rows = {d: [v.row for s in paper_sweeps(preset, data=[d]) for v in s.variants] for d in ("electronics", "health")}
    assert rows == {
        "electronics": ["SL", "SL@20", "LambdaLoss@20"],
        "health": ["SL", "SL@20", "SONG@20", "LambdaLoss@20"],
    }


def test_what_the_paper_does_not_have_is_run_where_it_is_named_alone():
    preset = load("slatk/table-2", None)
    place = {"data": ["health"], "backbones": ["mf"]}
    assert all(v.row != "Talos" for s in paper_sweeps(preset, **place) for v in s.variants)
    (sweep,) = paper_sweeps(preset, losses=["talos"], **place)
    assert sweep.name == "slatk-table-2-health-mf-talos"
    (cell,) = planned(preset, "reported", sweep)
    assert {key for key, axis in cell.space.axes.items() if axis.open} == {"optim.lr", "loss.tau"}


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("slatk/table-22", {}, r"unknown experiment 'slatk/table-22'; did you mean 'slatk/table-2'\?"),
        ("slatk/table-2", {"data": ["helath"]}, r"slatk/table-2: unknown data set 'helath'; did you mean 'health'\?"),
        ("slatk/table-2", {"backbones": ["mff"]}, "slatk/table-2: unknown backbone 'mff'; did you mean 'mf'"),
        ("slatk/table-2", {"losses": ["SL@21"]}, r"slatk/table-2: unknown loss 'SL@21'; .*SL@20"),
        ("talos/table-1.1", {}, "nothing is trained for it: 'recloss paper report talos/table-1.1' makes it"),
    ],
)  # fmt: skip
def test_a_wrong_name_is_refused_with_what_is_accepted(name, options, message):
    with pytest.raises(InputError, match=message):
        paper_sweeps(load(name, None), "reported", **options)


def test_data_that_are_missing_say_how_to_get_them():
    preset = load("slatk/table-17-18", None)
    sweep = paper_sweeps(preset, data=["food"])[0]
    with pytest.raises(
        InputError, match=r"data missing: food \(Food\); get Food of Tiny-Snow.*or name it by --raw food="
    ):
        sweep_settings(preset, sweep, hyper="reported", seeds=1, storage=RUNS, raw={})
