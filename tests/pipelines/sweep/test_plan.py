"""From a sweep file to its trials."""

from io import StringIO

import pytest
import yaml
from rich.console import Console

from pipelines.search.describe import describe
from pipelines.settings import SweepSettings, parse
from pipelines.sweep.plan import plan, presets
from recloss.errors import InputError

RAW = {
    "name": "s",
    "data": [{"name": "a", "path": "x"}, {"name": "b", "path": "y"}],
    "backbones": {"mf": None, "lightgcn": {"backbone.layers": [1, 2]}},
    "losses": {
        "bpr": {"optim.lr": [0.1, 0.01], "optim.weight_decay": 0},
        "sl": {"optim.lr": 0.1, "optim.weight_decay": 0},
    },
    "settings": {"train.negatives": 7, "train.epochs": 2},
    "seeds": [0, 1],
}


def cells(**change):
    return plan(parse(SweepSettings, RAW | change, "s"), {"a": "A", "b": "B"})


def test_every_combination_is_a_cell_with_its_grid():
    found = {(c.data, c.backbone, c.loss): c.grid for c in cells()}
    assert len(found) == 2 * 2 * 2
    assert len(found["a", "mf", "bpr"]) == 2 * 2, "two learning rates, two seeds"
    assert len(found["a", "lightgcn", "bpr"]) == 2 * 2 * 2
    assert len(found["b", "mf", "sl"]) == 6 * 2, "tau comes from the loss's own space"
    assert sorted({t.loss.params["tau"] for t in found["b", "mf", "sl"]}) == [0.05, 0.1, 0.15, 0.2, 0.25, 0.3]
    trials = [trial for grid in found.values() for trial in grid]
    assert len({trial.hash for trial in trials}) == len(trials)
    assert {t.data for t in found["b", "mf", "sl"]} == {"B"}


def test_presets_win_over_shared_settings_and_lose_to_the_sweeps_own_section():
    found = {(c.backbone, c.loss): c.grid[0] for c in cells()}
    assert found["mf", "bpr"].train.negatives == 1
    assert found["mf", "sl"].train.negatives == 7
    assert found["mf", "bpr"].backbone.params["init"] == "xavier_normal"
    assert found["mf", "sl"].backbone.params["init"] == "normal"
    own = {"losses": RAW["losses"] | {"bpr": {"train.negatives": 3, "optim.lr": 1, "optim.weight_decay": 0}}}
    assert {c.loss: c.grid[0] for c in cells(**own)}["bpr"].train.negatives == 3


def test_a_sampler_in_the_shared_settings_in_a_preset_and_as_an_axis(tmp_path):
    shared = {"settings": RAW["settings"] | {"sampler": "popularity", "sampler.power": 0.5}}
    assert {(t.sampler.name, t.sampler.params["power"]) for c in cells(**shared) for t in c.grid} == {
        ("popularity", 0.5)
    }

    (tmp_path / "losses").mkdir()
    mine = {"source": "mine", "preset": {"sampler": "in_batch"}, "space": {"loss.tau": [0.7]}}
    (tmp_path / "losses" / "sl.yaml").write_text(yaml.safe_dump(mine))
    found = plan(parse(SweepSettings, RAW, "s"), {}, tmp_path)
    assert {(c.loss, t.sampler.name) for c in found for t in c.grid} == {("bpr", "uniform"), ("sl", "in_batch")}

    axis = {
        "losses": {"sl": {"loss.tau": 0.1, "optim.weight_decay": 0, "optim.lr": 0.1, "sampler": ["uniform", "shared"]}}
    }
    assert [t.sampler.name for t in cells(**axis)[0].grid] == ["uniform", "uniform", "shared", "shared"]
    with pytest.raises(InputError, match="sweep s, mf x bpr: unknown sampler 'popular'; did you mean 'popularity'"):
        cells(settings={"sampler": "popular"})


def test_a_dry_run_shows_the_parameters_that_only_some_trials_have():
    raw = RAW | {"data": RAW["data"][:1], "backbones": {"mf": None}, "seeds": [0]}
    fixed = {"loss.tau": 0.1, "optim.weight_decay": 0, "optim.lr": 0.1}
    raw["losses"] = {"sl": fixed | {"sampler": "popularity", "sampler.power": [0.5, 1.0]}}
    assert described(raw) == ["sampler.power=0.5  optim.lr=0.1", "sampler.power=1.0  optim.lr=0.1"]
    raw["losses"] = {"sl": fixed | {"sampler": ["popularity", "uniform", "false_negatives"]}}
    assert described(raw) == [
        "sampler=popularity  sampler.power=0.75  optim.lr=0.1",
        "sampler=uniform  optim.lr=0.1",
        "sampler=false_negatives  optim.lr=0.1  sampler.ratio=0.125",
    ]


