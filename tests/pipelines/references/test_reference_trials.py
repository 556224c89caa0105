"""References as trials: identity, refusals, plans, one in its folder, and a sweep of them beside a loss."""

import json
import math

import pyarrow.parquet as pq
import pytest
import torch
from rich.console import Console

from pipelines.commands import run
from pipelines.prepare import load
from pipelines.references import REFERENCES, build
from pipelines.report.cells import sweep_cells
from pipelines.search.edges import edge_warnings
from pipelines.settings import (
    OptimSettings,
    ResourceSettings,
    SweepSettings,
    TrainSettings,
    dotted_names,
    make_reference_trial,
    make_trial,
    parse,
)
from pipelines.sweep.plan import plan
from pipelines.sweep.run import run_sweep
from pipelines.sweep.status import tallies
from pipelines.tracking import read_results
from pipelines.train import journal
from pipelines.train.folder import MODEL, TEST_USERS, status
from pipelines.train.mapped import interactions
from pipelines.train.scoring import score_test
from pipelines.train.trial import train_trial
from recloss.errors import InputError
from recloss.evaluation import evaluate_scores

PROTOCOL = {"protocol.cutoffs": [5], "protocol.metric": "ndcg_5"}
BEYOND = ("novelty", "recall_head", "recall_mid", "recall_tail", "coverage", "gini")


def reference(name="ease", dotted=PROTOCOL, seed=0, data="f" * 64, where="--set"):
    return make_reference_trial(data, name, dotted, seed=seed, where=where)


def test_the_identity_of_a_reference_is_what_has_an_effect_on_it():
    assert reference().hash == "b6099ad9bc9ff29d"
    assert reference(dotted=PROTOCOL | {"reference.l2": "5e2"}).hash == reference().hash, "500 is the default"
    assert reference(dotted=PROTOCOL | {"reference.l2": 5}).hash != reference().hash
    others = [reference(seed=1), reference(data="0" * 64), reference("mostpop"), reference(dotted={})]
    assert len({trial.hash for trial in [reference(), *others]}) == 5
    elsewhere = {"train": TrainSettings(epochs=9), "optim": OptimSettings(lr=5)}
    assert reference().model_copy(update=elsewhere).hash == reference().hash


def test_flat_names_the_settings_of_the_reference_and_of_nothing_else():
    assert reference(dotted={"reference.l2": 3}, seed=4).flat() == {
        "data": "f" * 64,
        "task": "reference",
        "seed": 4,
        "backbone": "reference",
        "loss": "ease",
        "reference.l2": 3.0,
        "protocol.metric": "ndcg_20",
        "protocol.cutoffs": [20],
        "protocol.mask_valid": False,
        "protocol.ties": "item-hash",
        "result_version": 1,
    }


@pytest.mark.parametrize(
    ("dotted", "message"),
    [
        ({"optim.lr": 0.1}, r"here: optim\.lr has no effect on the reference 'ease' \(accepted: reference\.l2, proto"),
        ({"train.epochs": 3}, r"train\.epochs has no effect on the reference 'ease'"),
        ({"sampler": "uniform"}, r"sampler has no effect on the reference 'ease'"),
        ({"backbone.dim": 8}, r"backbone\.dim has no effect on the reference 'ease'"),
        ({"loss.tau": 8}, r"loss\.tau has no effect on the reference 'ease'"),
        (
            {"reference.l1": 1},
            r"unknown setting of the reference 'ease': 'reference\.l1'; did you mean 'reference\.l2'",
        ),
        ({"reference.l2": -1}, r"here: reference 'ease': l2 must be a number above 0, got -1"),
        ({"reference.l2": "much"}, r"here: reference: l2: .*number.*'much'"),
        ({"protocol.metric": "ndcg_7"}, r"protocol\.metric 'ndcg_7' is not among the measured"),
    ],
)
def test_what_a_reference_does_not_take_is_refused(dotted, message):
    with pytest.raises(InputError, match=message):
        reference(dotted=dotted, where="here")


RAW = {
    "name": "s",
    "data": [{"name": "a", "path": "x"}, {"name": "b", "path": "y"}],
    "backbones": {"mf": None},
    "losses": {"sl": {"optim.lr": 0.1, "optim.weight_decay": 0, "loss.tau": [0.1, 0.2]}},
    "references": {"mostpop": None, "ease": {"reference.l2": [1, 10, 100]}},
    "settings": {"train.epochs": 7, "optim.lr": [0.1, 0.2], "sampler": "popularity", **PROTOCOL},
    "seeds": [0, 1],
}


def cells(spaces=None, **change):
    return plan(parse(SweepSettings, RAW | change, "s"), {"a": "A", "b": "B"}, spaces)


