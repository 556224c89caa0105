"""The search spaces of sequences: every loss with every backbone, and what compared losses have to share."""

from pathlib import Path

import pytest

import tune_spaces
from pipelines.settings import SpaceSettings, SweepSettings, parse, read
from pipelines.sweep.plan import plan
from recloss.backbones import SEQUENCE_BACKBONES
from recloss.losses import LOSSES

FOLDER = Path(tune_spaces.__file__).parent / "sequence"
COSINES = sorted(name for name, cls in LOSSES.items() if cls.similarity == "cosine")


def cells(losses):
    raw = {
        "name": "s",
        "task": "sequence",
        "data": [{"name": "a", "path": "a"}],
        "backbones": dict.fromkeys(SEQUENCE_BACKBONES),
        "losses": dict.fromkeys(losses),
        "search": {"method": "random", "trials": 2},
    }
    return plan(parse(SweepSettings, raw, "test"), {})


def test_every_file_is_of_a_backbone_or_a_loss():
    assert {path.stem for path in (FOLDER / "backbones").iterdir()} == set(SEQUENCE_BACKBONES)
    assert sorted(path.stem for path in (FOLDER / "losses").iterdir()) == COSINES


@pytest.mark.parametrize("loss", sorted(LOSSES))
def test_a_loss_on_cosines_never_has_a_bias_and_all_start_and_step_alike(loss):
    outputs = {"sasrec": "tied"}
    for cell in cells([loss]):
        for trial in (trial for trials in cell.configurations for trial in trials):
            flat = trial.flat()
            expected = outputs.get(cell.backbone, "table" if loss in COSINES else "linear")
            assert flat["backbone.output"] == expected
            assert flat["backbone.init"] == "xavier_normal"
            assert (flat["optim.lr"], flat["optim.weight_decay"]) == (0.001, 0.0)


@pytest.mark.parametrize("loss", COSINES)
def test_the_axes_of_a_loss_are_those_of_pairs(loss):
    pairs, own = (read(SpaceSettings, FOLDER / folder / "losses" / f"{loss}.yaml") for folder in ("..", "."))
    assert {k: v for k, v in own.space.items() if k.startswith("loss.")} == {
        k: v for k, v in pairs.space.items() if k.startswith("loss.")
    }
    assert own.preset.get("train.negatives") == pairs.preset.get("train.negatives")


def test_the_sweep_on_beauty_gives_every_loss_the_same_model_and_training():
    sweep = read(SweepSettings, FOLDER.parent / "sweeps" / "sequence_beauty.yaml")
    trials = [t.flat() for cell in plan(sweep, {}) for trials in cell.configurations for t in trials]
    assert len({trial["loss"] for trial in trials}) == 8
    free = {"train.negatives", "train.epochs"}  # BCE's, which is told in the file
    for trial in trials:
        for key, value in trial.items():
            if key.startswith(("backbone.", "optim.", "train.", "protocol.")) and not (
                trial["loss"] == "bce" and key in free
            ):
                assert value == trials[-1][key], (trial["loss"], key)


def test_the_sweep_of_desorec_has_the_published_settings():
    sweep = read(SweepSettings, FOLDER.parent / "sweeps" / "desorec_diginetica.yaml")
    found = {cell.loss: [t.flat() for trials in cell.configurations for t in trials] for cell in plan(sweep, {})}
    published = {
        "backbone.dim": 128, "backbone.layers": 4, "backbone.length": 20, "backbone.dropout": 0.1, "optim.lr": 0.001,
        "optim.weight_decay": 0.0, "train.batch_size": 256, "train.epochs": 20, "train.valid_every": 1,
        "train.patience": 2, "train.positions": "last", "protocol.metric": "ndcg_10",
    }  # fmt: skip
    stages = {
        "soft_labels.tau": 2.0, "soft_labels.clusters": 16, "soft_labels.alpha": 0.5, "soft_labels.iterations": 20,
        "soft_labels.kmeans_iterations": 100,
    }  # fmt: skip
    assert list(found) == ["ce", "labelsmoothing", "softlabels", "desorec"]
    for loss, trials in found.items():
        for trial in trials:
            wanted = published | (stages if loss in ("softlabels", "desorec") else {})
            assert {key: trial[key] for key in wanted} == wanted
    points = [(t["loss.conf_softness"], t["loss.conf_weight"]) for t in found["desorec"]]
    assert (0.3, 0.7) in points
