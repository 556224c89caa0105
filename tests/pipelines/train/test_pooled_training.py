"""A trial whose sampler draws from the pool of false negatives of its data."""

import numpy as np
import pytest
import torch

from pipelines import single
from pipelines.prepare import load, prepare
from pipelines.settings import PrepareSettings, ResourceSettings, make_trial
from pipelines.train.folder import MODEL
from pipelines.train.tasks import check_fits
from pipelines.train.tasks.base import fit_settings
from pipelines.train.tasks.pairs import build
from pipelines.train.trial import train_trial
from recloss.errors import InputError
from recloss.interactions import Interactions
from recloss.sampling import PooledFalseNegatives
from recloss.training import fit

SHORT = {
    "train.epochs": 2,
    "train.valid_every": 1,
    "train.negatives": 8,
    "train.batch_size": 64,
    "backbone.dim": 4,
    "protocol.cutoffs": [5],
    "protocol.metric": "ndcg_5",
    "sampler": "pooled_false_negatives",
    "sampler.ratio": 0.4,
}


@pytest.fixture(scope="module")
def pooled(raw_log, tmp_path_factory):
    columns = {"user": "who", "item": "what", "rating": "stars"}
    noise = {"kind": "false_negative_pool", "ratio": 0.2}
    out = tmp_path_factory.mktemp("pooled") / "toy"
    prepare(raw_log, out, PrepareSettings(columns=columns, k_core=3, noise=noise))
    return out


def test_a_trial_trains_with_the_pool_of_its_data(pooled, tmp_path):
    data = load(pooled)
    trial = make_trial(data.fingerprint, "mf", "sl", SHORT)
    check_fits(trial, data.manifest)
    train_trial(trial, pooled, tmp_path / "trial", ResourceSettings(), lambda validation: None)
    found = torch.load(tmp_path / "trial" / MODEL)["backbone"]

    train, valid, pool = (
        Interactions(*(torch.from_numpy(side.astype(np.int64)) for side in part), data.n_users, data.n_items)
        for part in (data.train, data.valid, data.pool)
    )
    backbone, loss = build(trial, train)
    fit(backbone, loss, train, valid, fit_settings(trial), sampler=PooledFalseNegatives(train, pool, ratio=0.4))
    assert all(torch.equal(found[name], value) for name, value in backbone.state_dict().items())
    backbone, loss = build(trial, train)
    fit(backbone, loss, train, valid, fit_settings(trial))
    assert not all(torch.equal(found[name], value) for name, value in backbone.state_dict().items())


def test_data_without_a_pool_is_refused_before_training(prepared, tmp_path):
    data = load(prepared)
    expected = (
        r"sampler 'pooled_false_negatives' needs data with a pool of false negatives; prepare it with noise: \{kind"
    )
    with pytest.raises(InputError, match=expected):
        check_fits(make_trial(data.fingerprint, "mf", "sl", SHORT), data.manifest)
    with pytest.raises(InputError, match=expected):
        single.train_single(
            prepared, "mf", "sl", SHORT, seed=0, workers=1, test=False, storage=tmp_path / "runs",
            tracking_uri=f"sqlite:///{tmp_path}/mlflow.db", spaces=None, say=print,
        )  # fmt: skip
    assert list(tmp_path.iterdir()) == []
