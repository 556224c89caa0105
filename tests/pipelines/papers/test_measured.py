"""From trials to lines: which seeds count, seconds as multiples, why nothing is measured."""

from dataclasses import replace

import pytest

from pipelines.papers.catalogue import load
from pipelines.papers.compare import Line
from pipelines.papers.measured import MeasuredCell, MeasuredExperiment, _cell
from pipelines.papers.order import orders
from pipelines.papers.report import _over_epochs
from pipelines.papers.settled import _same
from pipelines.papers.sweeps import paper_sweeps
from pipelines.tracking import Results, Selection, TrialRun


def trial(loss, seed, *stages, status="FINISHED", error=None, tau="0.1", **metrics):
    named = {name.replace("__", "/"): value for name, value in metrics.items()}
    return TrialRun(
        hash=f"{loss}-{seed}-{tau}",
        data="beauty",
        fingerprint="f",
        backbone="mf",
        loss=loss,
        seed=seed,
        stages=stages,
        status=status,
        params={"loss.tau": tau, "seed": str(seed)},
        metrics=named if status == "FINISHED" else {},
        start=0.0,
        end=1.0,
        error=error,
    )


RUNNING = trial("talos", 0, "grid", tau="0.2", status="RUNNING")


def cell(*trials, selected="0.1"):
    (sweep,) = paper_sweeps(load("talos/table-3.1", None), data=["beauty"], backbones=["mf"], losses=["talos"])
    selections = {("beauty", "mf", "talos"): Selection((), "valid/ndcg_20", 0.1, {"loss.tau": selected})}
    results = Results("e", {"confirm_seeds": [0, 1, 2]}, trials, selections if selected else {}, {})
    return _cell(results, sweep, sweep.variants[0])


def test_only_confirmed_trials_of_the_selected_configuration_that_were_scored_count():
    found = cell(
        trial("talos", 1, "confirm", test__recall_20=0.2),
        trial("talos", 0, "grid", "confirm", test__recall_20=0.1),
        trial("talos", 2, "confirm", valid__recall_20=0.3),  # not scored on test yet
        trial("talos", 0, "grid", tau="0.2"),
        trial("talos", 1, "confirm", tau="0.2", test__recall_20=0.9),  # of an earlier selection
    )
    measured = found.measured("recall_20")
    assert (measured.seeds, measured.values) == ((0, 1), (0.1, 0.2))
    assert found.measured("ndcg_20") is None
    assert (found.seeds, found.missing) == (3, "")


@pytest.mark.parametrize(
    ("trials", "selected", "missing"),
    [
        ([], None, "not run"),
        ([trial("talos", 0, "grid"), RUNNING], None, "being searched, 1 trials done"),
        ([trial("talos", 0, "grid", status="FAILED", error="out of\nmemory")], None, "failed: out of memory"),
        ([trial("talos", 0, "grid")], "0.1", "selected, not confirmed yet"),
        ([trial("talos", 0, "grid"), trial("talos", 1, "confirm", status="FAILED", error="x")], "0.1", "failed: x"),
    ],
)  # fmt: skip
def test_why_nothing_is_measured(trials, selected, missing):
    found = cell(*trials, selected=selected)
    assert found.missing == missing
    assert found.measured("recall_20") is None


def timed(label, *seconds):
    preset = load("talos/table-F.1", None)
    sweeps = paper_sweeps(preset, data=["beauty"], losses=[*preset.run.rows])
    sweep, variant = next((s, v) for s in sweeps for v in s.variants if v.label == label)
    loss = variant.settings.loss
    trials = tuple(trial(loss, n, "confirm", epochs=10.0, seconds=10 * value) for n, value in enumerate(seconds))
    return MeasuredCell(sweep, variant, confirmed=trials, trials=trials, seeds=len(seconds))


def test_seconds_per_epoch_are_multiples_of_a_row_and_have_no_target():
    experiment = MeasuredExperiment(
        load("talos/table-F.1", None), "reported", (timed("SL", 1.0, 3.0), timed("Talos", 3.0), timed("BSL")), {}
    )
    lines = {line.row: line for line in experiment.lines}
    assert lines["SL"].measured.mean == 1.0
    assert lines["SL"].measured.values == (0.5, 1.5)
    assert lines["Talos"].measured.mean == 1.5
    assert lines["Talos"].reported == pytest.approx(0.54 / 0.42)
    assert lines["Talos"].within is None
    assert lines["BSL"].missing == "not measured"
    (order,) = orders(experiment, experiment.lines)
    assert [(pair.better.row, pair.worse.row, pair.agrees) for pair in order.pairs] == [("SL", "Talos", True)]


