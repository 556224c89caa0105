"""The registry of backbones: names, documentation, search spaces, construction."""

import inspect
import itertools
from pathlib import Path

import pytest
import torch

import recloss.backbones
from recloss import backbones
from recloss.backbones import BACKBONES, Backbone
from recloss.errors import InputError
from recloss.interactions import Interactions

TRAIN = Interactions(torch.tensor([0, 1, 1]), torch.tensor([2, 0, 3]), 3, 4)
every_backbone = pytest.mark.parametrize("name", BACKBONES)


def test_every_file_of_the_folder_is_registered():
    files = {path.stem for path in Path(recloss.backbones.__file__).parent.glob("*.py")} - {"__init__", "base"}
    assert files == set(BACKBONES)
    assert {cls.__name__ for cls in BACKBONES.values()} <= set(backbones.__all__)


@every_backbone
def test_name_title_source_and_arguments(name):
    cls = BACKBONES[name]
    assert cls.name == name
    assert cls.__module__ == f"recloss.backbones.{name}"
    assert issubclass(cls, Backbone)
    assert cls.title.lower() == name
    assert "Source: " in inspect.getdoc(cls)
    for parameter in inspect.signature(cls).parameters.values():
        assert f"{parameter.name}: " in inspect.getdoc(cls)
        if parameter.name not in ("n_users", "n_items", "train"):
            assert parameter.kind is parameter.KEYWORD_ONLY
            assert parameter.default is not parameter.empty


def test_names_of_papers_and_code_are_accepted():
    for cls in BACKBONES.values():
        assert backbones.get(cls.title) is backbones.get(cls.name.upper()) is cls


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(InputError, match="^unknown backbone 'lightgnc'; did you mean 'lightgcn'?"):
        backbones.get("lightgnc")


@every_backbone
def test_embeddings_have_the_sizes_of_the_data(name):
    user, item = backbones.build(name, {"dim": 5}, TRAIN, seed=0).embed()
    assert (user.shape, item.shape) == ((3, 5), (4, 5))


@every_backbone
def test_building_is_decided_by_the_seed_and_draws_nothing_from_the_global_generator(name):
    torch.manual_seed(11)
    before = torch.get_rng_state()
    states = []
    for seed in (3, 3, 4):
        states.append(backbones.build(name, {}, TRAIN, seed).state_dict())
        assert torch.equal(torch.get_rng_state(), before)
        before = torch.manual_seed(seed + 100).get_state()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not any(torch.equal(states[0][key], states[2][key]) for key in states[0])


@every_backbone
def test_the_search_space_parses_and_every_point_of_it_is_a_backbone(name):
    pytest.importorskip("pydantic")
    import tune_spaces
    from pipelines.settings import SpaceSettings, dotted_names, read

    space = read(SpaceSettings, Path(tune_spaces.__file__).parent / "backbones" / f"{name}.yaml")
    assert set(space.preset) | set(space.space) <= set(dotted_names({"backbone": name, "loss": "sl"}))
    own = [key for key in space.space if key.startswith("backbone.")]
    for point in itertools.product(*(space.space[key] for key in own)):
        params = {key.removeprefix("backbone."): value for key, value in zip(own, point, strict=True)}
        assert isinstance(backbones.build(name, params, TRAIN, seed=0), BACKBONES[name])


@pytest.mark.parametrize(
    ("name", "defaults"),
    [
        ("mf", {"dim": 64, "init": "normal"}),
        ("lightgcn", {"dim": 64, "layers": 2, "init": "normal"}),
        (
            "xsimgcl",
            {"layers": 3, "noise": 0.1, "contrast_layer": 1, "contrast_tau": 0.1, "init": "xavier_uniform"},
        ),
        ("ncf", {"hidden": (32, 16, 8)}),
        ("simplex", {"gate": 0.5}),
    ],
)
def test_the_defaults_are_the_papers(name, defaults):
    parameters = inspect.signature(BACKBONES[name]).parameters
    assert {key: parameters[key].default for key in defaults} == defaults
