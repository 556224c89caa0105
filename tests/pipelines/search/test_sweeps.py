"""Searches through the real sweep: halving on Ray, its record in the tracking store, and extensions."""

import shutil
from pathlib import Path

import pytest
from rich.console import Console

from pipelines.report import build_report, show, write_report
from pipelines.settings import SweepSettings, parse
from pipelines.sweep.data import prepare_data
from pipelines.sweep.run import run_sweep
from pipelines.tracking import read_results
from pipelines.tracking.store import contact
from pipelines.train import journal

SHARED = {
    "train.epochs": 8,
    "train.valid_every": 2,
    "train.negatives": 6,
    "train.batch_size": 64,
    "protocol.cutoffs": [5],
    "protocol.metric": "ndcg_5",
}
HALVING = {"first": 2, "reduction": 2}


def settings(prepared: Path, **more) -> SweepSettings:
    raw = {
        "name": "toy",
        "data": [{"name": "toy", "path": str(prepared)}],
        "backbones": {"mf": {"backbone.dim": 8}},
        "losses": {"sl": {"optim.lr": 0.1, "optim.weight_decay": 0, "loss.tau": [0.1, 0.2, 0.4, 0.8]}},
        "settings": SHARED,
        "confirm_seeds": [1],
    }
    return parse(SweepSettings, raw | more, "toy")


def sweep(chosen: SweepSettings, storage: Path) -> set[str]:
    """Run it; the hashes of the trials to which something happened."""
    before = journals(storage)
    uri = f"sqlite:///{storage}/mlflow.db"
    assert run_sweep(chosen, storage=storage, tracking_uri=uri, spaces=None, console=Console(quiet=True))
    return {name for name, changed in journals(storage).items() if before.get(name) != changed}


def journals(storage: Path) -> dict[str, int]:
    return {file.parent.name: file.stat().st_mtime_ns for file in storage.glob(f"toy/*/{journal.FILE}")}


def results(storage: Path):
    return read_results(f"sqlite:///{storage}/mlflow.db", "toy")


def measured(storage: Path):
    """By trial, all that was measured, and how it ended."""
    found = {}
    for file in storage.glob(f"toy/*/{journal.FILE}"):
        events = journal.read(file.parent)
        metrics = [{k: v for k, v in e.get("metrics", {}).items() if "seconds" not in k} for e in events]
        found[file.parent.name] = metrics, events[-1]["event"], events[-1].get("rung")
    return found


@pytest.fixture(scope="module")
def new_storage(tmp_path_factory):
    """Makes storage with a copy of a store that is set up once: that takes seconds."""
    made = tmp_path_factory.mktemp("store") / "mlflow.db"
    with contact(f"sqlite:///{made}", create=True):
        pass

    def new() -> Path:
        return Path(shutil.copy(made, tmp_path_factory.mktemp("storage") / "mlflow.db")).parent

    return new


@pytest.fixture(scope="module")
def halved(prepared, new_storage, ray_local) -> Path:
    storage = new_storage()
    assert len(sweep(settings(prepared, halving=HALVING), storage)) == 5
    return storage


def test_one_trial_at_a_time_gives_the_same_bits_and_the_same_pruned_trials(halved, prepared, new_storage, monkeypatch):
    storage = new_storage()
    monkeypatch.setattr("pipelines.sweep.trials.check_fits", lambda resources, say: 1)
    sweep(settings(prepared, halving=HALVING), storage)
    assert measured(storage) == measured(halved)


def test_pruned_trials_are_the_worse_halves_and_their_runs_say_so(halved):
    found = [trial for trial in results(halved).trials if trial.stages == ("grid",)]
    events = {trial.hash: journal.read(halved / "toy" / trial.hash) for trial in found}
    curves = {
        name: [event["metrics"]["valid/ndcg_5"] for event in happened if event["event"] == "valid"]
        for name, happened in events.items()
    }
    first = sorted(curves, key=lambda name: -curves[name][0])[:2]
    second = max(first, key=lambda name: max(curves[name][:2]))
    assert {name: len(curve) for name, curve in curves.items()} == {
        name: 4 if name == second else 2 if name in first else 1 for name in curves
    }
    assert {trial.hash: (trial.status, trial.pruned) for trial in found} == {
        name: ("FINISHED", False) if name == second else ("KILLED", True) for name in curves
    }
    assert all(trial.metrics == {} for trial in found if trial.pruned)
    (selection,) = results(halved).selections.values()
    assert selection.trials == (second,)


