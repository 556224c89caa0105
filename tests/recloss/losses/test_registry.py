"""The registry of losses: names, documentation, search spaces, construction."""

import importlib
import inspect
import itertools
import re
from pathlib import Path

import pytest
import torch

import recloss.losses
from recloss import losses
from recloss.errors import InputError
from recloss.losses import LOSSES, Loss

SIZES = {"n_users": 5, "n_items": 1000, "n_pairs": 20, "n_negatives": 4}
every_loss = pytest.mark.parametrize("name", LOSSES)


def test_every_file_of_the_folder_is_registered():
    files = {path.stem for path in Path(recloss.losses.__file__).parent.glob("*.py")} - {"__init__", "base"}
    assert files == set(LOSSES)
    assert {cls.__name__ for cls in LOSSES.values()} <= set(losses.__all__)


@every_loss
def test_name_title_source_and_formula(name):
    cls = LOSSES[name]
    module = importlib.import_module(f"recloss.losses.{name}")
    assert cls.name == name
    assert cls.__module__ == module.__name__
    assert issubclass(cls, Loss)
    assert cls.title.lower().replace("@", "at") == name
    assert "Source: " in inspect.getdoc(cls)
    formula = inspect.getdoc(getattr(module, name))
    assert "``l_b = " in formula or "``L = " in formula
    assert "(B,)" in formula
    assert "(B, N)" in formula or "(B, I)" in formula


@every_loss
def test_every_argument_is_documented_and_keyword_only_with_a_default(name):
    cls = LOSSES[name]
    for parameter in inspect.signature(cls).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            assert cls.__init__ is torch.nn.Module.__init__, "a loss of its own arguments names them"
            continue
        assert f"{parameter.name}: " in inspect.getdoc(cls)
        if parameter.name not in SIZES:
            assert parameter.kind is parameter.KEYWORD_ONLY
            assert parameter.default is not parameter.empty


@every_loss
def test_it_is_tested_against_a_golden_and_a_loop_written_from_the_formula(name):
    text = (Path(__file__).parent / f"test_{name}.py").read_text()
    assert re.search("^def test_golden", text, re.MULTILINE)
    assert re.search("^def test_against_the_formula_in_plain_python", text, re.MULTILINE)


def test_names_of_papers_and_code_are_accepted():
    assert losses.get("SL@K") is losses.get("slatk") is LOSSES["slatk"]
    assert (
        losses.get("Talos") is losses.get("TALOS") is losses.get("Talos@50") is losses.get("TL@20") is LOSSES["talos"]
    )
    assert losses.get("SL@20") is losses.get("sl_at_k".replace("_at_", "@")) is LOSSES["slatk"]
    assert losses.get("Softmax") is losses.get("InfoNCE") is losses.get("sl") is LOSSES["sl"]
    assert set(losses.ALIASES.values()) <= set(LOSSES)
    assert not set(losses.ALIASES) & set(LOSSES)
    for cls in LOSSES.values():
        assert losses.get(cls.title) is cls


@pytest.mark.parametrize(("typed", "meant"), [("talso", "talos"), ("SLTK", "slatk"), ("bprr", "bpr")])
def test_an_unknown_name_suggests_the_nearest_and_lists_all(typed, meant):
    with pytest.raises(InputError) as caught:
        losses.get(typed)
    assert str(caught.value).startswith(f"unknown loss {typed!r}; did you mean {meant!r}?")
    assert all(name in str(caught.value) for name in LOSSES)


@every_loss
def test_building_is_decided_by_the_seed_and_draws_nothing_from_the_global_generator(name):
    torch.manual_seed(11)
    before = torch.get_rng_state()
    first = losses.build(name, {}, **SIZES, seed=3).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(12)
    second = losses.build(name, {}, **SIZES, seed=3).state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_a_loss_that_draws_its_state_draws_it_from_the_seed(monkeypatch):
    class Drawn(losses.SL):
        def __init__(self, n_users):
            super().__init__()
            self.register_buffer("start", torch.randn(n_users))

    monkeypatch.setitem(LOSSES, "drawn", Drawn)
    torch.manual_seed(11)
    before = torch.get_rng_state()
    first, again, other = (losses.build("drawn", {}, **SIZES, seed=seed).start for seed in (3, 3, 4))
    assert first.shape == (5,)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_an_unknown_hyper_parameter_is_an_error():
    with pytest.raises(TypeError, match="temperature"):
        losses.build("sl", {"temperature": 0.1}, **SIZES, seed=0)


@every_loss
def test_the_search_space_parses_and_every_point_of_it_is_a_loss(name):
    """The loss's own axes are checked in every combination, those of the model and the loop one by one."""
    pytest.importorskip("pydantic")
    import tune_spaces
    from pipelines.settings import SpaceSettings, dotted_names, make_trial, read

    space = read(SpaceSettings, Path(tune_spaces.__file__).parent / "losses" / f"{name}.yaml")
    assert set(space.preset) | set(space.space) <= set(dotted_names({"backbone": "mf", "loss": name}))
    assert not set(space.preset) & set(space.space)
    assert all(len(set(values)) == len(values) > 0 for values in space.space.values())

    own = [key for key in space.space if key.startswith("loss.")]
    for point in itertools.product(*(space.space[key] for key in own)):
        params = {key.removeprefix("loss."): value for key, value in zip(own, point, strict=True)}
        assert isinstance(losses.build(name, params, **SIZES, seed=0), LOSSES[name])
    smallest = {key: values[0] for key, values in space.space.items()}
    for key, values in space.space.items():
        for value in values:
            trial = make_trial("0" * 16, "mf", name, space.preset | smallest | {key: value}, where="space").flat()
            assert trial[key] == value
            assert all(trial[preset] == wanted for preset, wanted in space.preset.items())
