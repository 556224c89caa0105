"""One trial in its folder: resumed, failed, scored, and trained by two Ray Train workers."""

import shutil

import pyarrow.parquet as pq
import pytest
import torch

from pipelines.prepare import load
from pipelines.settings import ResourceSettings, make_trial
from pipelines.train import journal
from pipelines.train.distributed import train_trial_distributed
from pipelines.train.folder import CHECKPOINT, MODEL, TEST_USERS, status
from pipelines.train.scoring import score_test
from pipelines.train.tasks import check_fits
from pipelines.train.tasks.base import fit_settings
from pipelines.train.tasks.pairs import build, training_splits
from pipelines.train.trial import train_trial
from recloss.errors import InputError
from recloss.loop import DivergedError
from recloss.sampling import PopularityNegatives
from recloss.training import fit

ONE = ResourceSettings()
SHORT = {
    "train.epochs": 6,
    "train.valid_every": 2,
    "train.negatives": 6,
    "train.batch_size": 64,
    "backbone.dim": 8,
    "protocol.cutoffs": [5],
    "protocol.metric": "ndcg_5",
    "loss.k": 5,
    "optim.lr": 0.1,
}


def trial(prepared, **dotted):
    return make_trial(
        load(prepared).fingerprint, "mf", "talos", SHORT | {k.replace("__", "."): v for k, v in dotted.items()}
    )


def ignore(validation):
    pass


def measured(folder):
    keys = [k for event in journal.read(folder) for k in event.get("metrics", {}) if not k.endswith("seconds")]
    return [{k: v for k, v in event.get("metrics", {}).items() if k in keys} for event in journal.read(folder)]


class KilledError(BaseException):
    """Ends a run as a kill does: nothing of the trial's own code runs afterwards."""


def test_a_trial_that_is_cut_off_at_any_validation_ends_like_one_that_is_not(prepared, tmp_path):
    wanted = tmp_path / "wanted"
    assert status(wanted) == "missing"
    train_trial(trial(prepared), prepared, wanted, ONE, ignore)
    assert status(wanted) == "finished"
    assert sorted(path.name for path in wanted.iterdir()) == [journal.FILE, MODEL]
    for killed_at in (2, 4):
        folder = tmp_path / str(killed_at)

        def kill(validation, killed_at=killed_at):
            if validation.epoch == killed_at:
                raise KilledError

        with pytest.raises(KilledError):
            train_trial(trial(prepared), prepared, folder, ONE, kill)
        assert status(folder) == "cut off"
        train_trial(trial(prepared), prepared, folder, ONE, ignore)
        assert measured(folder) == measured(wanted)
        _same_model(folder, wanted)


def _same_model(left, right):
    left, right = (torch.load(folder / MODEL, weights_only=True) for folder in (left, right))
    for part in ("backbone", "loss"):
        assert left[part].keys() == right[part].keys()
        assert all(torch.equal(left[part][name], right[part][name]) for name in left[part])


def test_a_damaged_checkpoint_is_trained_again_from_the_start(prepared, tmp_path):
    def kill(validation):
        raise KilledError

    with pytest.raises(KilledError):
        train_trial(trial(prepared), prepared, tmp_path / "cut", ONE, kill)
    checkpoint = tmp_path / "cut" / CHECKPOINT
    checkpoint.write_bytes(checkpoint.read_bytes()[:500])
    train_trial(trial(prepared), prepared, tmp_path / "cut", ONE, ignore)
    train_trial(trial(prepared), prepared, tmp_path / "whole", ONE, ignore)
    assert measured(tmp_path / "cut") == measured(tmp_path / "whole")


def test_a_diverged_trial_has_failed_for_good_and_has_no_score(prepared, tmp_path):
    bpr = {key: value for key, value in SHORT.items() if key != "loss.k"} | {"optim.lr": 1e30}
    with pytest.raises(DivergedError):
        train_trial(make_trial(load(prepared).fingerprint, "mf", "bpr", bpr), prepared, tmp_path, ONE, ignore)
    assert status(tmp_path) == "failed"
    failure = journal.read(tmp_path)[-1]
    assert failure["kind"] == "diverged"
    assert failure["error"].startswith("DivergedError: ")
    assert not (tmp_path / MODEL).exists()


