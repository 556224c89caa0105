"""The decisions of a cell's search, with trials that only pretend to train."""

import itertools
import random
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pipelines.search.halving import pause, rungs
from pipelines.search.run import CellSearch
from pipelines.settings import HalvingSettings, SweepSettings, parse
from pipelines.sweep.plan import plan
from pipelines.sweep.queue import Queue, Task
from pipelines.train import journal
from pipelines.train.folder import MODEL

EPOCHS, EVERY = 12, 2
TAUS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]


def settings(**change) -> SweepSettings:
    raw = {
        "name": "s",
        "data": [{"name": "d", "path": "d"}],
        "backbones": {"mf": None},
        "losses": {"sl": {"optim.lr": 0.1, "optim.weight_decay": 0, "loss.tau": TAUS}},
        "settings": {"train.epochs": EPOCHS, "train.valid_every": EVERY},
    }
    return parse(SweepSettings, raw | change, "s")


def curve(trial) -> list[float]:
    """Metric of each validation: a function of the trial, in which early and late order differ."""
    draw = random.Random(trial.hash)
    return [draw.random() + 0.1 * number for number in range(EPOCHS // EVERY)]


@dataclass
class World:
    """Runs a sweep's only cell.

    Attributes:
        folder: of the sweep.
        broken: hash to the epoch at which the trial fails.
        short: hash to the epoch at which patience ends the trial.
        seconds: training time per epoch.
    """

    folder: Path
    broken: dict[str, int] = field(default_factory=dict)
    short: dict[str, int] = field(default_factory=dict)
    seconds: float = 1.0
    pruned: list[str] = field(default_factory=list)
    trained: list[str] = field(default_factory=list)

    def search(self, sweep: SweepSettings) -> CellSearch:
        (cell,) = plan(sweep, {})

        def task(trial, until):
            return Task(trial, Path("d"), self.folder / trial.hash, False, until)

        return CellSearch(sweep, cell, self.folder, task, lambda trial: self.pruned.append(trial.hash))

    def run(self, sweep, *, slots=1, order=0, most=None) -> CellSearch | None:
        """Everything, with tasks of several slots ending in some order; ``None`` if it is cut off after ``most``."""
        search, draw, running = self.search(sweep), random.Random(order), []
        queue = Queue([search.batches()], lambda task: None)
        for number in itertools.count():
            while len(running) < slots and (task := queue.next()):
                running.append(task)
            if not running:
                assert queue.finished
                return search
            if number == most:
                return None
            task = running.pop(draw.randrange(len(running)))
            self.train(task)
            queue.ended(task.folder.absolute())

    def train(self, task):
        name, folder = task.trial.hash, task.folder
        self.trained.append(name)
        folder.mkdir(exist_ok=True)
        started = [event for event in journal.read(folder) if event["event"] == "valid"]
        events = [{"event": "start", "time": 0.0}, *started]
        journal.rewrite(folder, events)
        values = curve(task.trial)
        for epoch in range((started[-1]["epoch"] if started else 0) + EVERY, EPOCHS + 1, EVERY):
            if self.broken.get(name, EPOCHS + 1) <= epoch:
                journal.append(folder, {"event": "fail", "time": 0.0, "kind": "diverged", "error": "x"})
                return
            metrics = {"valid/ndcg_20": values[epoch // EVERY - 1], "train/seconds": self.seconds * epoch}
            journal.append(folder, {"event": "valid", "time": 0.0, "epoch": epoch, "metrics": metrics})
            if task.until is not None and task.until <= epoch < EPOCHS:
                return
            if self.short.get(name, EPOCHS) <= epoch:
                break
        done = epoch // EVERY
        best = max(values[:done])
        at = EVERY * (values.index(best) + 1)
        journal.append(folder, {"event": "finish", "time": 0.0, "best": best, "best_epoch": at, "epochs": epoch})
        (folder / MODEL).touch()

    def epochs(self, trial) -> int:
        valid = [event["epoch"] for event in journal.read(self.folder / trial.hash) if event["event"] == "valid"]
        return max(valid, default=0)

    def ended(self, trial) -> str:
        return journal.read(self.folder / trial.hash)[-1]["event"]


def trials(sweep):
    return plan(sweep, {})[0].configurations


def best(trial, until):
    return max(curve(trial)[: until // EVERY])


HALVING = {"halving": {"first": 3, "reduction": 2}}
"""Rungs at epochs 4 and 6, and the end at 12: of seven configurations 3, then 1."""


def expected_survivors(sweep):
    """By brute force: the configurations that end each rung."""
    alive, seen = list(trials(sweep)), []
    for rung in (4, 6):
        seen.append(alive)
        alive = sorted(alive, key=lambda c: -sum(best(t, rung) for t in c))[: max(1, len(alive) // 2)]
    return [*seen, alive]


def test_the_best_of_each_rung_go_on_and_the_others_are_pruned(tmp_path):
    world, sweep = World(tmp_path), settings(**HALVING, seeds=[0, 1])
    search = world.run(sweep)
    all_, second, last = expected_survivors(sweep)
    assert (len(all_), len(second), len(last)) == (7, 3, 1)
    for configuration in all_:
        wanted = 12 if configuration in last else 6 if configuration in second else 4
        assert [world.epochs(trial) for trial in configuration] == [wanted, wanted]
        assert {world.ended(trial) for trial in configuration} == {"finish" if wanted == 12 else "prune"}
    assert search.selected().trials == last[0]
    assert search.selected().value == pytest.approx(sum(best(t, 12) for t in last[0]) / 2)
    assert sorted(world.pruned) == sorted(t.hash for c in all_ if c not in last for t in c)
    assert search.notes == ["successive halving: 6 of 7 configurations pruned"]
    ranked = sorted(
        (c[0].hash for c in all_), key=lambda name: -sum(best(t, 4) for c in all_ if c[0].hash == name for t in c)
    )
    out = ranked[-1]
    event = journal.read(tmp_path / out)[-1]
    assert {key: event[key] for key in ("rung", "rank", "of", "kept")} == {"rung": 1, "rank": 7, "of": 7, "kept": 3}


METHODS = {
    "grid": {},
    "random": {"search": {"method": "random", "trials": 9, "seed": 2}},
    "tpe": {"search": {"method": "tpe", "trials": 14, "in_flight": 3}},
}
RANGE = {"losses": {"sl": {"optim.lr": 0.1, "optim.weight_decay": 0, "loss.tau": {"low": 0.01, "high": 1.0}}}}


def state(world):
    """What is in every journal, without what was repeated."""
    return {
        folder.name: [{k: v for k, v in event.items() if k != "time"} for event in journal.read(folder)]
        for folder in world.folder.iterdir()
    }


@pytest.mark.parametrize("halving", [{}, HALVING], ids=["whole", "halving"])
@pytest.mark.parametrize("method", METHODS)
def test_the_outcome_depends_neither_on_slots_nor_on_order_nor_on_interruptions(method, halving, tmp_path):
    sweep = settings(**METHODS[method], **halving, **(RANGE if method != "grid" else {}), seeds=[0, 1])
    worlds = [World(tmp_path / str(number)) for number in range(4)]
    for world in worlds:
        world.folder.mkdir()
    outcomes = [worlds[0].run(sweep).selected(), worlds[1].run(sweep, slots=2, order=1).selected()]
    outcomes.append(worlds[2].run(sweep, slots=5, order=2).selected())
    for cut in itertools.count():
        if search := worlds[3].run(sweep, slots=3, order=cut, most=2):
            outcomes.append(search.selected())
            break
    assert [(o.trials, o.value) for o in outcomes] == [(outcomes[0].trials, outcomes[0].value)] * 4
    assert [state(world) for world in worlds[1:]] == [state(worlds[0])] * 3
    assert set(worlds[3].pruned) == set(worlds[0].pruned)
    again = len(worlds[0].trained)
    worlds[0].run(sweep)
    assert len(worlds[0].trained) == again, "nothing is trained twice"


def test_a_pruned_trial_says_its_place_in_the_rung_as_it_is_now(tmp_path):
    world = World(tmp_path)
    world.run(settings(**HALVING))
    wider = {"losses": {"sl": {"optim.lr": 0.1, "optim.weight_decay": 0, "loss.tau": [0.05, *TAUS]}}}
    world.run(settings(**HALVING, **wider))
    prunes = [[e for e in journal.read(f) if e["event"] == "prune"] for f in tmp_path.iterdir()]
    assert {events[-1]["of"] for events in prunes if events and events[-1]["rung"] == 1} == {8}
    before = state(world)
    world.run(settings(**HALVING, **wider))
    assert state(world) == before


def test_more_trials_or_choices_train_only_what_is_new(tmp_path):
    def trained(sweep):
        before = len(world.trained)
        world.run(sweep)
        return world.trained[before:]

    for method in ("random", "tpe"):
        world = World(tmp_path / method)
        world.folder.mkdir()
        few, many = ({"search": {"method": method, "trials": n}} for n in (6, 10))
        assert len(set(trained(settings(**RANGE, **few)))) == 6
        assert len(set(trained(settings(**RANGE, **many)))) == 4
    world = World(tmp_path)
    trained(settings())
    more = {"losses": {"sl": {"optim.lr": 0.1, "optim.weight_decay": 0, "loss.tau": [0.05, *TAUS]}}}
    assert len(trained(settings(**more))) == 1
    assert len(trained(settings(**more, seeds=[0, 1]))) == 8


def test_a_configuration_of_which_a_seed_failed_is_out_with_all_its_trials(tmp_path):
    sweep = settings(**HALVING, seeds=[0, 1])
    *_, (first,) = expected_survivors(sweep)
    world = World(tmp_path, broken={first[1].hash: 4})
    selected = world.run(sweep).selected()
    assert selected.trials != first
    assert world.epochs(first[0]) == 4
    assert world.ended(first[1]) == "fail"
    rest = sorted((c for c in trials(sweep) if c != first), key=lambda c: -sum(best(t, 4) for t in c))[:3]
    assert selected.trials == max(rest, key=lambda c: sum(best(t, 6) for t in c))


def test_trials_that_failed_count_among_those_that_entered_their_rung(tmp_path):
    sweep = settings(**HALVING)
    worst = sorted(trials(sweep), key=lambda c: best(c[0], 4))[:2]
    world = World(tmp_path, broken={c[0].hash: 4 for c in worst})
    world.run(sweep)
    assert sorted(world.epochs(c[0]) for c in trials(sweep)) == [2, 2, 4, 4, 6, 6, 12], "3 of 7 go on, not 2 of 5"


@pytest.mark.parametrize(
    ("first", "reduction", "expected"),
    [(3, 3, [5, 10]), (1, 2, [5, 10, 20]), (5, 4, [5, 20]), (22, 2, []), (30, 2, [])],
)
def test_rungs_end_at_validations_before_the_last_epoch(first, reduction, expected):
    shape = settings(settings={"train.epochs": 24, "train.valid_every": 5})
    trial = trials(shape)[0][0]
    assert rungs(HalvingSettings(first=first, reduction=reduction), [trial]) == expected
    assert [pause(trial, rung) for rung in expected] == expected


def test_a_trial_that_ends_before_a_rung_does_not_pause_there():
    short = trials(settings(settings={"train.epochs": 5, "train.valid_every": 5}))[0][0]
    assert pause(short, 5) is None
    assert pause(short, 10) is None


def test_a_pruned_configuration_is_selected_only_where_all_that_went_further_failed(tmp_path):
    sweep = settings(**HALVING)
    _, second, (last,) = expected_survivors(sweep)
    world = World(tmp_path, broken={last[0].hash: 10})
    selected = world.run(sweep).selected()
    runners_up = sorted((c for c in second if c != last), key=lambda c: -best(c[0], 6))
    assert selected.trials == runners_up[0]
    assert selected.value == best(runners_up[0][0], 6)
    everything = World(tmp_path / "all", broken=dict.fromkeys((c[0].hash for c in trials(sweep)), 2))
    everything.folder.mkdir()
    assert everything.run(sweep).selected() is None


def test_a_trial_that_ends_before_its_rung_takes_part_with_its_best(tmp_path):
    sweep = settings(**HALVING)
    ranked = sorted(trials(sweep), key=lambda c: -best(c[0], 2))
    world = World(tmp_path, short={c[0].hash: 2 for c in ranked})
    assert world.run(sweep).selected().trials == ranked[0]
    assert world.pruned == [], "a trial that came to its own end is not pruned"
    assert {world.ended(c[0]) for c in ranked} == {"finish"}


def test_hours_that_are_spent_start_no_trial_any_more_and_are_told(tmp_path):
    sweep = settings(budget={"hours_per_cell": 0.01})  # 36 seconds: three trials of twelve epochs
    world = World(tmp_path)
    search = world.run(sweep)
    assert len(world.trained) == 3
    assert search.selected().trials == max(trials(sweep)[:3], key=lambda c: best(c[0], EPOCHS))
    assert search.notes == ["budget.hours_per_cell = 0.01 is spent: 4 of 7 trials not trained as far as planned"]
    again = world.run(sweep)
    assert (len(world.trained), again.notes) == (3, search.notes)
    world.run(settings())
    assert len(world.trained) == 7


def test_hours_that_are_spent_in_the_middle_of_halving_select_of_what_got_furthest(tmp_path):
    sweep = settings(**HALVING, budget={"hours_per_cell": 0.009})
    world = World(tmp_path)  # 32.4 seconds: 7 trials of 4 epochs, then 3 of 2 more, the last of them started at 32
    search = world.run(sweep)
    _, second, last = expected_survivors(sweep)
    assert [world.epochs(c[0]) for c in second] == [6, 6, 6]
    assert search.selected().trials == last[0]
    assert search.selected().value == best(last[0][0], 6)
    assert search.notes[1:] == ["budget.hours_per_cell = 0.009 is spent: 1 of 7 trials not trained as far as planned"]


def test_validation_metrics_after_a_rung_do_not_change_what_it_decided(tmp_path):
    """Trials of an earlier sweep without halving are finished: the rung still judges them by its own epoch."""
    world = World(tmp_path)
    world.run(settings())
    search = world.run(settings(**HALVING))
    assert len(world.trained) == 7
    assert search.selected().trials == expected_survivors(settings(**HALVING))[-1][0]
