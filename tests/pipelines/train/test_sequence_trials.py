"""Trials on sequences against the library used by hand, and the stages that soft labels are made in."""

import csv

import numpy as np
import pytest
import torch

from pipelines.prepare import load, prepare
from pipelines.serving.snapshot import write_snapshot
from pipelines.settings import PrepareSettings, ResourceSettings, make_trial
from pipelines.train import soft_labels, tasks
from pipelines.train.clusters import clusters
from pipelines.train.folder import CHECKPOINT, MODEL, status
from pipelines.train.scoring import score_test
from pipelines.train.tasks.sequence import SequenceWork
from pipelines.train.trial import train_trial
from recloss import backbones, losses
from recloss.errors import InputError
from recloss.evaluation import evaluate
from recloss.sampling import UniformNegatives
from recloss.sequences import Sequences, Windows
from recloss.soft_labels import propagate
from recloss.training import FitSettings, fit

ONE = ResourceSettings()
USERS, ITEMS = 40, 25
BUDGET = {"epochs": 4, "valid_every": 2, "batch_size": 16, "negatives": 5}
SHORT = {f"train.{key}": value for key, value in BUDGET.items()} | {
    "backbone.dim": 8, "backbone.length": 6, "optim.lr": 0.01, "protocol.cutoffs": [5], "protocol.metric": "ndcg_5",
}  # fmt: skip
SOFT = {"soft_labels.clusters": 4, "soft_labels.tau": 0.5, "soft_labels.epochs": 2, "train.positions": "last"}


@pytest.fixture(scope="module")
def rows():
    """(user, item, time) of users who walk through the items, and come back to some."""
    rng = np.random.default_rng(3)
    walks = [(rng.integers(ITEMS) + np.arange(rng.integers(4, 12)) * rng.integers(1, 3)) % ITEMS for _ in range(USERS)]
    walks[0] = np.array([1, 2, 1, 2, 1, 2, 3, 1])  # the answers of validation and test are in its history
    return [(user, int(item), 100 + step) for user, walk in enumerate(walks) for step, item in enumerate(walk)]


