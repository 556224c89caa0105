"""A sweep on the links of a graph made in the test, from its files to its table; what it cannot have is one line."""

from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

import tune_spaces
from pipelines.commands import run
from pipelines.prepare import load
from pipelines.report import make_report
from pipelines.serving.register import register_selected
from pipelines.settings import TASKS, SpaceSettings, SweepSettings, make_trial, parse, read
from pipelines.sweep.plan import plan
from pipelines.sweep.run import run_sweep
from pipelines.tracking import read_results
from pipelines.train import journal
from pipelines.train.folder import MODEL
from pipelines.train.links import links
from pipelines.train.tasks import work
from recloss import losses
from recloss.errors import InputError
from recloss.links import build, evaluate_links
from recloss.losses import LOSSES

FOLDER = Path(tune_spaces.__file__).parent
REFUSED = {"ce", "desorec", "labelsmoothing", "lambdaloss", "lambdalossatk", "lambdarank", "softlabels"}
NODES = 60


@pytest.fixture(scope="module")
def graph(tmp_path_factory) -> Path:
    """Nodes of one of 4 blocks are often linked; a third of the features tell the block."""
    rng, folder = np.random.default_rng(4), tmp_path_factory.mktemp("graph")
    chance = np.where(np.arange(NODES)[:, None] % 4 == np.arange(NODES) % 4, 0.6, 0.02)
    edges = np.argwhere(np.triu(rng.random((NODES, NODES)) < chance, 1))
    (folder / "edges.txt").write_text("".join(f"{u} {v}\n" for u, v in edges))
    words = [sorted({int(rng.integers(12)), 12 + node % 4} if rng.random() < 0.5 else {0}) for node in range(NODES)]
    (folder / "nodes.svm").write_text("".join(" ".join(["0", *(f"{w}:1" for w in own)]) + "\n" for own in words))
    return folder


def settings(graph, folder, **other) -> SweepSettings:
    raw = {
        "name": "graph",
        "task": "link",
        "data": [{"name": "blocks", "path": str(folder / "data"), "raw": str(graph),
                  "prepare": {"negatives": "hard", "negatives_per_edge": 20}}],
        "backbones": {"gcn": {"backbone.hidden": 8}},
        "losses": {
            "bce": {"optim.lr": [0.03, 0.01], "backbone.decoder": "mlp", "backbone.decoder_layers": 2},
            "sl": {"optim.lr": 0.03, "loss.tau": 0.2},
            "slatk": {"optim.lr": 0.03, "loss.k": 5, "loss.tau": 0.2, "loss.tau_weight": 1.0, "loss.refresh": 1},
        },
        "settings": {"train.epochs": 4, "train.valid_every": 2, "train.negatives": 4, "train.batch_size": 64,
                     "protocol.cutoffs": [3, 5], "protocol.metric": "mrr"},
        "baselines": ["bce"],
        "confirm_seeds": [1, 2],
    }  # fmt: skip
    return parse(SweepSettings, raw | other, "graph")


def test_a_sweep_on_links_ends_in_a_table_of_its_test_edges_and_again_trains_nothing(graph, tmp_path, ray_local):
    sweep, uri = settings(graph, tmp_path), f"sqlite:///{tmp_path}/mlflow.db"

    def again():
        return run_sweep(sweep, storage=tmp_path, tracking_uri=uri, spaces=None, console=Console(quiet=True))

    assert again()
    found = read_results(uri, "graph")
    assert {trial.status for trial in found.trials} == {"FINISHED"}
    assert len(found.trials) == 4 + 3 * 2
    data = tmp_path / "data"
    fingerprint = load(data).fingerprint
    table = make_report(uri, "graph").table
    assert [row.loss for row in table.rows] == ["bce", "sl", "slatk"]
    assert [column.metric_title for column in table.columns] == ["HitRate@3", "HitRate@5", "MRR"]
    assert table.units == "edges"
    assert any(line.startswith("ranking: each held-out edge among its own negatives") for line in table.header)
    formats = ["--format", "md,csv,tex,html,figures", "--out", str(tmp_path / "report")]
    assert run(["report", "--experiment", "graph", "--tracking-uri", uri, *formats]) == 0
    for trial in found.trials:
        folder = tmp_path / "graph" / trial.hash
        tested = [event for event in journal.read(folder) if event["event"] == "test"]
        assert bool(tested) == ("confirm" in trial.stages)
        if not tested:
            continue
        graph_data = links(data, fingerprint)
        params = {"hidden": 8} | ({"decoder": "mlp", "decoder_layers": 2} if trial.loss == "bce" else {})
        gcn = build("gcn", params, graph_data, seed=0)
        gcn.load_state_dict(torch.load(folder / MODEL, weights_only=True)["backbone"])
        expected = evaluate_links(gcn, losses.get(trial.loss).similarity, graph_data, "test", (3, 5)).mean()
        assert {f"test/{name}": pytest.approx(value) for name, value in expected.items()} == tested[0]["metrics"]

    with pytest.raises(InputError, match="is of the task 'link'; models of pairs alone can be registered"):
        register_selected(uri, "graph", [], False, [], print)

    files = {file: file.stat().st_mtime_ns for file in tmp_path.glob(f"graph/*/{MODEL}")}
    assert len(files) == 4 + 3 * 2
    assert again()
    assert files == {file: file.stat().st_mtime_ns for file in tmp_path.glob(f"graph/*/{MODEL}")}


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            {"backbones": {"lightgcn": None}},
            "unknown backbone of links 'lightgcn'; did you mean 'gcn'? (accepted: gcn)",
        ),
        ({"backbones": {"sasrec": None}}, "unknown backbone of links 'sasrec'; (accepted: gcn)"),
        ({"losses": {"ce": None}}, "CE needs logits, which training on links does not offer"),
        ({"losses": {"lamdarank": None}}, "did you mean 'lambdarank'?"),
        ({"references": {"ease": None}}, "references: 'ease' is no model of the task 'link'"),
        ({"resources": {"workers": 2}}, "resources.workers: a trial of the task 'link' has one, got 2"),
    ],
)
def test_what_a_sweep_on_links_cannot_have_is_one_line(graph, tmp_path, other, message):
    with pytest.raises(InputError) as caught:
        settings(graph, tmp_path, **other)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("loss", "dotted", "message"),
    [
        ("desorec", {}, "DeSoRec needs logits, soft_targets, which training on links does not offer"),
        ("lambdarank", {}, "LambdaRank needs neg_rank, pos_rank, which training on links does not offer"),
        ("sl", {"loss.over": "all"}, "SL needs logits, which training on links does not offer"),
        ("sl", {"sampler": "popularity"}, "the task 'link' has no sampler, so 'popularity' would have no effect"),
        ("sl", {"backbone.decoder": "bilinear"}, "backbone.*decoder"),
        ("sl", {"backbone.dim": 8}, "unknown parameter of the backbone 'gcn': 'backbone.dim'"),
        ("sl", {"train.stream": True}, "train.stream has no effect in the task 'link', only in pairs"),
        ("sl", {"protocol.mask_valid": True}, "protocol.mask_valid is always False in the task 'link'"),
        ("sl", {"protocol.metric": "ndcg_20"}, r"unknown metric 'ndcg_20'.*hit_rate_20, mrr"),
        ("sl", {"protocol.metric": "mrr_20"}, r"'mrr_20'.*hit_rate_20, mrr"),
    ],
)
def test_what_a_trial_on_links_cannot_have_is_one_line(loss, dotted, message):
    given = {"protocol.metric": "mrr"} | dotted
    with pytest.raises(InputError, match=message) as caught:
        make_trial("f", "gcn", loss, given, task="link")
    assert "\n" not in str(caught.value)