def described(raw) -> list[str]:
    """The lines of a dry run's trials, without the seed."""
    console = Console(file=StringIO(), width=200)
    sweep = parse(SweepSettings, raw, "s")
    describe(sweep, plan(sweep, {}), console)
    lines = console.file.getvalue().splitlines()
    return [line.strip().removeprefix("seed=0  ") for line in lines if line.startswith("  ")]


def test_a_wrong_axis_is_refused_before_anything_starts():
    with pytest.raises(InputError, match=r"sweep s, mf x sl: unknown parameter of the loss 'sl': 'loss\.alpha'"):
        cells(losses={"sl": {"loss.alpha": [1]}})
    with pytest.raises(InputError, match=r"sweep s, mf x bpr: the loss 'bpr' has no parameters"):
        cells(losses={"bpr": {"loss.tau": [0.1]}})
    with pytest.raises(InputError, match="4 grid points exceed budget.trials_per_cell = 3"):
        cells(losses={"bpr": {"optim.lr": [1, 2, 3, 4], "optim.weight_decay": 0}}, budget={"trials_per_cell": 3})


def test_a_folder_of_ones_own_overrides_the_packaged_space(tmp_path):
    (tmp_path / "losses").mkdir()
    mine = {"source": "mine", "preset": {"train.negatives": 5}, "space": {"loss.tau": [0.7]}}
    (tmp_path / "losses" / "sl.yaml").write_text(yaml.safe_dump(mine))
    found = plan(parse(SweepSettings, RAW, "s"), {}, tmp_path)
    sl = next(c for c in found if (c.backbone, c.loss) == ("mf", "sl"))
    assert {t.loss.params["tau"] for t in sl.grid} == {0.7}
    assert presets("mf", "sl", tmp_path) == {"train.negatives": 5}
    (tmp_path / "losses" / "sl.yaml").write_text("source: mine\nspaces: {}\n")
    with pytest.raises(InputError, match=r"sl\.yaml: unknown setting 'spaces'; did you mean 'space'\?"):
        plan(parse(SweepSettings, RAW, "s"), {}, tmp_path)


def shapes(found):
    return {(cell.backbone, cell.loss): cell.size for cell in found if cell.data == "a"}


def values(cell, key):
    return [configuration[0].flat()[key] for configuration in cell.configurations]


SEARCHED = {
    "backbones": {"mf": None},
    "losses": {
        "bpr": {"optim.lr": {"low": 0.001, "high": 0.1, "log": True}, "optim.weight_decay": 0},
        "sl": {
            "optim.lr": {"low": 0.001, "high": 0.1, "log": True},
            "optim.weight_decay": [0, 0.1],
            "loss.tau": [0.1, 0.2],
        },
    },
}


def random_cells(trials, seed=0, **change):
    return cells(**SEARCHED | {"search": {"method": "random", "trials": trials, "seed": seed}} | change)


def test_random_points_are_a_function_of_seed_cell_and_number():
    ten, six = random_cells(10), random_cells(6)
    for more, fewer in zip(ten, six, strict=True):
        assert (len(more.configurations), len(fewer.configurations)) == (10, 6)
        assert more.configurations[:6] == fewer.configurations, "more trials keep the first ones"
    assert random_cells(6)[0].configurations == six[0].configurations
    assert not set(values(random_cells(6, seed=1)[0], "optim.lr")) & set(values(six[0], "optim.lr"))
    assert not set(values(ten[0], "optim.lr")) & set(values(ten[1], "optim.lr")), "another loss, other points"
    rates = values(random_cells(200)[0], "optim.lr")
    assert all(0.001 <= rate <= 0.1 for rate in rates)
    assert 75 < sum(rate < 0.01 for rate in rates) < 125, "even in the logarithm"
    assert all(trial.seed == seed for c in six[0].configurations for trial, seed in zip(c, (0, 1), strict=True))


def test_a_new_axis_leaves_the_draws_of_the_others_as_they_were():
    more = SEARCHED["losses"]["bpr"] | {"backbone.dim": {"low": 8, "high": 64}}
    plain, wider = random_cells(6)[0], random_cells(6, losses={"bpr": more})[0]
    assert values(plain, "optim.lr") == values(wider, "optim.lr")
    assert len(set(values(wider, "backbone.dim"))) > 2


def test_a_space_that_is_used_up_says_so():
    small = {"losses": {"bpr": {"optim.lr": [0.1, 0.01, 0.001], "optim.weight_decay": 0}}}
    cell = random_cells(10, **small)[0]
    assert sorted(values(cell, "optim.lr")) == [0.001, 0.01, 0.1]
    assert cell.notes == ("its space has 3 configurations, less than the 10 trials",)
    assert random_cells(3, **small)[0].notes == ()


