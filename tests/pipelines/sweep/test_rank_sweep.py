"""Learning to rank end to end, on lists made in the test: a sweep with its reference, resumed; refusals."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from rich.console import Console

from pipelines.commands import run
from pipelines.prepare import load, prepare
from pipelines.references import build
from pipelines.report import build_table
from pipelines.settings import PrepareSettings, ResourceSettings, SweepSettings, make_reference_trial, make_trial, parse
from pipelines.sweep.plan import plan
from pipelines.sweep.run import run_sweep
from pipelines.tracking import read_results
from pipelines.train import journal
from pipelines.train.folder import CHECKPOINT, MODEL, TEST_USERS, status
from pipelines.train.lists import lists
from pipelines.train.scoring import score_test
from pipelines.train.tasks import check_fits
from pipelines.train.trial import train_trial
from recloss.errors import InputError
from recloss.ranking import evaluate, ndcg, scorers

SHARED = {
    "train.epochs": 4,
    "train.valid_every": 2,
    "train.batch_size": 8,
    "train.slate": 12,
    "protocol.cutoffs": [1, 5],
    "protocol.metric": "ndcg_5",
}
LOSSES = {"listmle": {"optim.lr": 0.01}, "sl": {"loss.tau": 1.0, "optim.lr": [0.01, 0.001]}}


def write_letor(folder: Path) -> Path:
    """Queries of up to 20 documents, whose grade follows from the first of 4 features."""
    generator = torch.Generator().manual_seed(0)
    folder.mkdir()
    for name, queries in (("train.txt", range(40)), ("test.txt", range(40, 60))):
        lines = []
        for q in queries:
            for d in range(3 + q * 7 % 18):
                x = torch.rand(4, generator=generator)
                grade = int((2.9 * x[0] * x[1].sqrt()).floor())
                values = " ".join(f"{i + 1}:{float(v):.6f}" for i, v in enumerate(x))
                lines.append(f"{grade} qid:{q + 100} {values} #docid = d{q}-{d}")
        (folder / name).write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="module")
def ranked(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("rank")
    prepare(
        write_letor(folder / "raw"),
        folder / "prepared",
        PrepareSettings(task="rank", valid_ratio=0.25),
        engine="local",
    )
    return folder / "prepared"


def settings(data: Path, **more) -> SweepSettings:
    raw = {
        "name": "toy",
        "task": "rank",
        "data": [{"name": "letor", "path": str(data)}],
        "backbones": {"selfattention": {"backbone.dim": 8, "backbone.feed_forward": 16}},
        "losses": LOSSES,
        "references": {"lambdamart": {"reference.trees": 20, "reference.leaves": 4, "reference.lr": 0.1}},
        "settings": SHARED,
        "confirm_seeds": [1],
        "baselines": ["sl"],
    }
    return parse(SweepSettings, raw | more, "toy")


def sweep(chosen: SweepSettings, storage: Path) -> bool:
    uri = f"sqlite:///{storage}/mlflow.db"
    return run_sweep(chosen, storage=storage, tracking_uri=uri, spaces=None, console=Console(quiet=True))


def results(storage: Path):
    return read_results(f"sqlite:///{storage}/mlflow.db", "toy")


def comparable(trial):
    metrics = {name: value for name, value in trial.metrics.items() if "seconds" not in name}
    return trial.hash, trial.stages, trial.status, trial.params, metrics


@pytest.fixture(scope="module")
def finished(ranked, tmp_path_factory, ray_local) -> Path:
    storage = tmp_path_factory.mktemp("finished")
    assert sweep(settings(ranked), storage)
    return storage


def test_the_table_shows_what_the_confirmed_models_scored(finished, ranked):
    found = results(finished)
    confirmed = [trial for trial in found.trials if trial.stages == ("confirm",)]
    assert len(found.trials) - len(confirmed) == 4
    assert len(confirmed) == 3, "two losses and the reference"
    table = build_table(found, None)
    assert [column.metric for column in table.columns] == ["ndcg_1", "ndcg_5"]
    assert [row.title for row in table.rows] == ["LambdaMART", "ListMLE", "SL"]
    test = lists(ranked, load(ranked).fingerprint, "test")
    for trial in confirmed:
        users = pq.read_table(finished / "toy" / trial.hash / TEST_USERS)
        assert users.column_names == ["user", "ndcg_1", "ndcg_5"]
        relevant = {int(q) for q in test.query[test.grades > 0]}
        assert set(users["user"].to_pylist()) == relevant, "queries without a relevant document are left out"
        mean = sum(users["ndcg_5"].to_pylist()) / len(relevant)
        assert trial.metrics["test/ndcg_5"] == pytest.approx(mean, rel=1e-12)
    for row in table.rows:
        for score in row.scores:
            assert 0.3 < score.mean < 1, row.title


def test_a_confirmed_model_scores_as_the_library_says(finished, ranked):
    found = next(t for t in results(finished).trials if t.stages == ("confirm",) and t.loss == "sl")
    state = torch.load(finished / "toy" / found.hash / MODEL, weights_only=True)
    fingerprint = load(ranked).fingerprint
    train, test = (lists(ranked, fingerprint, split) for split in ("train", "test"))
    scorer = scorers.build("selfattention", {"dim": 8, "feed_forward": 16}, train, seed=9)
    scorer.load_state_dict(state["backbone"])
    assert evaluate(scorer, test, [5]).mean()["ndcg_5"] == found.metrics["test/ndcg_5"]


@pytest.mark.slow
def test_trials_that_were_cut_off_are_resumed_to_the_same_result(finished, ranked, tmp_path, ray_local):
    chosen = settings(ranked)
    cells = plan(chosen, {"letor": load(ranked).fingerprint})
    trials = [trial for cell in cells if cell.backbone != "reference" for trial in cell.grid]
    for trial in trials:
        folder = tmp_path / "toy" / trial.hash
        train_trial(trial, ranked, folder, ResourceSettings(), lambda _: None, until=2)
        assert status(folder) == "cut off"
        assert (folder / CHECKPOINT).exists()
    started = {trial.hash: journal.read(tmp_path / "toy" / trial.hash)[0]["time"] for trial in trials}
    assert sweep(chosen, tmp_path)
    for trial, start in started.items():
        assert journal.read(tmp_path / "toy" / trial)[0]["time"] == start
    assert [comparable(t) for t in results(tmp_path).trials] == [comparable(t) for t in results(finished).trials]


def test_the_reference_is_fitted_and_scored_like_any_model(ranked, tmp_path):
    fingerprint = load(ranked).fingerprint
    dotted = {"reference.trees": 7, "protocol.cutoffs": [5], "protocol.metric": "ndcg_5"}
    trial = make_reference_trial(fingerprint, "lambdamart", dotted, seed=0, where="--set")
    check_fits(trial, load(ranked).manifest)
    train_trial(trial, ranked, tmp_path, ResourceSettings(), lambda _: None)
    state = torch.load(tmp_path / MODEL, weights_only=True)["reference"]
    train, test = (lists(ranked, fingerprint, split) for split in ("train", "test"))
    again = build("lambdamart", trial.loss.params)
    scores = again.scorer(state)(test)
    assert torch.equal(scores, again.scorer(again.fit(train, seed=0, threads=2))(test)), "whatever the threads"
    expected = ndcg(scores, test, [5])
    assert score_test(trial, ranked, tmp_path) == {"test/ndcg_5": expected.mean()["ndcg_5"]}
    assert expected.mean()["ndcg_5"] > ndcg(test.features[:, 2].contiguous(), test, [5]).mean()["ndcg_5"]


def test_lambdamart_refuses_grades_that_are_no_small_whole_numbers(lists_with_grade):
    with pytest.raises(InputError, match="whole numbers from 0 to 30 as grades"):
        build("lambdamart", {}).fit(lists_with_grade(1.5), seed=0, threads=1)
    with pytest.raises(InputError, match="whole numbers from 0 to 30 as grades"):
        build("lambdamart", {}).fit(lists_with_grade(31), seed=0, threads=1)


@pytest.fixture
def lists_with_grade():
    from recloss.ranking import Lists

    return lambda grade: Lists(torch.rand(3, 2), torch.tensor([0.0, 1, grade]), torch.tensor([0, 3]))


@pytest.mark.parametrize(
    ("dotted", "message"),
    [
        ({"train.negatives": 5}, "train.negatives has no effect in the task 'rank', only in pairs, sequence"),
        ({"sampler": "popularity"}, "the task 'rank' has no sampler, so 'popularity' would have no effect"),
        ({"protocol.mask_valid": True}, "protocol.mask_valid is always False in the task 'rank'"),
        ({"protocol.metric": "recall_20"}, "unknown metric 'recall_20'; (accepted: ndcg_1, ndcg_10, ndcg_3, ndcg_5)"),
        ({"protocol.metric": "ndcg_7"}, "'ndcg_7' is not among the measured metrics (ndcg_1, ndcg_3, ndcg_5, ndcg_10)"),
        ({"loss.tau_d": 1}, "unknown parameter of the loss 'slatk': 'loss.tau_d'; did you mean 'loss.tau'?"),
        ({"train.slate": 1}, "train: slate: Input should be greater than or equal to 2, got 1"),
        ({"backbone.heads": 5}, "backbone 'selfattention': heads must divide dim (96), got 5"),
    ],
)
def test_settings_without_effect_or_out_of_range_are_refused(dotted, message):
    with pytest.raises(InputError) as caught:
        make_trial("f" * 64, "selfattention", "SL@5", dotted, task="rank")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_slate_has_no_effect_elsewhere():
    with pytest.raises(InputError, match="train.slate has no effect in the task 'pairs', only in rank"):
        make_trial("f" * 64, "mf", "sl", {"train.slate": 5})
    plain = make_trial("f" * 64, "mf", "sl", {})
    assert "train.slate" not in plain.flat()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"losses": {"bpr": None}}, "unknown loss over lists 'bpr'"),
        ({"backbones": {"mf": None}}, "unknown backbone over lists 'mf'"),
        ({"references": {"ease": None}}, "references: 'ease' is no model of the task 'rank' (accepted: lambdamart)"),
        ({"resources": {"workers": 2}}, "resources.workers: a trial of the task 'rank' has one, got 2"),
        ({"settings": SHARED | {"train.negatives": 3}}, "train.negatives has no effect in the task 'rank'"),
    ],
)
def test_what_does_not_belong_in_a_sweep_of_lists_is_refused(change, message, ranked):
    with pytest.raises(InputError) as caught:
        plan(settings(ranked, **change), {"letor": "f" * 64})
    assert message in str(caught.value)


def test_what_is_of_another_task_than_the_data_is_refused_in_one_line(ranked, prepared, tmp_path, capsys):
    def refused(*options: str) -> str:
        assert run(["train", *options, "--storage", str(tmp_path)]) == 2
        error = capsys.readouterr().err.strip()
        assert "\n" not in error
        return error

    lists_, pairs = ["--data", str(ranked)], ["--data", str(prepared)]
    assert "unknown loss over lists 'bpr'" in refused(*lists_, "--backbone", "mlp", "--loss", "bpr")
    assert "unknown backbone over lists 'mf'" in refused(*lists_, "--backbone", "mf", "--loss", "sl")
    assert "unknown backbone 'mlp'" in refused(*pairs, "--backbone", "mlp", "--loss", "sl")
    reference = ["--backbone", "reference", "--loss"]
    assert "is prepared for the task 'rank', the trial's is 'pairs'" in refused(*lists_, *reference, "ease")
    assert "is prepared for the task 'pairs', the trial's is 'rank'" in refused(*pairs, *reference, "lambdamart")
    of_rank = [*lists_, "--backbone", "mlp", "--loss", "sl"]
    assert "--workers: a trial of the task 'rank' has one, got 2" in refused(*of_rank, "--workers", "2")


def test_the_packaged_spaces_plan(ranked):
    packaged = {
        "losses": dict.fromkeys(["listmle", "listnet", "ranknet", "lambdalossatk", "neuralndcg", "sl", "slatk"])
    }
    both = {"backbones": {"mlp": None, "selfattention": None}, "references": {"lambdamart": None}}
    cells = plan(settings(ranked, **packaged, **both), {"letor": "f" * 64})
    sizes = {(cell.backbone, cell.loss): cell.size for cell in cells}
    assert sizes["reference", "lambdamart"] == 18
    assert len(sizes) == 15
    assert max(size for (backbone, _), size in sizes.items() if backbone != "reference") <= 8


def test_losses_and_references_of_lists_have_one_protocol_by_default():
    trial = make_trial("f" * 64, "mlp", "listnet", {}, task="rank")
    reference = make_reference_trial("f" * 64, "lambdamart", {}, seed=0, where="--set")
    assert trial.protocol == reference.protocol
    assert trial.protocol.cutoffs == (1, 3, 5, 10)
    assert trial.protocol.metric == "ndcg_5"