def test_the_report_tells_of_the_search(halved, tmp_path):
    found = results(halved)
    (notes,) = found.notes.values()
    assert notes[0] == "successive halving: 3 of 4 configurations pruned"
    tau = float(next(iter(found.selections.values())).configuration["loss.tau"])
    edges = {0.1: "0.05", 0.8: "1.6"}
    assert notes[1:] == ((f"sl: loss.tau: [0.1, 0.2, 0.4, 0.8]  ->  add {edges[tau]}",) if tau in edges else ())
    write_report(build_report(found), tmp_path, ["md", "csv"])
    text = (tmp_path / "table.md").read_text()
    assert "- search: successive halving from epoch 2, the best 1/2 of a rung train on" in text
    assert "- toy, MF, SL: successive halving: 3 of 4 configurations pruned" in text
    assert "halving" not in (tmp_path / "table.csv").read_text()
    console = Console(width=200)
    with console.capture() as capture:
        console.print(show(build_report(found)))
    assert "toy, MF, SL: successive halving: 3 of 4 configurations pruned" in capture.get()


def test_a_wider_search_trains_only_what_is_new(halved, prepared, ray_local):
    """The pruned trials of before wait where they were, and go on where the larger rung has a place for them."""
    known = measured(halved)
    wider = {"optim.lr": 0.1, "optim.weight_decay": 0, "loss.tau": [0.1, 0.2, 0.4, 0.8, 0.05, 1.6]}
    sweep(settings(prepared, halving=HALVING, losses={"sl": wider}), halved)
    now = measured(halved)
    for name, (metrics, ended, _) in known.items():
        assert [m for m in now[name][0] if m][: len([m for m in metrics if m])] == [m for m in metrics if m]
        assert now[name][1] == ended or ended == "prune"
    assert sum(ended == "prune" for _, ended, _ in now.values()) >= 3
    assert {trial.status for trial in results(halved).trials} == {"FINISHED", "KILLED"}
    assert all(trial.pruned for trial in results(halved).trials if trial.status == "KILLED")


SPACE = {"optim.lr": 0.1, "optim.weight_decay": 0, "loss.tau": {"low": 0.05, "high": 1.0, "log": True}}


def searched(storage: Path) -> dict[str, tuple[str, int]]:
    """Loss and seed of every trial of the search."""
    return {trial.hash: (trial.loss, trial.seed) for trial in results(storage).trials if "grid" in trial.stages}


def test_more_trials_a_seed_and_a_loss_train_only_what_is_new(prepared, new_storage, ray_local):
    storage = new_storage()
    few = settings(prepared, search={"method": "random", "trials": 2}, losses={"sl": SPACE})
    assert len(sweep(few, storage)) == 3, "two configurations, one confirmation"
    before = searched(storage)
    losses = {"sl": SPACE, "bpr": {"optim.lr": [0.1, 0.01], "optim.weight_decay": 0}}
    more = settings(prepared, search={"method": "random", "trials": 3}, seeds=[0, 5], losses=losses)
    changed, after = sweep(more, storage), searched(storage)
    assert before.items() <= after.items()
    assert not changed & before.keys()
    assert sorted(after.values()) == sorted([("sl", 0), ("sl", 5)] * 3 + [("bpr", 0), ("bpr", 5)] * 2)


def test_a_search_by_tpe_goes_on_where_it_was(prepared, new_storage, ray_local):
    storage = new_storage()

    def chosen(trials):
        search = {"method": "tpe", "trials": trials, "in_flight": 2}
        return settings(prepared, search=search, losses={"sl": SPACE})

    assert len(sweep(chosen(2), storage)) == 3
    before = searched(storage)
    changed = sweep(chosen(4), storage)
    assert len(searched(storage)) == 4
    assert not changed & before.keys()


def test_split_seeds_prepare_a_data_set_each(raw_log, tmp_path):
    columns = {"user": "who", "item": "what", "rating": "stars"}
    data = {"name": "toy", "path": str(tmp_path / "toy"), "raw": str(raw_log), "split_seeds": [0, 1]}
    chosen = settings(tmp_path, data=[data | {"prepare": {"format": "csv", "columns": columns, "k_core": 3}}])
    made = [prepare_data(split, print) for split in chosen.datasets]
    assert [prepared.path.name for prepared in made] == ["toy-split0", "toy-split1"]
    assert [prepared.manifest["settings"]["split_seed"] for prepared in made] == [0, 1]
    assert made[0].fingerprint != made[1].fingerprint
    assert (made[0].n_users, made[0].n_items) == (made[1].n_users, made[1].n_items)