def test_tpe_needs_no_points_before_but_checks_its_space():
    found = cells(**SEARCHED, search={"method": "tpe", "trials": 20})
    assert shapes(found) == {("mf", "bpr"): 20, ("mf", "sl"): 20}
    assert sorted(values(found[0], "optim.lr")) == [0.001, 0.1], "the ends of its range"
    wrong = {"losses": {"sl": {"loss.tau": {"low": -1.0, "high": 1}, "optim.lr": 0.1, "optim.weight_decay": 0}}}
    with pytest.raises(InputError, match=r"sweep s, mf x sl: loss 'sl': tau must be a number above 0, got -1\.0"):
        cells(**wrong, search={"method": "tpe", "trials": 20})


GRIDS = {
    "backbones": {"mf": None},
    "losses": {
        "bpr": {"optim.lr": [0.1, 0.01], "optim.weight_decay": 0},
        "sl": {"optim.lr": [0.1, 0.01, 0.001], "optim.weight_decay": 0},
    },
}


def test_an_equal_budget_takes_the_same_part_of_every_larger_grid():
    found = cells(**GRIDS, budget={"equal": True, "trials_per_cell": 4})
    assert shapes(found) == {("mf", "bpr"): 2, ("mf", "sl"): 4}
    assert found[0].notes == ("an equal budget of 4 configurations, of which its whole grid has 2",)
    assert found[1].notes == ("an equal budget: 4 of 18 grid points, drawn with seed 0",)
    assert shapes(cells(**GRIDS, budget={"equal": True})) == {("mf", "bpr"): 2, ("mf", "sl"): 2}

    def tried(n, **search):
        cell = cells(**GRIDS, budget={"equal": True, "trials_per_cell": n}, search={"method": "grid"} | search)[1]
        return [trial.hash for trial in cell.grid if trial.seed == 0]

    whole = [trial.hash for trial in cells(**GRIDS)[1].grid if trial.seed == 0]
    parts = {n: tried(n) for n in (4, 7, 18)}
    assert set(parts[4]) < set(parts[7]) < set(parts[18]), "a larger budget keeps what a smaller one tried"
    assert parts[18] == whole
    assert [name for name in whole if name in parts[7]] == parts[7], "in the order of the grid"
    assert set(tried(4, seed=1)) != set(parts[4])


def test_split_seeds_are_data_sets_of_their_own():
    raw = RAW | {"data": [{"name": "a", "path": "x/a", "raw": "log.csv", "split_seeds": [0, 3]}, RAW["data"][1]]}
    sweep = parse(SweepSettings, raw, "s")
    names = ["a (split 0)", "a (split 3)", "b"]
    assert [data.name for data in sweep.datasets] == names
    assert [str(data.path) for data in sweep.datasets] == ["x/a-split0", "x/a-split3", "y"]
    assert [data.prepare and data.prepare.split_seed for data in sweep.datasets] == [0, 3, None]
    found = plan(sweep, dict(zip(names, "ABC", strict=True)))
    assert {(cell.data, trial.data) for cell in found for trial in cell.grid} == set(zip(names, "ABC", strict=True))
    assert parse(SweepSettings, sweep.model_dump(mode="json"), "s") == sweep


def test_a_dry_run_tells_the_rungs_and_the_cost():
    raw = RAW | GRIDS | {"data": RAW["data"][:1], "settings": {"train.epochs": 20, "train.valid_every": 2}}
    raw["losses"] = {"sl": GRIDS["losses"]["sl"]}
    said = output(raw | {"halving": {"first": 3, "reduction": 3}})
    assert "a | mf | sl: 36 trials" in said
    assert "  configurations: 18 to epoch 4, 6 to epoch 10, 2 to epoch 20" in said
    epochs = 2 * (18 * 4 + 6 * 6 + 2 * 10) + 3 * 20
    assert said[-1].endswith(f"39 trials, {epochs} epochs at most")
    said = output(raw | {"search": {"method": "tpe", "trials": 5}, "budget": {"hours_per_cell": 2}})
    assert "  loss.tau: [0.05, 0.1, 0.15, 0.2, 0.25, 0.3]" in said
    assert "the search of a cell ends after 2 hours of training" in said
    assert "1 cell, 10 tpe trials on seeds [0, 1], then 3 confirmations on seeds [1, 2, 3]: 13 trials" in said[-1]


def output(raw) -> list[str]:
    console = Console(file=StringIO(), width=200)
    sweep = parse(SweepSettings, raw, "s")
    describe(sweep, plan(sweep, {}), console)
    return console.file.getvalue().splitlines()
