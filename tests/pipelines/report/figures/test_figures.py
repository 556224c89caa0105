"""Every number that a figure shows is read back from it and compared with the results it was drawn from."""

import json
import statistics
from dataclasses import replace
from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.report.figures import (
    FIGURES,
    curves,
    distributions,
    epoch_time,
    gradients,
    heat_map,
    k_by_k,
    metric_by_k,
    noise,
    pareto,
    read_evidence,
    style,
    svg_figures,
    tau,
    thresholds,
    write_figures,
)
from recloss.errors import InputError
from recloss.losses import LOSSES


def lines(figure, panel=0):
    """Points of the named lines of a panel, by name."""
    found = {line.get_gid(): line for line in figure.axes[panel].lines if line.get_gid()}
    return {name: list(zip(*map(list, line.get_data()), strict=True)) for name, line in found.items()}


def names_beside(axes):
    return [text.get_text() for text in axes.texts]


def confirm(sweep, data, backbone, loss, values, **more):
    """A selected configuration and its confirmations with these test values."""
    dotted = {key: value for key, value in more.items() if "__" in key}
    best = more.get("best", 0.5)
    run = sweep.trial(data, backbone, loss, metrics={"best": best}, cost=more.get("cost"), **dotted)
    sweep.select(run)
    trials = []
    for seed, value in zip((1, 2, 3), values, strict=False):
        metrics = {"test/ndcg_20": value, "best": best, **more.get("metrics", {})}
        trials.append(sweep.trial(data, backbone, loss, seed=seed, stage="confirm", metrics=metrics, **dotted))
    return trials


def search(sweep, loss, best, *, seed=0, **dotted):
    run = sweep.trial("ml-100k", "mf", loss, seed=seed, metrics={"best": best}, **dotted)
    return run


def test_metric_over_tau_takes_the_best_configuration_of_each_and_sls_best(new_sweep):
    sweep = new_sweep(seeds=[0, 5])
    for temperature, lr, values in ((0.1, 0.1, (0.2, 0.3)), (0.1, 0.01, (0.3, 0.4)), (0.2, 0.1, (0.1, 0.2))):
        for seed, value in zip((0, 5), values, strict=True):
            run = search(sweep, "talos", value, seed=seed, loss__tau=temperature, optim__lr=lr)
    sweep.select(run)
    search(sweep, "talos", 0.9, loss__tau=0.4)  # of two seeds one
    for seed, value in ((0, 0.31), (5, 0.33)):
        run = search(sweep, "sl", value, seed=seed, loss__tau=0.2)
    sweep.select(run)
    sweep.select(search(sweep, "bpr", 0.2))
    found = lines(figure := tau.draw(sweep.evidence()))
    assert found["talos"] == [(0.1, pytest.approx(0.35)), (0.2, pytest.approx(0.15))]
    assert found["sl"] == [(0.2, pytest.approx(0.32))]
    assert [y for _, y in found["SL's best"]] == [pytest.approx(0.32)] * 2
    assert "bpr" not in found
    assert names_beside(figure.axes[0]) == ["Talos", "SL", "best of SL"]
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == ["0.1", "0.2"]


def test_metric_over_tau_needs_two_temperatures_and_selection_by_its_metric(sweep):
    sweep.select(search(sweep, "talos", 0.3, loss__tau=0.1))
    assert tau.draw(sweep.evidence()) is None
    search(sweep, "talos", 0.2, loss__tau=0.2)
    assert tau.draw(sweep.evidence()) is not None
    name = "ml-100k", "mf", "talos"
    sweep.selections[name] = replace(sweep.selections[name], metric="valid/recall_20")
    confirm(sweep, "ml-100k", "mf", "bpr", [])
    confirm(sweep, "ml-100k", "mf", "sl", [])
    assert tau.draw(sweep.evidence()) is None