def test_a_reference_is_a_cell_of_each_data_set_with_the_shared_protocol_alone():
    found = cells()
    assert [cell.name for cell in found] == [
        f"{data} | {rest}" for data in "ab" for rest in ("reference | mostpop", "reference | ease", "mf | sl")
    ]
    ease = found[1]
    assert [(t.loss.params["l2"], t.seed) for t in ease.grid] == [(l2, seed) for l2 in (1, 10, 100) for seed in (0, 1)]
    assert {t.protocol.cutoffs for t in ease.grid} == {(5,)}
    assert {t.data for t in found[4].grid} == {"B"}


def test_an_equal_budget_is_one_of_the_losses():
    wide = {"sl": {"optim.lr": [0.1, 0.2], "optim.weight_decay": 0, "loss.tau": [0.1, 0.2]}}
    sizes = {cell.loss: cell.size for cell in cells(budget={"equal": True}, losses=wide)}
    assert sizes == {"mostpop": 1, "ease": 3, "sl": 4}
    sizes = {cell.loss: cell.size for cell in cells(budget={"equal": True, "trials_per_cell": 2}, losses=wide)}
    assert sizes == {"mostpop": 1, "ease": 2, "sl": 2}


def test_a_selected_value_on_the_edge_of_its_grid_is_told():
    ease = cells()[1]
    assert edge_warnings(ease, ease.grid[-1]) == ["ease: reference.l2: [1, 10, 100]  ->  add 1000"]
    assert edge_warnings(ease, ease.grid[2]) == []


@pytest.mark.parametrize("method", ["random", "tpe"])
def test_other_searches_find_references_too(method):
    ranges = {"mostpop": None, "ease": {"reference.l2": {"low": 1, "high": 1000.0, "log": True}}}
    found = cells(search={"method": method, "trials": 4}, references=ranges)
    assert {cell.loss: cell.size for cell in found[:2]} == {"mostpop": 1, "ease": 4}
    assert found[0].notes == ()


def test_a_folder_of_ones_own_overrides_the_packaged_space_of_a_reference(tmp_path):
    (tmp_path / "references").mkdir()
    (tmp_path / "references" / "ease.yaml").write_text("source: mine\nspace: {reference.l2: [7]}\n")
    found = cells(tmp_path, references={"ease": None})
    assert [trial.loss.params["l2"] for trial in found[0].configurations[0]] == [7, 7]


@pytest.mark.parametrize("name", REFERENCES)
def test_the_packaged_space_of_every_reference_plans(name):
    (cell,) = [cell for cell in cells(references={name: None}, data=RAW["data"][:1]) if cell.loss == name]
    assert cell.size <= 24
    assert set(cell.grid[0].flat()) >= {f"reference.{key}" for key in cell.grid[0].loss.params}


def test_references_of_a_sweep_are_checked():
    with pytest.raises(InputError, match="unknown reference 'eaze'; did you mean 'ease'"):
        cells(references={"eaze": None})
    with pytest.raises(InputError, match=r"sweep s, reference ease: optim\.lr has no effect on the reference 'ease'"):
        cells(references={"ease": {"optim.lr": 0.1}})
    assert parse(SweepSettings, RAW | {"baselines": ["ease", "sl"]}, "s").baselines == ("ease", "sl")


def test_one_reference_outside_a_sweep(prepared, tmp_path, capsys):
    command = [
        "train",
        "--data",
        str(prepared),
        "--storage",
        str(tmp_path),
        "--backbone",
        "reference",
        "--loss",
        "ease",
    ]
    protocol = ["--set", "protocol.cutoffs=[5]", "--set", "protocol.metric=ndcg_5"]
    assert run([*command, *protocol, "--set", "reference.l2=30", "--workers", "2", "--test"]) == 0
    printed = capsys.readouterr().out
    assert "best epoch 1: valid ndcg_5 0." in printed
    assert "test/coverage_5 0." in printed
    assert "loss nan" not in printed
    assert run([*command, "--set", "optim.lr=30"]) == 2
    assert "--set: optim.lr has no effect on the reference 'ease'" in capsys.readouterr().err


def ignore(validation):
    pass


def test_a_reference_in_its_folder_is_a_finished_trial(prepared, tmp_path):
    fingerprint = load(prepared).fingerprint
    train, valid, test = (interactions(prepared, fingerprint, split) for split in ("train", "valid", "test"))
    trial = reference("itemknn", data=fingerprint)
    said = []
    train_trial(trial, prepared, tmp_path, ResourceSettings(), said.append)
    assert status(tmp_path) == "finished"
    start, validation, finish = journal.read(tmp_path)
    assert (start["event"], validation["event"], finish["event"]) == ("start", "valid", "finish")
    assert "train/loss" not in validation["metrics"]
    assert finish["best"] == validation["metrics"]["valid/ndcg_5"] == said[0].metrics["ndcg_5"]
    assert (validation["epoch"], finish["best_epoch"], finish["epochs"]) == (1, 1, 1)
    assert finish["cost"]["cpu_seconds"] > 0

    state = torch.load(tmp_path / MODEL, weights_only=True)["reference"]
    score = build("itemknn", trial.loss.params).scorer(train, state)
    assert finish["best"] == evaluate_scores(score, valid, [train], [5]).mean()["ndcg_5"]
    expected = evaluate_scores(score, test, [train], [5], popularity=train)
    measured = score_test(trial, prepared, tmp_path)
    assert measured == {f"test/{name}": value for name, value in expected.mean().items()}
    assert {f"test/{name}_5" for name in BEYOND} <= measured.keys()
    assert score_test(trial, prepared, tmp_path) == measured

    table = pq.read_table(tmp_path / TEST_USERS)
    assert table.column_names == ["user", *expected.values]
    tail = table["recall_tail_5"].to_pylist()
    assert None in tail
    assert tail == [None if math.isnan(value) else value for value in expected.values["recall_tail_5"].tolist()]
    assert table["ndcg_5"].null_count == 0