def test_a_trial_trains_on_the_negatives_of_its_sampler(prepared, tmp_path):
    data = load(prepared)
    popular = trial(prepared, sampler="popularity", sampler__power=0.5)
    train_trial(popular, prepared, tmp_path / "popular", ONE, ignore)
    train_trial(trial(prepared), prepared, tmp_path / "uniform", ONE, ignore)
    assert journal.read(tmp_path / "popular")[0]["trial"]["sampler"] == {"name": "popularity", "params": {"power": 0.5}}

    train, valid = training_splits(prepared, data.fingerprint)
    backbone, loss = build(popular, train)
    fit(backbone, loss, train, valid, fit_settings(popular), sampler=PopularityNegatives(train, power=0.5))
    states = {
        name: torch.load(tmp_path / name / MODEL, weights_only=True)["backbone"] for name in ("popular", "uniform")
    }
    for key, value in backbone.state_dict().items():
        assert torch.equal(states["popular"][key], value)
        assert not torch.equal(states["uniform"][key], value)


def test_another_data_set_in_the_folder_is_refused(prepared, tmp_path):
    planned = trial(prepared).model_copy(update={"data": "0" * 64})
    with pytest.raises(InputError, match="holds the data set .*, not 000000000000 of the sweep"):
        train_trial(planned, prepared, tmp_path, ONE, ignore)
    assert status(tmp_path) == "cut off", "it may be tried again"


def test_test_scores_are_those_of_a_plain_ranking_and_written_once(prepared, tmp_path):
    data = load(prepared)
    train_trial(trial(prepared), prepared, tmp_path, ONE, ignore)
    scores = score_test(trial(prepared), prepared, tmp_path)
    state = torch.load(tmp_path / MODEL, weights_only=True)["backbone"]
    u, v = (torch.nn.functional.normalize(state[name], dim=1) for name in ("user", "item"))
    seen, wanted = ({}, {})
    for target, (users, items) in ((seen, data.train), (wanted, data.test)):
        for user, item in zip(users.tolist(), items.tolist(), strict=True):
            target.setdefault(user, set()).add(item)
    recalls = {}
    for user, relevant in wanted.items():
        ranked = [item for item in (u[user] @ v.T).argsort(descending=True).tolist() if item not in seen[user]]
        recalls[user] = len(relevant & set(ranked[:5])) / len(relevant)
    per_user = pq.read_table(tmp_path / TEST_USERS).to_pydict()
    assert dict(zip(per_user["user"], per_user["recall_5"], strict=True)) == pytest.approx(recalls)
    assert scores["test/recall_5"] == pytest.approx(sum(recalls.values()) / len(recalls))
    before = (tmp_path / journal.FILE).read_bytes(), (tmp_path / TEST_USERS).stat().st_mtime_ns
    assert score_test(trial(prepared), prepared, tmp_path) == scores
    assert ((tmp_path / journal.FILE).read_bytes(), (tmp_path / TEST_USERS).stat().st_mtime_ns) == before


def test_hiding_validation_positives_changes_the_test_ranking(prepared, tmp_path):
    plain, masked = trial(prepared), trial(prepared, protocol__mask_valid=True)
    train_trial(plain, prepared, tmp_path / "plain", ONE, ignore)
    shutil.copytree(tmp_path / "plain", tmp_path / "masked")
    assert (
        score_test(masked, prepared, tmp_path / "masked")["test/recall_5"]
        > score_test(plain, prepared, tmp_path / "plain")["test/recall_5"]
    ), "validation positives rank high and take places"


def test_what_exceeds_the_catalogue_is_refused_before_training(prepared):
    small = {"task": "pairs", "sizes": {"users": 60, "items": 10}}
    with pytest.raises(InputError, match=r"protocol.cutoffs: K = 50 is larger than the catalogue \(10 items\)"):
        check_fits(trial(prepared, protocol__cutoffs=[5, 50]), small)
    with pytest.raises(InputError, match=r"loss 'talos': k must lie in 1..10 \(the catalogue\), got 20"):
        check_fits(trial(prepared, loss__k=20), small)
    with pytest.raises(InputError, match="loss 'desorec' needs soft labels"):
        check_fits(make_trial(load(prepared).fingerprint, "mf", "desorec", {}), load(prepared).manifest)


def test_two_ray_train_workers_train_the_model_of_one_process(prepared, tmp_path, ray_local):
    two = ResourceSettings(cpus=0.5, workers=2)
    reported = []
    train_trial_distributed(trial(prepared), prepared, tmp_path / "two", two, reported.append)
    train_trial(trial(prepared), prepared, tmp_path / "one", ONE, ignore)
    assert [validation.epoch for validation in reported] == [2, 4, 6]
    left, right = (torch.load(tmp_path / name / MODEL, weights_only=True) for name in ("two", "one"))
    for part in ("backbone", "loss"):
        for name, value in right[part].items():
            torch.testing.assert_close(left[part][name], value, rtol=1e-4, atol=1e-5)
    for seen, wanted in zip(measured(tmp_path / "two"), measured(tmp_path / "one"), strict=True):
        assert seen == pytest.approx(wanted, rel=1e-5)