def test_metric_against_k_is_the_mean_over_all_confirmation_seeds(sweep):
    for loss, seeds in (("talos", 3), ("sl", 2)):
        trials = confirm(sweep, "ml-100k", "mf", loss, [0.1, 0.2, 0.6][:seeds], protocol__cutoffs=[5, 20])
        for place, trial in enumerate(trials):
            trial.metrics["test/ndcg_5"] = 0.1 * place
    assert lines(metric_by_k.draw(sweep.evidence())) == {"talos": [(5, pytest.approx(0.1)), (20, pytest.approx(0.3))]}
    for trial in sweep.trials:
        trial.metrics.pop("test/ndcg_5", None)
    assert metric_by_k.draw(sweep.evidence()) is None


def test_k_against_k_by_hand(new_sweep):
    sweep = new_sweep(losses=("talos",))
    for k, at_5, at_20 in ((5, 0.4, 0.2), (20, 0.3, 0.25)):
        run = search(sweep, "talos", at_20, loss__k=k, protocol__cutoffs=[5, 20])
        run.metrics["best_epoch"] = 10.0
        history = {"valid/ndcg_5": {10: at_5, 15: 0.9}, "valid/ndcg_20": {10: at_20, 15: 0.9}}
        sweep.histories[run.hash] = history
        search(sweep, "talos", at_20 - 0.1, loss__k=k, optim__lr=0.5, protocol__cutoffs=[5, 20])
    sweep.select(run)
    evidence = sweep.evidence()
    [cell] = evidence.panels["ml-100k", "mf"]
    assert k_by_k.table(evidence, cell) == {5: {5: 1.0, 20: pytest.approx(0.8)}, 20: {5: pytest.approx(0.75), 20: 1.0}}
    [axes] = k_by_k.draw(evidence).axes
    assert [text.get_text() for text in axes.texts] == ["100.0", "80.0", "75.0", "100.0"]
    assert [text.get_weight() for text in axes.texts] == ["bold", "normal", "normal", "bold"]
    sweep.histories.clear()
    assert k_by_k.draw(sweep.evidence()) is None


def desorec_grid(sweep, seeds=(0,), missing=()):
    """A grid of 3 x 2 values, each with two learning rates, the first one better by 0.1; (0.3, 0.7) is selected."""
    for softness in (0.0, 0.3, 1.0):
        for weight in (0.5, 0.7):
            for lr, bonus in ((0.01, 0.1), (0.001, 0.0)):
                for seed in seeds:
                    if (softness, weight) in missing:
                        continue
                    best = 0.1 + 0.1 * softness * (1 - softness) + 0.2 * weight + bonus + 0.01 * seed
                    point = {"loss__conf_softness": softness, "loss__conf_weight": weight, "optim__lr": lr}
                    run = search(sweep, "desorec", best, seed=seed, **point)
                    if (softness, weight, lr) == (0.3, 0.7, 0.01):
                        sweep.select(run)


def test_heat_map_has_the_best_of_the_other_settings_and_frames_the_selected_pair(new_sweep):
    sweep = new_sweep(losses=("desorec",), seeds=[0, 2])
    desorec_grid(sweep, seeds=(0, 2), missing=[(1.0, 0.5)])
    search(sweep, "desorec", 0.9, loss__conf_softness=1.0, loss__conf_weight=0.5)  # of two seeds one
    [axes] = heat_map.draw(sweep.evidence()).axes
    shown = {(t.get_position()[1], t.get_position()[0]): t for t in axes.texts}
    expected = {(0, 0): 0.31, (0, 1): 0.35, (1, 0): 0.331, (1, 1): 0.371, (2, 1): 0.35}
    assert {place: text.get_text() for place, text in shown.items()} == {p: f"{v:.4f}" for p, v in expected.items()}
    assert [place for place, text in shown.items() if text.get_weight() == "bold"] == [(1, 1)]
    [frame] = axes.patches
    assert (frame.get_x(), frame.get_y(), frame.get_width(), frame.get_height()) == (0.5, 0.5, 1, 1)
    numbers = axes.images[0].get_array()
    assert [[None if np.ma.is_masked(v) else round(float(v), 4) for v in row] for row in numbers] == [
        [0.31, 0.35], [0.331, 0.371], [None, 0.35],
    ]  # fmt: skip
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("conf_weight", "conf_softness")
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0.5", "0.7"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["0", "0.3", "1"]
    assert axes.images[0].origin == "upper", "the first row is the uppermost"


