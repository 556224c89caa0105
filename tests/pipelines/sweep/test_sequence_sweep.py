"""A sweep on sequences, from a raw log to its table; again it trains nothing."""

import csv

import numpy as np
import pytest
from rich.console import Console

from pipelines.report import make_report, show
from pipelines.settings import SweepSettings, parse
from pipelines.sweep.run import run_sweep
from pipelines.tracking import read_results
from pipelines.train.folder import MODEL
from recloss.errors import InputError


@pytest.fixture(scope="module")
def walks(tmp_path_factory):
    file = tmp_path_factory.mktemp("raw") / "walks.csv"
    rng = np.random.default_rng(5)
    rows = [
        (user, item % 20, step)
        for user, (start, length) in enumerate(rng.integers([0, 5], [20, 10], (30, 2)).tolist())
        for step, item in enumerate(range(start, start + length))
    ]
    with file.open("w", newline="") as target:
        csv.writer(target).writerows([("user", "item", "timestamp"), *rows])
    return file


def settings(walks, folder, **other):
    raw = {
        "name": "walks",
        "task": "sequence",
        "data": [{"name": "walks", "path": str(folder / "data"), "raw": str(walks),
                  "prepare": {"columns": {"timestamp": "timestamp"}}}],
        "backbones": {"gru4rec": {"backbone.dim": 8, "backbone.length": 5, "backbone.layers": 1}},
        "losses": {
            "bce": {"optim.lr": [0.01, 0.001], "optim.weight_decay": 0},
            "slatk": {"optim.lr": 0.01, "optim.weight_decay": 0, "loss.k": 5, "loss.tau": 0.2, "loss.tau_weight": 1.0,
                      "loss.refresh": 2, "backbone.output": "tied"},
            "desorec": {"optim.lr": 0.01, "optim.weight_decay": 0, "loss.conf_softness": 0.3,
                        "loss.conf_weight": [0.3, 0.7], "train.positions": "last", "soft_labels.clusters": 3,
                        "soft_labels.epochs": 2},
        },
        "settings": {"train.epochs": 4, "train.valid_every": 2, "train.negatives": 4, "train.batch_size": 16,
                     "protocol.cutoffs": [5], "protocol.metric": "ndcg_5"},
        "baselines": ["bce"],
        "confirm_seeds": [1, 2],
    }  # fmt: skip
    return parse(SweepSettings, raw | other, "walks")


def test_a_sweep_on_sequences_ends_in_a_table_and_again_trains_nothing(walks, tmp_path, ray_local):
    sweep, uri = settings(walks, tmp_path), f"sqlite:///{tmp_path}/mlflow.db"

    def again():
        return run_sweep(sweep, storage=tmp_path, tracking_uri=uri, spaces=None, console=Console(quiet=True))

    assert again()
    found = read_results(uri, "walks")
    assert {trial.status for trial in found.trials} == {"FINISHED"}
    assert len(found.trials) == 5 + 3 * 2
    table = make_report(uri, "walks").table
    assert [row.loss for row in table.rows] == ["bce", "slatk", "desorec"]
    assert [(column.backbone_title, column.metric) for column in table.columns] == [
        ("GRU4Rec", "hit_rate_5"), ("GRU4Rec", "ndcg_5"),
    ]  # fmt: skip
    assert "ranking: all items but the user's history, K = 5, ties by item-hash" in table.header
    for trial in found.trials:
        if "confirm" in trial.stages:
            assert trial.metrics["test/hit_rate_5"] == trial.metrics["test/recall_5"], "one answer per user"
    assert len(list(tmp_path.glob("walks/stages/*/result.pt"))) == 3 * 3, "three stages on each of three seeds"

    files = {file: file.stat().st_mtime_ns for file in tmp_path.glob(f"walks/*/{MODEL}")}
    assert again()
    assert files == {file: file.stat().st_mtime_ns for file in tmp_path.glob(f"walks/*/{MODEL}")}
    console = Console(width=120, record=True, quiet=True)
    console.print(show(make_report(uri, "walks")))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"backbones": {"mf": None}}, "unknown backbone of sequences 'mf'"),
        ({"references": {"ease": None}}, "references: 'ease' is no model of the task 'sequence'"),
        ({"task": "sequences"}, "task: Input should be 'pairs'"),
    ],
)
def test_what_a_sweep_on_sequences_cannot_have_is_one_line(walks, tmp_path, other, message):
    with pytest.raises(InputError) as caught:
        settings(walks, tmp_path, **other)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_data_that_are_prepared_for_another_task_are_refused(walks, tmp_path, prepared):
    entry = {"name": "walks", "path": str(tmp_path / "data"), "raw": str(walks), "prepare": {"task": "pairs"}}
    with pytest.raises(InputError, match="data 'walks' is prepared for the task 'pairs', the sweep's is 'sequence'"):
        settings(walks, tmp_path, data=[entry])
    sweep = settings(walks, tmp_path, data=[{"name": "toy", "path": str(prepared)}])
    with pytest.raises(InputError, match="is prepared for the task 'pairs', the trial's is 'sequence'"):
        run_sweep(sweep, storage=tmp_path, tracking_uri="sqlite://", spaces=None, console=Console(quiet=True))
