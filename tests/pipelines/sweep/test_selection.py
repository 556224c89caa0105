"""What a trial reached by an epoch, and which configuration is selected."""

from pathlib import Path

import pytest

from pipelines.search.cell import Cell
from pipelines.search.space import Space
from pipelines.settings import make_trial
from pipelines.sweep.selection import Standing, failed, reached, select
from pipelines.train import journal

TRIAL = make_trial("f", "mf", "bpr", {})
CELL = Cell("d", "mf", "bpr", "f", "here", Space.of({}, "here"), seeds=(0,))


def happened(folder: Path, *events) -> Path:
    (folder / TRIAL.hash).mkdir()
    journal.rewrite(folder / TRIAL.hash, [{"time": 0.0, **event} for event in ({"event": "start"}, *events)])
    return folder


def valid(epoch, value):
    return {"event": "valid", "epoch": epoch, "metrics": {"valid/ndcg_20": value, "valid/recall_20": 1 - value}}


FINISH = {"event": "finish", "best_epoch": 10, "best": 0.4, "epochs": 15}
FAIL = {"event": "fail", "kind": "diverged", "error": "x"}
CURVE = (valid(5, 0.3), valid(10, 0.4), valid(15, 0.35))


@pytest.mark.parametrize(("until", "value"), [(None, 0.4), (5, 0.3), (10, 0.4), (15, 0.4), (100, 0.4)])
def test_a_finished_trial_is_judged_by_its_best_up_to_the_epoch(until, value, tmp_path):
    assert reached(TRIAL, happened(tmp_path, *CURVE, FINISH, {"event": "test", "metrics": {}}), until) == value


@pytest.mark.parametrize(("until", "value"), [(None, None), (5, 0.3), (15, 0.4), (20, None)])
def test_a_trial_that_is_not_finished_has_a_value_as_far_as_it_got(until, value, tmp_path):
    assert reached(TRIAL, happened(tmp_path, *CURVE, {"event": "prune"}), until) == value


def test_a_trial_that_has_not_begun_has_reached_nothing(tmp_path):
    assert reached(TRIAL, tmp_path, None) is None
    assert reached(TRIAL, tmp_path, 5) is None
    assert not failed(TRIAL, tmp_path)


def test_a_failure_counts_unless_the_training_had_finished(tmp_path):
    folders = [tmp_path / name for name in ("failed", "scoring failed", "went on")]
    for folder in folders:
        folder.mkdir()
    assert failed(TRIAL, happened(folders[0], valid(5, 0.3), FAIL))
    assert not failed(TRIAL, happened(folders[1], *CURVE, FINISH, FAIL)), "only its test scoring failed"
    assert not failed(TRIAL, happened(folders[2], valid(5, 0.3)))


def test_the_best_of_those_that_got_furthest_is_selected_the_earlier_of_equals():
    def selected(*standings):
        trials = [(TRIAL.model_copy(update={"seed": seed}),) for seed in range(len(standings))]
        choice = select(CELL, [Standing(t, *standing) for t, standing in zip(trials, standings, strict=True)])
        return None if choice is None else (choice.trials[0].seed, choice.value)

    assert selected((0, 0.1), (0, 0.3), (0, 0.2)) == (1, 0.3)
    assert selected((0, 0.3), (0, 0.3)) == (0, 0.3)
    assert selected((1, 0.2), (0, 0.9), ()) == (0, 0.2)
    assert selected((), (0, 0.0)) == (1, 0.0)
    assert selected((), ()) is None
    assert selected() is None
