"""Training pairs that stream: every pair once per pass, mixed, replayed; the same model from any number of workers."""

import inspect
import shutil
import threading
from collections import Counter

import numpy as np
import pytest
import torch

from pipelines.prepare import load
from pipelines.settings import ResourceSettings, make_trial
from pipelines.train import journal, mapped, stream
from pipelines.train.distributed import train_trial_distributed
from pipelines.train.folder import MODEL
from pipelines.train.tasks.base import fit_settings
from pipelines.train.tasks.pairs import build, training_splits
from pipelines.train.trial import train_trial
from recloss import losses
from recloss.backbones import BACKBONES
from recloss.errors import InputError
from recloss.losses import LOSSES
from recloss.randomness import stream_key
from recloss.sampling import UniformNegatives
from recloss.training import fit

SHORT = {
    "train.epochs": 6, "train.valid_every": 2, "train.negatives": 6, "train.batch_size": 64, "train.stream": True,
    "backbone.dim": 8, "protocol.cutoffs": [5], "protocol.metric": "ndcg_5", "optim.lr": 0.1,
}  # fmt: skip


def numbered(n: int) -> torch.Tensor:
    """(n, 2) rows that are told apart by either column."""
    return torch.stack([torch.arange(n), torch.arange(n) + n], 1).to(torch.int32)