def test_a_failure_of_a_reference_is_in_its_journal(prepared, tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.references.ease.MAX_ITEMS", 10)
    trial = reference(data=load(prepared).fingerprint)
    with pytest.raises(InputError, match="EASE inverts"):
        train_trial(trial, prepared, tmp_path, ResourceSettings(), ignore)
    last = journal.read(tmp_path)[-1]
    assert (last["event"], last["kind"]) == ("fail", "error")
    assert last["error"].startswith("InputError: EASE inverts a matrix of items by items")
    assert status(tmp_path) == "cut off"
    monkeypatch.undo()
    train_trial(trial, prepared, tmp_path, ResourceSettings(), ignore)
    assert status(tmp_path) == "finished"
    assert [failure["kind"] for failure in journal.read(tmp_path)[0]["failures"]] == ["error"]


def test_a_sweep_fits_references_beside_a_loss_and_again_fits_nothing(prepared, tmp_path, ray_local):
    training = {"train.epochs": 2, "train.valid_every": 1, "train.negatives": 6, "train.batch_size": 64}
    raw = {
        "name": "toy",
        "data": [{"name": "toy", "path": str(prepared)}],
        "backbones": {"mf": {"backbone.dim": 8}},
        "losses": {"sl": {"optim.lr": 0.1, "optim.weight_decay": 0, "loss.tau": 0.2}},
        "references": {
            "mostpop": None,
            "itemknn": {"reference.neighbours": [5, 20], "reference.weighting": "cosine"},
            "ease": {"reference.l2": [1, 100]},
            "ials": {"reference.factors": 4, "reference.regularization": 0.1, "reference.alpha": 5},
        },
        "settings": training | PROTOCOL,
        "halving": {"first": 1},
        "confirm_seeds": [1, 2],
    }
    sweep, uri = parse(SweepSettings, raw, "toy"), f"sqlite:///{tmp_path}/mlflow.db"

    def again():
        return run_sweep(sweep, storage=tmp_path, tracking_uri=uri, spaces=None, console=Console(quiet=True))

    assert again()
    found = read_results(uri, "toy")
    rows = {(cell.backbone, cell.loss): cell for cell in sweep_cells(found)}
    assert list(rows) == [("reference", name) for name in ("mostpop", "itemknn", "ease", "ials")] + [("mf", "sl")]
    assert [len(cell.grid) for cell in rows.values()] == [1, 2, 2, 1, 1]
    assert {trial.status for trial in found.trials} == {"FINISHED"}
    for cell in rows.values():
        best = max(cell.grid, key=lambda trial: trial.metrics["best"])
        assert cell.selection.configuration == best.configuration
        assert [trial.seed for trial in cell.confirmation] == [1, 2]
        for trial in cell.confirmation:
            assert {f"test/{name}_5" for name in ("ndcg", *BEYOND)} <= trial.metrics.keys()
            assert trial.cost["seconds"] > 0
    ease = [trial.metrics["test/ndcg_5"] for trial in rows["reference", "ease"].confirmation]
    assert ease[0] == ease[1], "its seed has no effect"
    mostpop = rows["reference", "mostpop"].confirmation[0].metrics["test/ndcg_5"]
    assert ease[0] > mostpop
    assert rows["reference", "ease"].loss_title == "EASE"
    assert rows["reference", "ease"].notes == ()
    assert [tally.over for tally in tallies(found)] == [3, 4, 4, 3, 3]
    params = json.loads((tmp_path / "toy" / rows["reference", "ease"].confirmation[0].hash / "trial.json").read_text())
    assert params["task"] == "reference"

    models = {file: file.stat().st_mtime_ns for file in tmp_path.glob(f"toy/*/{MODEL}")}
    assert len(models) == 7 + 10
    assert again()
    assert {file: file.stat().st_mtime_ns for file in tmp_path.glob(f"toy/*/{MODEL}")} == models
    assert read_results(uri, "toy").trials == found.trials


def test_a_trial_of_training_takes_no_setting_of_a_reference():
    with pytest.raises(InputError, match=r"unknown setting 'reference\.l2'"):
        make_trial("f" * 64, "mf", "bpr", {"reference.l2": 1})
    assert not any(name.startswith("reference") for name in dotted_names({"backbone": "mf", "loss": "bpr"}))