def test_without_the_row_that_seconds_are_relative_to_there_are_none():
    experiment = MeasuredExperiment(load("talos/table-F.1", None), "reported", (timed("Talos", 3.0),), {})
    assert [line.measured for line in experiment.lines] == [None]


def diagnosis(median, error=None):
    scores = {"quantile_levels": [0.0, 0.5, 1.0]} | {
        kind: {"quantiles": [-1.0, value, 1.0]} for kind, value in (("positive", median), ("negative", -median))
    }
    threshold = {} if error is None else {"threshold": {"mean_absolute_error": error}}
    return {"scores": scores, "gradient": {"positive": 0.5, "negative": None}} | threshold


def ablation():
    """Talos of table 4.1, of which the paper reports recall, on two seeds; the first has no diagnosis."""
    preset = load("talos/table-4.1", None)
    (sweep,) = paper_sweeps(preset, data=["beauty"], losses=["Talos"])
    done = tuple(trial("talos", seed, "confirm", test__recall_20=0.15) for seed in (0, 1, 2))
    diagnoses = {done[1].hash: diagnosis(0.2, 0.01), done[2].hash: diagnosis(0.4)}
    return MeasuredCell(sweep, sweep.variants[0], confirmed=done, trials=done, diagnoses=diagnoses, seeds=3)


def test_metrics_of_a_models_inside_are_shown_of_the_seeds_that_have_them():
    found = {m: ablation().measured(m) for m in ("positive_score", "negative_score", "threshold_error")}
    assert found["positive_score"].values == (0.2, 0.4)
    assert found["positive_score"].seeds == (1, 2)
    assert found["negative_score"].values == (-0.2, -0.4)
    assert found["threshold_error"].values == (0.01,)
    assert ablation().measured("positive_gradient_share").values == (0.5, 0.5)
    assert ablation().measured("negative_gradient_share") is None


def test_metrics_that_an_experiment_names_are_shown_without_a_reported_value():
    experiment = MeasuredExperiment(load("talos/table-4.1", None), "reported", (ablation(),), {})
    lines = {line.metric: line for line in experiment.lines}
    assert {"recall_20", "positive_score", "negative_score", "threshold_error"} <= lines.keys()
    assert (lines["threshold_error"].reported, lines["threshold_error"].difference) == (None, None)
    without = replace(ablation(), diagnoses={t.hash: diagnosis(0.2) for t in ablation().confirmed})
    experiment = MeasuredExperiment(load("talos/table-4.1", None), "reported", (without,), {})
    assert "threshold_error" not in {line.metric for line in experiment.lines}
    assert lines["recall_20"].within


def test_a_metric_of_the_training_is_shown_after_round_numbers_of_epochs_that_all_seeds_reached():
    cell = ablation()
    errors = [{5: 0.5, 10: 0.4, 15: 0.3}, {5: 0.3, 10: 0.2, 15: 0.3, 20: 0.1}, {5: 0.1, 10: 0.0, 15: 0.0, 20: 0.0}]
    histories = {t.hash: {"train/threshold_error": h} for t, h in zip(cell.confirmed, errors, strict=True)}
    experiment = MeasuredExperiment(load("talos/table-4.1", None), "reported", (cell,), {}, histories=histories)
    table = _over_epochs(experiment)[4:]
    assert [[text.strip() for text in line.strip("|").split("|")] for line in (table[0], table[2])] == [
        ["Data", "Backbone", "Loss", "5", "10", "15"],
        ["Beauty", "MF", "Talos", "0.3000", "0.2000", "0.2000"],
    ]


def test_rows_measured_with_other_settings_are_marked():
    (sweep,) = paper_sweeps(load("talos/table-3.1", None), data=["beauty"], backbones=["mf"], losses=["talos"])
    done = (trial("talos", 0, "confirm", test__recall_20=0.1499),)
    found = MeasuredCell(sweep, sweep.variants[0], confirmed=done, other={"loss.tau": ("0.2", "0.1")})
    experiment = MeasuredExperiment(load("talos/table-3.1", None), "reported", (found,), {})
    (line,) = (line for line in experiment.lines if line.metric == "recall_20")
    assert isinstance(line, Line)
    assert line.other
    assert line.within is None
    assert line.difference == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("text", "value", "same"),
    [("0.0", 0, True), ("1e-06", 0.000001, True), ("tanh", "tanh", True), ("tanh", "relu", False),
     ("True", True, True), ("1", True, False), ("0.1", 0.2, False), ("None", None, True)],
)  # fmt: skip
def test_recorded_texts_are_compared_by_value(text, value, same):
    assert _same(text, value) is same
