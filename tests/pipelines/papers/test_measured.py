"""From trials to lines: which seeds count, seconds as multiples, why nothing is measured."""

import pytest

from pipelines.papers.catalogue import load
from pipelines.papers.compare import Line
from pipelines.papers.measured import MeasuredCell, MeasuredExperiment, _cell
from pipelines.papers.order import orders
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