def test_heat_map_of_soft_labels_where_the_loss_has_no_grid(new_sweep):
    sweep = new_sweep(losses=("desorec",), task="sequence", backbones=("gru4rec",), data=("diginetica",))
    values = {(4, 0.0): 0.3, (4, 1.0): 0.1, (16, 0.0): 0.4, (16, 1.0): 0.2}
    for (clusters, reassigned), best in values.items():
        point = {"soft_labels__clusters": clusters, "soft_labels__reassigned": reassigned}
        run = sweep.trial("diginetica", "gru4rec", "desorec", metrics={"best": best}, **point)
        if best == 0.4:
            sweep.select(run)
    [axes] = heat_map.draw(sweep.evidence()).axes
    assert [text.get_text() for text in axes.texts] == ["0.3000", "0.1000", "0.4000", "0.2000"]
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("clusters", "reassigned")


def test_heat_map_needs_a_grid_of_two_numbers(new_sweep):
    def drawn(losses=("desorec", "sl", "slatk"), **more):
        sweep = new_sweep(losses=losses, **more)
        desorec_grid(sweep)
        return sweep

    assert heat_map.draw(drawn().evidence()) is not None
    third = drawn()
    search(third, "desorec", 0.1, loss__conf_softness=0.3, loss__conf_weight=0.7, loss__nontarget_weight=1.0)
    assert heat_map.draw(third.evidence()) is None
    one, sparse, words = (new_sweep(losses=("sl", "slatk")) for _ in range(3))
    for temperature, reduce in ((0.1, "sum"), (0.2, "mean")):
        one.select(search(one, "sl", 0.3, loss__tau=temperature))
        words.select(search(words, "sl", 0.3, loss__tau=temperature, loss__reduce=reduce))
    assert heat_map.draw(one.evidence()) is None
    assert heat_map.draw(words.evidence()) is None
    for number in range(5):  # random points
        point = {"loss__tau": 0.1 + number / 50, "loss__tau_weight": 1 + number / 10}
        sparse.select(search(sparse, "slatk", 0.3, **point))
    assert heat_map.draw(sparse.evidence()) is None
    other = drawn()
    name = "ml-100k", "mf", "desorec"
    other.selections[name] = replace(other.selections[name], metric="valid/recall_20")
    for loss in ("sl", "slatk"):
        confirm(other, "ml-100k", "mf", loss, [])
    assert heat_map.draw(other.evidence()) is None


def test_learning_curves_end_where_the_first_seed_stopped(sweep):
    trials = confirm(sweep, "ml-100k", "mf", "talos", [0.1, 0.2, 0.3])
    for place, trial in enumerate(trials):
        curve = {epoch: 0.01 * epoch + 0.1 * place**2 for epoch in range(5, 20 - 5 * (place == 2), 5)}
        sweep.histories[trial.hash] = {"valid/ndcg_20": curve, "train/threshold": {5: 0.5, 10: 0.6 + place}}
    figure = curves.draw(sweep.evidence())
    of_metric, of_threshold = lines(figure, 0), lines(figure, 1)
    assert of_metric == {"talos": [(5, pytest.approx(0.05 + 0.5 / 3)), (10, pytest.approx(0.1 + 0.5 / 3))]}
    assert of_threshold == {"talos": [(5, pytest.approx(0.5)), (10, pytest.approx(1.6))]}
    band = figure.axes[0].collections[0].get_paths()[0].vertices
    assert (band[:, 1].min(), band[:, 1].max()) == (pytest.approx(0.05), pytest.approx(0.5))
    assert [axes.get_ylabel() for axes in figure.axes] == ["validation NDCG@20", "mean threshold (score)"]
    assert curves.draw(replace(sweep.evidence(), histories={})) is None


