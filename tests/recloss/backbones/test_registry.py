"""The registry of backbones: names, documentation, search spaces, construction."""

import inspect
import itertools
from pathlib import Path

import pytest
import torch

import recloss.backbones
from recloss import backbones
from recloss.backbones import BACKBONES, SEQUENCE_BACKBONES, Backbone, SequenceBackbone
from recloss.errors import InputError
from recloss.interactions import Interactions
from recloss.sequences import Sequences

TRAIN = Interactions(torch.tensor([0, 1, 1]), torch.tensor([2, 0, 3]), 3, 4)
HISTORIES = Sequences(torch.tensor([2, 0, 3]), torch.tensor([0, 1, 3, 3]), 4)
EITHER = BACKBONES | SEQUENCE_BACKBONES
every_backbone = pytest.mark.parametrize("name", BACKBONES)
of_either_kind = pytest.mark.parametrize("name", EITHER)


def built(name: str, params: dict, seed: int) -> Backbone:
    if name in SEQUENCE_BACKBONES:
        return backbones.build_sequential(name, params, HISTORIES, seed)
    return backbones.build(name, params, TRAIN, seed)


def test_every_file_of_the_folder_is_registered():
    files = {path.stem for path in Path(recloss.backbones.__file__).parent.glob("*.py")} - {
        "__init__",
        "base",
        "sequential",
    }
    assert files == set(EITHER)
    assert {cls.__name__ for cls in EITHER.values()} <= set(backbones.__all__)
    assert not set(BACKBONES) & set(SEQUENCE_BACKBONES)


@of_either_kind
def test_name_title_source_and_arguments(name):
    cls = EITHER[name]
    assert cls.name == name
    assert cls.__module__ == f"recloss.backbones.{name}"
    assert issubclass(cls, SequenceBackbone) == (name in SEQUENCE_BACKBONES)
    assert issubclass(cls, Backbone)
    assert cls.title.lower() == name
    assert "Source: " in inspect.getdoc(cls)
    for parameter in inspect.signature(cls).parameters.values():
        assert f"{parameter.name}: " in inspect.getdoc(cls)
        if parameter.name not in ("n_users", "n_items", "train", "histories"):
            assert parameter.kind is parameter.KEYWORD_ONLY
            assert parameter.default is not parameter.empty


def test_names_of_papers_and_code_are_accepted():
    for cls in BACKBONES.values():
        assert backbones.get(cls.title) is backbones.get(cls.name.upper()) is cls


def test_an_unknown_name_suggests_the_nearest():
    with pytest.raises(InputError, match="^unknown backbone 'lightgnc'; did you mean 'lightgcn'?"):
        backbones.get("lightgnc")


def test_an_unknown_backbone_of_sequences_suggests_the_nearest():
    with pytest.raises(InputError, match="^unknown backbone of sequences 'sasrek'; did you mean 'sasrec'?"):
        backbones.build_sequential("sasrek", {}, HISTORIES, 0)


@of_either_kind
def test_embeddings_have_the_sizes_of_the_data(name):
    user, item = built(name, {"dim": 5}, seed=0).embed()
    d = 6 if name in ("deepfm", "gru4rec", "youtubednn") else 5
    assert (user.shape, item.shape) == ((3, d), (4, d)), "a bias is one coordinate more"


@of_either_kind
def test_building_is_decided_by_the_seed_and_draws_nothing_from_the_global_generator(name):
    torch.manual_seed(11)
    before = torch.get_rng_state()
    states = []
    for seed in (3, 3, 4):
        states.append(built(name, {}, seed).state_dict())
        assert torch.equal(torch.get_rng_state(), before)
        before = torch.manual_seed(seed + 100).get_state()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    same = {key for key in states[0] if torch.equal(states[0][key], states[2][key])}
    assert all("norm." in key or ".before_" in key for key in same), "but layer norms start from ones and zeros"


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
        ("gru4rec", {"dim": 128, "length": 20, "layers": 4, "dropout": 0.1, "output": "linear"}),
        ("sasrec", {"dim": 50, "length": 50, "blocks": 2, "heads": 1, "dropout": 0.5, "output": "tied"}),
        ("youtubednn", {"dim": 128, "length": 20, "output": "linear"}),
        ("deepfm", {"dim": 128, "length": 20, "dropout": 0.1, "output": "linear"}),
    ],
)
def test_the_defaults_are_the_papers(name, defaults):
    parameters = inspect.signature(EITHER[name]).parameters
    assert {key: parameters[key].default for key in defaults} == defaults