def test_what_a_graph_cannot_have_is_refused_before_anything_is_trained(graph, tmp_path, capsys):
    assert run(["prepare", "--task", "link", "--raw", str(graph), "--out", str(tmp_path / "g"),
                "--negatives-per-edge", "10"]) == 0  # fmt: skip
    capsys.readouterr()
    common = ["train", "--data", str(tmp_path / "g"), "--backbone", "gcn", "--storage", str(tmp_path / "runs")]
    for arguments, message in (
        (["--loss", "sl", "--set", "protocol.metric=mrr"], "protocol.cutoffs: K = 20 is larger than the number"),
        (["--loss", "slatk", "--set", "protocol.metric=mrr", "--set", "protocol.cutoffs=[5]", "--set", "loss.k=61"],
         "k must lie in 1..60"),
    ):  # fmt: skip
        assert run([*common, *arguments]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


def test_a_trial_is_the_same_to_the_bit_as_the_library(graph, tmp_path):
    sweep = settings(graph, tmp_path)
    run(
        [
            "prepare",
            "--task",
            "link",
            "--raw",
            str(graph),
            "--out",
            str(tmp_path / "data"),
            "--negatives-per-edge",
            "20",
        ]
    )
    fingerprint = load(tmp_path / "data").fingerprint
    trial = make_trial(fingerprint, "gcn", "slatk", sweep.settings | sweep.losses["slatk"], task="link", seed=3)
    job = work(trial, tmp_path / "data")
    again = build("gcn", trial.backbone.params, links(tmp_path / "data", fingerprint), seed=3)
    for a, b in zip(job.modules["backbone"].state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    flat = trial.flat()
    assert flat["task"] == "link"
    assert flat["backbone.decoder"] == "dot"
    assert "sampler" not in flat
    assert "train.stream" not in flat


def test_the_losses_of_the_task_are_those_that_can_be_used():
    assert set(TASKS["link"].losses) == set(LOSSES) - REFUSED
    for name in REFUSED:
        with pytest.raises(
            InputError, match=f"^{LOSSES[name].title} needs .*, which training on links does not offer$"
        ):
            TASKS["link"].loss(name)


def test_every_usable_loss_has_a_space_and_every_point_of_it_is_accepted():
    assert {path.stem for path in (FOLDER / "link" / "losses").iterdir()} == set(LOSSES) - REFUSED
    raw = {
        "name": "s",
        "task": "link",
        "data": [{"name": "a", "path": "a"}],
        "backbones": {"gcn": None},
        "losses": dict.fromkeys(set(LOSSES) - REFUSED),
        "settings": {"protocol.metric": "mrr"},
        "search": {"method": "random", "trials": 3},
    }
    for cell in plan(parse(SweepSettings, raw, "test"), {}):
        pairs, own = (read(SpaceSettings, FOLDER / at / "losses" / f"{cell.loss}.yaml") for at in ("", "link"))
        assert {k for k in own.space if k.startswith("loss.")} <= {k for k in pairs.space if k.startswith("loss.")}
        for trial in (trial for trials in cell.configurations for trial in trials):
            assert trial.task == "link"


def test_the_sweep_on_citations_gives_every_loss_the_same_model_and_training():
    sweep = read(SweepSettings, FOLDER / "sweeps" / "link_planetoid.yaml")
    assert sweep.confirm_seeds == tuple(range(1, 11))
    trials = [t.flat() for cell in plan(sweep, {}) for trials in cell.configurations for t in trials]
    assert {trial["loss"] for trial in trials} == {"bce", "sl", "slatk", "talos"}
    for trial in trials:
        for key, value in trial.items():
            if key.startswith(("backbone.", "train.", "protocol.")):
                assert value == trials[-1][key], (trial["loss"], key)