def test_gradient_shares_are_means_over_the_seeds_that_have_one(sweep, diagnosis):
    trials = confirm(sweep, "ml-100k", "mf", "talos", [0.1, 0.2, 0.3])
    for trial, share in zip(trials, (0.1, 0.2, None), strict=True):
        told = diagnosis(np.random.default_rng(0))
        sweep.diagnostics[trial.hash] = told | {"gradient": {"top": 0.05, "negative": share, "positive": 0.05}}
    figure = gradients.draw(sweep.evidence())
    assert lines(figure) == {"negative talos": [(pytest.approx(15), 0)], "positive talos": [(pytest.approx(5), 0)]}
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["Talos"]
    assert gradients.draw(replace(sweep.evidence(), diagnostics={})) is None


def test_distributions_and_thresholds_show_the_counts_of_the_first_seed(sweep, diagnosis):
    trials = confirm(sweep, "ml-100k", "mf", "talos", [0.1, 0.2, 0.3])
    rng = np.random.default_rng(1)
    for trial in trials:
        sweep.diagnostics[trial.hash] = diagnosis(rng)
    told = sweep.diagnostics[trials[0].hash]
    [axes] = distributions.draw(sweep.evidence()).axes
    negative, positive, exact, estimated = (patch.get_data() for patch in axes.patches)
    for drawn, kind in ((negative, "negative"), (positive, "positive")):
        counts, edges = np.array(told["scores"][kind]["counts"]), np.array(told["scores"]["edges"])
        np.testing.assert_allclose(drawn.values, counts / counts.sum() / np.diff(edges))
        assert (drawn.values * np.diff(drawn.edges)).sum() == pytest.approx(1)
    joint = np.array(told["threshold"]["joint"])
    for drawn, marginal in ((exact, joint.sum(0)), (estimated, joint.sum(1))):
        merged = marginal[::2] + marginal[1::2]
        np.testing.assert_allclose(drawn.values / drawn.values.max(), merged / merged.max())
        np.testing.assert_allclose(drawn.edges, told["threshold"]["edges"][::2])
    [axes] = thresholds.draw(sweep.evidence()).axes
    assert (np.nan_to_num(axes.images[0].get_array().filled(0)) == joint.T).all()
    error = told["threshold"]["mean_absolute_error"]
    assert axes.get_title().splitlines()[1] == f"r = {told['threshold']['correlation']:.2f}, MAE = {error:.3f}"
    assert axes.get_xlabel().startswith("estimated")
    for trial in trials:
        del sweep.diagnostics[trial.hash]["threshold"]
    assert thresholds.draw(sweep.evidence()) is None
    assert distributions.draw(replace(sweep.evidence(), diagnostics={})) is None


def test_noise_joins_data_that_differ_in_nothing_but_the_ratio(new_sweep):
    names = ("clean", "some", "more", "other-seed", "other-core")
    sweep = new_sweep(names, losses=("sl",))
    noisy = {"kind": "false_positives"}
    for name, settings in zip(names, (
        {}, {"noise": noisy | {"ratio": 0.1}}, {"noise": noisy | {"ratio": 0.3}},
        {"noise": noisy | {"ratio": 0.2, "seed": 7}}, {"k_core": 5, "noise": noisy | {"ratio": 0.2}},
    ), strict=True):  # fmt: skip
        sweep.manifest(name, **settings)
    for value, name in enumerate(names):
        confirm(sweep, name, "mf", "sl", [0.1 * value] * 3)
    before = json.dumps(sweep.manifests)
    figure = noise.draw(sweep.evidence())
    assert lines(figure, 0) == {"sl": [(0.0, 0.0), (0.1, pytest.approx(0.1)), (0.3, pytest.approx(0.2))]}
    assert lines(figure, 1) == {"sl": [(0.0, 0.0), (0.2, pytest.approx(0.3))]}
    assert len(figure.axes) == 2
    assert json.dumps(sweep.manifests) == before
    sweep.manifests.clear()
    assert noise.draw(sweep.evidence()) is None