@pytest.fixture(scope="module")
def walked(rows, tmp_path_factory):
    folder = tmp_path_factory.mktemp("walks")
    with (folder / "log.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("who", "what", "when"), *(np.random.default_rng(0).permutation(rows).tolist())])
    columns = {"user": "who", "item": "what", "timestamp": "when"}
    prepare(folder / "log.csv", folder / "data", PrepareSettings(task="sequence", columns=columns), engine="local")
    return folder / "data"


@pytest.fixture(scope="module")
def parts(rows):
    """Training, validation and test sequences by hand: all but the last two, the last but one, the last."""
    walks = [[item for user, item, _ in rows if user == one] for one in range(USERS)]

    def of(cut):
        items = [cut(walk) for walk in walks]
        lengths = torch.tensor([0, *(len(own) for own in items)])
        return Sequences(torch.tensor([item for own in items for item in own]), lengths.cumsum(0), ITEMS)

    return of(lambda walk: walk[:-2]), of(lambda walk: walk[-2:-1]), of(lambda walk: walk[-1:])


def trial_of(walked, backbone, loss, **dotted):
    given = SHORT | {key.replace("__", "."): value for key, value in dotted.items()}
    return make_trial(load(walked).fingerprint, backbone, loss, given, task="sequence")


def ignore(validation):
    pass


def by_hand(parts, trial, soft=None):
    """The backbone of a trial and the metrics of its test, by the library alone."""
    train, valid, test = parts
    pairs, wanted = train.interactions(), valid.interactions()
    backbone = backbones.build_sequential(trial.backbone.name, trial.backbone.params, train, trial.seed)
    sizes = {"n_users": USERS, "n_items": ITEMS, "n_pairs": len(pairs), "n_negatives": 5}
    loss = losses.build(trial.loss.name, trial.loss.params, **sizes, seed=trial.seed)
    windows = Windows(train, positions=trial.train.positions, length=6, batch_size=16, seed=trial.seed)
    settings = FitSettings(
        lr=0.01, metric="ndcg_5", cutoffs=(5,), seed=trial.seed, **BUDGET | {"epochs": trial.train.epochs}
    )
    fit(
        backbone, loss, pairs, wanted, settings,
        sampler=UniformNegatives(pairs), positives=windows, hidden=pairs.without(wanted), soft_labels=soft,
    )  # fmt: skip
    answers = test.interactions()
    with backbone.reading(train.followed_by(valid)):
        hidden = [pairs.without(answers), wanted.without(answers)]
        return backbone, evaluate(backbone, loss.similarity, answers, hidden, [5]).mean()


def states_equal(one, other):
    return all(torch.equal(one[name], value) for name, value in other.items())


@pytest.mark.parametrize(
    ("backbone", "loss", "positions"),
    [("sasrec", "slatk", "all"), ("gru4rec", "bce", "sliding"), ("youtubednn", "labelsmoothing", "last")],
)
def test_a_trial_is_the_library_s_training_to_the_bit(walked, parts, tmp_path, backbone, loss, positions):
    k = {"loss__k": 5, "backbone__output": "tied"} if loss == "slatk" else {}
    trial = trial_of(walked, backbone, loss, train__positions=positions, **k)
    train_trial(trial, walked, tmp_path, ONE, ignore)
    expected, metrics = by_hand(parts, trial)
    assert states_equal(torch.load(tmp_path / MODEL)["backbone"], expected.state_dict())
    found = score_test(trial, walked, tmp_path)
    assert {name: found[f"test/{name}"] for name in metrics} == metrics


def test_an_answer_that_the_user_had_before_can_be_found(walked, parts):
    """User 0's validation answer 3 is new, its test answer 1 is in its history, from which it must not be hidden."""
    train, _, test = (part.interactions() for part in parts)
    zero = torch.tensor([0])
    assert bool(train.contains(zero, test.of(zero).values))
    work = SequenceWork(trial_of(walked, "youtubednn", "bce"), walked)
    answers = work.test()
    assert 0 in answers.users.tolist()
    hidden = work.train.without(test)
    assert not bool(hidden.contains(zero, test.of(zero).values))
    assert bool(hidden.contains(zero, torch.tensor([2])))


def test_soft_labels_are_made_in_stages_that_equal_the_library_s(walked, parts, tmp_path):
    trial = trial_of(walked, "gru4rec", "desorec", **{key.replace(".", "__"): v for key, v in SOFT.items()})
    train_trial(trial, walked, tmp_path / trial.hash, ONE, ignore)

    softmax, _ = by_hand(parts, soft_labels.softmax_trial(trial))
    train = parts[0]
    users, items, places = Windows(train, positions="last", length=6, batch_size=16, seed=0).rows()
    with torch.no_grad():
        x = softmax.eval().vectors(users, places)
    found = propagate(x, items, clusters(x, 4, iterations=100, seed=0), tau=0.5)
    pairs = train.interactions()
    expected, _ = by_hand(parts, trial, found.placed(pairs.places(users, items), len(pairs)))
    assert states_equal(torch.load(tmp_path / trial.hash / MODEL)["backbone"], expected.state_dict())


def test_trials_of_a_grid_share_the_stages_they_have_in_common(walked, tmp_path, monkeypatch):
    soft = {key.replace(".", "__"): value for key, value in SOFT.items()}
    made = []
    original = soft_labels.clusters
    monkeypatch.setattr(soft_labels, "clusters", lambda *given, **named: made.append(1) or original(*given, **named))
    trained = []
    fit_of = SequenceWork.fit
    monkeypatch.setattr(
        SequenceWork, "fit", lambda self, run: trained.append(self.trial.loss.name) or fit_of(self, run)
    )
    for weight in (0.3, 0.7):
        trial = trial_of(walked, "gru4rec", "desorec", loss__conf_weight=weight, **soft)
        train_trial(trial, walked, tmp_path / trial.hash, ONE, ignore)
    assert trained == ["desorec", "ce", "desorec"]
    assert made == [1]
    other = trial_of(walked, "gru4rec", "softlabels", **soft | {"soft_labels__tau": 2.0})
    train_trial(other, walked, tmp_path / other.hash, ONE, ignore)
    assert trained[3:] == ["softlabels"]
    assert made == [1], "another temperature spreads in the same clusters"
    degraded = trial_of(walked, "gru4rec", "desorec", **soft | {"soft_labels__reassigned": 0.5})
    train_trial(degraded, walked, tmp_path / degraded.hash, ONE, ignore)
    assert trained[4:] == ["desorec"]
    assert made == [1, 1]


@pytest.mark.parametrize("damaged", [False, True])
def test_a_trial_that_is_stopped_in_its_first_stage_ends_like_one_that_is_not(walked, tmp_path, damaged):
    soft = {key.replace(".", "__"): value for key, value in (SOFT | {"soft_labels.epochs": 6}).items()}
    trial = trial_of(walked, "gru4rec", "desorec", **soft)
    train_trial(trial, walked, tmp_path / "whole" / trial.hash, ONE, ignore)
    wanted = torch.load(tmp_path / "whole" / trial.hash / MODEL)

    folder, stop = tmp_path / "cut" / trial.hash, tmp_path / "stop"
    stop.touch()
    train_trial(trial, walked, folder, ONE, ignore, stop=stop)  # before the stage
    assert not list(folder.parent.glob(f"*/*/{CHECKPOINT}"))
    stop.unlink()
    pauses = SequenceWork.fit

    def stopped_at_the_first_validation(self, run):
        stop.touch()
        return pauses(self, run)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            SequenceWork,
            "fit",
            lambda self, run: (
                pauses(self, run) if self.trial.soft_labels else stopped_at_the_first_validation(self, run)
            ),
        )
        train_trial(trial, walked, folder, ONE, ignore, stop=stop)
    (checkpoint,) = folder.parent.glob(f"stages/*/{CHECKPOINT}")
    if damaged:
        checkpoint.write_bytes(checkpoint.read_bytes()[:100])
    assert status(folder) == "cut off"
    stop.unlink()
    train_trial(trial, walked, folder, ONE, ignore, stop=stop)
    assert status(folder) == "finished"
    assert not list(folder.parent.glob(f"stages/*/{CHECKPOINT}"))
    assert states_equal(torch.load(folder / MODEL)["backbone"], wanted["backbone"])