@pytest.mark.parametrize(
    ("n", "run", "window"), [(1, 4, 8), (1000, 7, 70), (1000, 10, 100), (999, 1, 64), (50, 64, 64)]
)
def test_a_pass_has_every_row_once_in_windows_of_runs(n, run, window):
    rows = numbered(n)
    parts = list(stream.windows(rows, 5, run, window))
    assert [len(part) for part in parts[:-1]] == [part.shape[0] for part in parts[:-1]]
    seen = torch.cat(parts)
    assert torch.equal(seen[:, 1] - seen[:, 0], torch.full((n,), n, dtype=torch.int32))
    assert torch.equal(seen[:, 0].sort().values, rows[:, 0])
    for part in parts:
        assert len(part) <= window
        per_run = Counter((part[:, 0] // run).tolist())
        assert all(count == min(run, n - index * run) for index, count in per_run.items()), "a run is in one window"


def test_passes_differ_and_are_replayed():
    rows = numbered(500)
    first, again, other = (torch.cat(list(stream.windows(rows, key, 10, 100))) for key in (1, 1, 2))
    assert torch.equal(first, again)
    assert int((first[:, 0] == other[:, 0]).sum()) < 20
    windows = [{tuple(sorted(part[:, 0].tolist())) for part in stream.windows(rows, key, 10, 100)} for key in (1, 2)]
    assert not windows[0] & windows[1], "the runs of a window are others in every pass"


def test_rows_of_a_window_are_not_in_the_order_of_the_file():
    ranks = torch.cat([part[:, 0] for part in stream.windows(numbered(4000), 3, 8, 400)]).double()
    correlation = np.corrcoef(ranks[:-1], ranks[1:])[0, 1]
    assert abs(correlation) < 0.1


@pytest.mark.parametrize("part", [100, 2**22])
def test_the_shuffled_file_is_a_random_order_of_all_pairs(prepared, tmp_path, monkeypatch, part):
    monkeypatch.setenv("RECLOSS_CACHE", str(tmp_path))
    monkeypatch.setattr(stream, "_PART", part)
    fingerprint = load(prepared).fingerprint
    train = mapped.interactions(prepared, fingerprint, "train")
    rows = stream.shuffled(prepared, fingerprint).long()
    keys = rows[:, 0] * train.n_items + rows[:, 1]
    assert torch.equal(keys.sort().values, train.keys)
    place = torch.searchsorted(train.keys, keys).double()
    assert abs(np.corrcoef(place, np.arange(len(place)))[0, 1]) < 4 / len(place) ** 0.5
    assert abs(np.corrcoef(place[:-1], place[1:])[0, 1]) < 4 / len(place) ** 0.5
    assert torch.equal(stream.shuffled(prepared, fingerprint), rows.int()), "the same for ever"


@pytest.mark.parametrize("cuts", [[], [1], [5, 6, 90], [64], list(range(1, 150))])
@pytest.mark.parametrize("size", [1, 64, 1000])
def test_blocks_become_the_batches_of_their_pass(cuts, size):
    passes = {(3, 0): numbered(150), (3, 1): numbered(150).flip(0), (4, 0): numbered(150)}
    blocks = [
        {"user": block[:, 0], "item": block[:, 1], "epoch": torch.full((len(block),), epoch)}
        for (epoch, _), rows in passes.items()
        for block in rows.tensor_split(cuts)
    ]
    source = stream.positives(iter(blocks), 150, size)
    for (epoch, number), rows in passes.items():
        batches = list(source(epoch, number))
        assert [len(users) for users, _ in batches] == [len(part) for part in rows.split(size)]
        assert torch.equal(torch.cat([torch.stack(batch, 1) for batch in batches]), rows.long())


def test_a_stream_that_is_not_at_the_epoch_asked_for_is_refused():
    rows = numbered(10)
    block = {"user": rows[:, 0], "item": rows[:, 1], "epoch": torch.full((10,), 2)}
    with pytest.raises(RuntimeError, match="the stream does not go on with epoch 3, pass 1"):
        list(stream.positives(iter([block]), 10, 4)(3, 0))
    with pytest.raises(RuntimeError, match="the stream does not go on with epoch 2, pass 1"):
        list(stream.positives(iter([block]), 11, 4)(2, 0))


def streamed(prepared, loss="talos", **dotted):
    given = SHORT | {"loss.k": 5} | {key.replace("__", "."): value for key, value in dotted.items()}
    given = (
        given
        if "k" in inspect.signature(losses.get(loss)).parameters
        else {k: v for k, v in given.items() if k != "loss.k"}
    )
    return make_trial(load(prepared).fingerprint, "mf", loss, given)


ONE = ResourceSettings()


class KilledError(BaseException):
    """Ends a run as a kill does: nothing of the trial's own code runs afterwards."""


def executors() -> list[str]:
    """The threads of Ray Data that read a stream for this process."""
    return [thread.name for thread in threading.enumerate() if "StreamingExecutor" in thread.name]


def model(folder):
    state = torch.load(folder / MODEL, weights_only=True)
    return {f"{part}.{name}": value for part in ("backbone", "loss") for name, value in state[part].items()}


def test_a_streamed_trial_is_fit_on_the_windows_and_resumes_to_the_bit(prepared, tmp_path, ray_local):
    trial = streamed(prepared, "advinfonce", loss__adv_every=2)
    train_trial(trial, prepared, tmp_path / "whole", ONE, lambda validation: None)

    train, valid = training_splits(prepared, trial.data)
    backbone, loss = build(trial, train)
    rows = stream.shuffled(prepared, trial.data)
    passes = []

    def positives(epoch, number):
        passes.append((epoch, number))
        key = stream_key(trial.seed, epoch, f"order {number}")
        whole = torch.cat(list(stream.windows(rows, key, stream.RUN, stream.WINDOW))).long()
        return [(batch[:, 0], batch[:, 1]) for batch in whole.split(64)]

    fit(backbone, loss, train, valid, fit_settings(trial), sampler=UniformNegatives(train), positives=positives)
    assert (2, 1) in passes, "an epoch with an attack has two passes"
    found = model(tmp_path / "whole")
    for part, module in (("backbone", backbone), ("loss", loss)):
        assert all(torch.equal(found[f"{part}.{name}"], value) for name, value in module.state_dict().items())

    def kill(validation):
        if validation.epoch == 4:
            raise KilledError

    with pytest.raises(KilledError):
        train_trial(trial, prepared, tmp_path / "resumed", ONE, kill)
    train_trial(trial, prepared, tmp_path / "resumed", ONE, lambda validation: None)
    resumed = model(tmp_path / "resumed")
    assert all(torch.equal(resumed[name], value) for name, value in found.items())


def test_a_trial_that_ends_early_leaves_no_stream_behind(prepared, tmp_path, ray_local):
    trial = streamed(prepared, train__epochs=500, train__patience=1, optim__lr=1e-6)
    train_trial(trial, prepared, tmp_path, ONE, lambda validation: None)
    assert journal.last(journal.read(tmp_path), "finish")["epochs"] < 20
    assert not executors()


def test_a_trial_that_is_broken_off_leaves_no_stream_behind(prepared, tmp_path, ray_local):
    def kill(validation):
        assert executors()
        raise KilledError

    with pytest.raises(KilledError) as caught:  # which keeps the frames that were running
        train_trial(streamed(prepared, train__epochs=500), prepared, tmp_path, ONE, kill)
    assert caught.tb
    assert not executors()


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_ray_train_workers_that_take_all_cpus_stream_and_train_the_model_of_one_process(
    prepared, tmp_path, ray_local, workers
):
    trial = streamed(prepared)
    resources = ResourceSettings(cpus=2 / workers, workers=workers)
    train_trial_distributed(trial, prepared, tmp_path / "train", resources, lambda validation: None)
    train_trial(trial, prepared, tmp_path / "one", ONE, lambda validation: None)
    left, right = model(tmp_path / "train"), model(tmp_path / "one")
    for name, value in right.items():
        torch.testing.assert_close(left[name], value, rtol=1e-4, atol=1e-5)


def test_the_order_is_another_than_in_memory_and_so_is_the_trial(prepared, tmp_path, ray_local):
    trials = {"stream": streamed(prepared), "memory": streamed(prepared, train__stream=False)}
    for name, trial in trials.items():
        train_trial(trial, prepared, tmp_path / name, ONE, lambda validation: None)
    assert trials["stream"].hash != trials["memory"].hash
    left, right = (model(tmp_path / name)["backbone.user"] for name in trials)
    assert not torch.equal(left, right)
    shutil.rmtree(tmp_path / "memory")


def test_a_trial_that_does_not_stream_keeps_its_identity_and_parameters():
    plain, off = (make_trial("0" * 64, "mf", "sl", given) for given in ({}, {"train.stream": False}))
    assert plain.hash == off.hash == "4959a2fb9fc6b8c0"
    assert "train.stream" not in plain.flat()
    assert make_trial("0" * 64, "mf", "sl", {"train.stream": True}).flat()["train.stream"] is True


@pytest.mark.parametrize("loss", LOSSES)
def test_a_loss_that_keeps_a_number_per_pair_is_refused_by_name(loss):
    if loss not in ("song", "songatk"):
        assert make_trial("0" * 64, "mf", loss, {"train.stream": True}).train.stream
        return
    with pytest.raises(InputError, match=f"train.stream: the loss '{loss}' keeps a number per training pair in memory"):
        make_trial("0" * 64, "mf", loss, {"train.stream": True})


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_backbone_that_keeps_the_graph_is_refused_by_name(backbone):
    if backbone in ("mf", "ncf"):
        assert make_trial("0" * 64, backbone, "sl", {"train.stream": True}).train.stream
        return
    with pytest.raises(InputError, match=f"the backbone '{backbone}' keeps all training pairs in memory"):
        make_trial("0" * 64, backbone, "sl", {"train.stream": True})