def test_quality_against_cost(sweep):
    for loss, value, cost in (("bpr", 0.1, 3600), ("sl", 0.3, 7200), ("talos", 0.2, 10800)):
        confirm(sweep, "ml-100k", "mf", loss, [value] * 3, cost=cost)
    found = lines(figure := pareto.draw(sweep.evidence()))
    assert found == {
        "front": [(1.0, pytest.approx(0.1)), (2.0, pytest.approx(0.3))],
        "bpr": [(1.0, pytest.approx(0.1))],
        "sl": [(2.0, pytest.approx(0.3))],
        "talos": [(3.0, pytest.approx(0.2))],
    }
    filled = {line.get_gid(): line.get_markerfacecolor() != "white" for line in figure.axes[0].lines}
    assert (filled["bpr"], filled["sl"], filled["talos"]) == (True, True, False)
    sweep.trials = [replace(trial, cost={}) for trial in sweep.trials]
    assert pareto.draw(sweep.evidence()) is None


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 6), st.none()), max_size=12))
def test_the_front_holds_exactly_the_values_that_nothing_beats(points):
    def beaten(one):
        return any(other[0] <= one[0] and other[1] >= one[1] and other[:2] != one[:2] for other in points)

    front = pareto.front(points)
    assert front == sorted({point for point in points if not beaten(point)}, key=lambda point: point[0])


def test_epoch_time_is_the_median_by_number_of_items(new_sweep):
    sweep = new_sweep(("small", "large"), losses=("sl", "bpr"))
    for name, items, seconds in (("large", 4000, (40, 80, 60)), ("small", 1000, (10, 30, 20))):
        sweep.manifest(name, items=items)
        trials = confirm(sweep, name, "mf", "sl", [0.1] * 3)
        for trial, spent in zip(trials, seconds, strict=True):
            trial.metrics.update(seconds=float(spent), epochs=10.0)
    assert lines(epoch_time.draw(sweep.evidence())) == {"sl": [(1000, 2.0), (4000, 6.0)]}
    sweep.manifest("large", items=1000)
    assert epoch_time.draw(sweep.evidence()) is None


def test_an_empty_sweep_has_no_figure(sweep):
    assert svg_figures(sweep.evidence()) == {}


def test_of_many_losses_the_best_are_told_apart_and_all_are_named(new_sweep):
    sweep = new_sweep(losses=tuple(LOSSES))
    for number, loss in enumerate(LOSSES):
        confirm(sweep, "ml-100k", "mf", loss, [0.01 * number] * 3, metrics={"test/ndcg_5": 0.001 * number})
    evidence = sweep.evidence()
    assert [loss for loss, look in style.looks(evidence).items() if look] == list(LOSSES)[-8:]
    assert len({(look.color, str(look.line), look.marker) for look in style.looks(evidence).values() if look}) == 8
    [axes] = metric_by_k.draw(evidence).axes
    assert sorted(names_beside(axes)) == sorted(loss.title for loss in LOSSES.values())
    inches = axes.bbox.height / axes.figure.dpi
    heights = sorted(text.get_position()[1] * inches for text in axes.texts)
    assert min(b - a for a, b in pairwise(heights)) > 1.2 * (style.FONT - 1) / 72
    assert "eight" not in FIGURES["metric_by_k"].caption
    assert "the 8 losses with the best mean rank" in svg_figures(evidence)["metric_by_k"][1]


@pytest.fixture(scope="module")
def small(realistic):
    return realistic(("ml-100k", "health"), ("mf",), ("bpr", "sl", "talos")).evidence()


@pytest.fixture(scope="module")
def drawn(small):
    return svg_figures(small)


def test_every_figure_is_drawn_and_told_in_words(drawn):
    assert list(drawn) == list(FIGURES)
    for title, caption, svg in drawn.values():
        assert title
        assert caption.endswith(".")
        assert "{" not in caption
        assert "1, 2, 3" in caption or "seeds 0" in caption
        assert svg.startswith("<svg")
        ElementTree.fromstring(svg)


def test_the_same_evidence_gives_the_same_bytes(small, drawn):
    assert svg_figures(small) == drawn