def test_sequences_of_one_training_item_are_refused_in_one_line(tmp_path):
    rows = [(user, item, item) for user in range(6) for item in range(3)]
    with (tmp_path / "log.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("user", "item", "timestamp"), *rows])
    prepare(
        tmp_path / "log.csv", tmp_path / "data", PrepareSettings(task="sequence", columns={"timestamp": "timestamp"})
    )
    trial = trial_of(tmp_path / "data", "gru4rec", "bce", protocol__cutoffs=[2], protocol__metric="ndcg_2")
    with pytest.raises(InputError, match="data: in training no user has two items: there is nothing to train on"):
        train_trial(trial, tmp_path / "data", tmp_path / "trial", ONE, ignore)


@pytest.mark.parametrize(
    ("backbone", "loss", "dotted", "message"),
    [
        ("mf", "sl", {}, "unknown backbone of sequences 'mf'"),
        ("sasrec", "sl", {"train.stream": True}, "train.stream has no effect in the task 'sequence', only in pairs"),
        ("sasrec", "sl", {"train.positions": "some"}, "Input should be 'all', 'sliding' or 'last', got 'some'"),
        ("sasrec", "sl", {"soft_labels.tau": 1}, "'sl' needs no soft labels, so soft_labels.tau would have no effect"),
        ("sasrec", "desorec", {"soft_labels.tau": 0}, "soft_labels: tau: Input should be greater than 0, got 0"),
        ("sasrec", "desorec", {"soft_labels.clusers": 3}, "unknown setting 'clusers'; did you mean 'clusters'?"),
        ("sasrec", "sl", {"protocol.mask_valid": False}, "protocol.mask_valid is always True in the task 'sequence'"),
        ("sasrec", "sl", {"protocol.metric": "mrr"}, "unknown metric 'mrr'"),
    ],
)
def test_what_a_sequence_trial_cannot_have_is_refused_in_one_line(backbone, loss, dotted, message):
    with pytest.raises(InputError) as caught:
        make_trial("f", backbone, loss, dotted, task="sequence")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_model_of_sequences_is_not_served(walked, tmp_path):
    with pytest.raises(InputError, match="is of the task 'sequence'; models of pairs alone can be served"):
        write_snapshot(trial_of(walked, "sasrec", "bce"), tmp_path / "model.pt", walked, tmp_path / "out", {})
    assert not (tmp_path / "out").exists()


def test_data_of_another_task_and_too_many_clusters_are_refused(walked, prepared):
    on_pairs = make_trial(load(walked).fingerprint, "mf", "sl", {"protocol.cutoffs": [5], "protocol.metric": "ndcg_5"})
    with pytest.raises(InputError, match="is prepared for the task 'sequence', the trial's is 'pairs'"):
        tasks.check_fits(on_pairs, load(walked).manifest)
    with pytest.raises(InputError, match="is prepared for the task 'pairs', the trial's is 'sequence'"):
        tasks.check_fits(trial_of(walked, "sasrec", "bce"), load(prepared).manifest)
    with pytest.raises(InputError, match=r"backbone\.output: linear has a bias, which means nothing in the cosines of"):
        tasks.check_fits(trial_of(walked, "gru4rec", "sl"), load(walked).manifest)
    soft = trial_of(walked, "gru4rec", "desorec", soft_labels__clusters=4, train__positions="last")
    with pytest.raises(InputError, match="workers: the soft labels of the loss 'desorec' are made by one, got 2"):
        tasks.check_fits(soft, load(walked).manifest, 2)
    many = trial_of(walked, "gru4rec", "desorec", soft_labels__clusters=USERS + 1, train__positions="last")
    with pytest.raises(InputError, match=r"soft_labels\.clusters: 41 are more than the 40 users"):
        tasks.check_fits(many, load(walked).manifest)
