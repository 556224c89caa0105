"""From a sweep file to its trials."""

from io import StringIO

import pytest
import yaml
from rich.console import Console

from pipelines.plan import describe, grid_points, plan, presets
from pipelines.settings import SweepSettings, parse
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
    describe(parse(SweepSettings, raw, "s"), None, console)
    lines = console.file.getvalue().splitlines()
    return [line.strip().removeprefix("seed=0  ") for line in lines if line.startswith("  ")]


def test_the_last_axis_runs_fastest_and_cutoffs_are_no_axis():
    points = list(grid_points({"a": [1, 2], "protocol.cutoffs": [5, 20], "b": [3, 4], "c": 5}))
    assert [(p["a"], p["b"]) for p in points] == [(1, 3), (1, 4), (2, 3), (2, 4)]
    assert all(p["protocol.cutoffs"] == [5, 20] and p["c"] == 5 for p in points)


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