def test_files_are_written_with_the_svg_of_the_page(small, drawn, tmp_path):
    files = write_figures(small, tmp_path)
    assert [file.relative_to(tmp_path).as_posix() for file in files] == [
        f"figures/{name}.{suffix}" for name in drawn for suffix in ("png", "svg")
    ]
    assert sorted((tmp_path / "figures").iterdir()) == sorted(files)
    for file in files:
        if file.suffix == ".svg":
            assert file.read_text(encoding="utf-8").endswith(drawn[file.stem][2])
            assert "dc:date" not in file.read_text(encoding="utf-8")
        else:
            assert file.read_bytes().startswith(b"\x89PNG")


def test_a_folder_that_cannot_be_made_is_named(tmp_path, sweep):
    (tmp_path / "figures").write_text("in the way")
    with pytest.raises(InputError, match="figures: the figures cannot be written"):
        write_figures(sweep.evidence(), tmp_path)


@pytest.mark.parametrize(
    "name",
    ["<b>|$\\alpha$ _x_", "${}^ & </svg><script>alert(1)</script>", "]]> \" onload='x' %s {metric} \\", "日本語"],
)
def test_hostile_names_are_text(name, realistic):
    sweep = realistic(("ml-100k",), ("mf",), ("sl", "talos"))
    sweep.settings["data"][0]["name"] = name
    sweep.trials = [replace(trial, data=name) for trial in sweep.trials]
    sweep.selections = {(name, *key[1:]): value for key, value in sweep.selections.items()}
    found = svg_figures(sweep.evidence())
    assert {"tau", "curves", "thresholds", "pareto"} <= set(found)
    for _, _, svg in found.values():
        root = ElementTree.fromstring(svg)
        assert not [element for element in root.iter() if element.tag.endswith("script")]
        assert not [key for element in root.iter() for key in element.attrib if key.startswith("on")]
    texts = [
        element.text for element in ElementTree.fromstring(found["curves"][2]).iter() if element.tag.endswith("text")
    ]
    assert style.name(name, style.TITLE_LENGTH) + ", MF" in texts


def test_means_are_over_finished_and_complete_confirmations_on_the_panels_data(sweep):
    confirm(sweep, "ml-100k", "mf", "sl", [0.1, 0.2, 0.6])
    confirm(sweep, "ml-100k", "mf", "bpr", [0.1, 0.2])
    evidence = sweep.evidence()
    bpr, sl, talos = evidence.panels["ml-100k", "mf"]
    assert evidence.tested(sl, "ndcg_20") == statistics.fmean([0.1, 0.2, 0.6])
    assert evidence.tested(sl, "ndcg_50") is None
    assert evidence.tested(bpr, "ndcg_20") is None
    assert evidence.tested(talos, "ndcg_20") is None


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ([0.0002, 0.05], ["0.0003", "0.001", "0.003", "0.01", "0.03"]),
        ([0.0001, 0.1], ["0.0001", "0.001", "0.01", "0.1"]),
        ([1, 12], ["1", "2", "5", "10"]),
    ],
)
def test_ticks_of_a_logarithmic_axis_are_fewer_where_it_spans_more(values, wanted):
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    axes.plot(values, [0, 1])
    style.plain_log(axes.xaxis)
    axes.set_xlim(*values)
    shown = [tick.get_text() for tick in axes.get_xticklabels() if values[0] <= tick.get_position()[0] <= values[1]]
    assert shown == wanted


def test_damaged_diagnostics_are_left_out_and_told(sweep, monkeypatch, caplog):
    first, *others = confirm(sweep, "ml-100k", "mf", "sl", [0.1, 0.2, 0.3])
    good = dict.fromkeys([trial.hash for trial in others], b"{}")
    monkeypatch.setattr("pipelines.report.figures.evidence.read_histories", lambda *arguments: {})
    raw = {first.hash: b"{cut", **good}
    monkeypatch.setattr("pipelines.tracking.artifacts.read_artifacts", lambda *arguments: raw)
    found = read_evidence("sqlite:///none.db", sweep.evidence().results)
    assert found.diagnostics == {trial: {} for trial in good}
    assert f"trial {first.hash}: its diagnostics.json is damaged and left out" in caplog.text
