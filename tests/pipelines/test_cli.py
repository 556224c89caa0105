"""The command line: what a user types, and what a wrong option answers."""

import csv
from importlib.metadata import version

import pytest
import yaml

from pipelines.commands import run


def refused(capsys, *arguments) -> str:
    """The one line with which a command is refused."""
    assert run([str(argument) for argument in arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1, printed.err
    assert printed.err.startswith("recloss: ")
    return printed.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["swep"], "unknown command 'swep'; did you mean 'sweep'?"),
        (["data", "fetsh", "x"], "unknown command 'fetsh'; did you mean 'fetch'?"),
        (["data", "fetch", "ml-100"], "'ml-100'; did you mean 'ml-100k'?"),
        (["train", "--losss", "sl"], "No such option '--losss'"),
        (["train", "--loss", "sl"], "Missing option '--data'"),
        (["train", "--data", "nowhere", "--loss", "sl"], "nowhere"),
        (["sweep", "nowhere.yaml"], "nowhere.yaml: no such file"),
        (["prepare", "--raw", "nowhere.csv", "--out", "x", "--format", "csv"], "nowhere.csv"),
        (["prepare", "--raw", "x", "--out", "y", "--format", "cvs"], "unknown format 'cvs'; did you mean 'csv'?"),
        (["prepare", "--raw", "x", "--out", "y", "--k-core", "many"], "k_core.users: Input should be a valid integer"),
        (["train", "--data", "x", "--loss", "sl", "--seed", "-1"], "--seed"),
        (["ui", "--port", "0"], "--port"),
        (["report", "--experiment", "x", "--tracking-uri", "htp://host"], "htp"),
    ],
)
def test_a_wrong_command_is_one_line_that_names_the_culprit(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in refused(capsys, *arguments)
    assert list(tmp_path.iterdir()) == [], "nothing half-written"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--loss", "talso"], "unknown loss 'talso'; did you mean 'talos'?"),
        (["--loss", "sl", "--backbone", "mff"], "unknown backbone 'mff'; did you mean 'mf'?"),
        (["--loss", "sl", "--set", "loss.tau"], "--set 'loss.tau': expected KEY=VALUE"),
        (["--loss", "sl", "--set", "loss.tau=[1"], "'[1' is not a value"),
        (["--loss", "sl", "--set", "loss.tua=1"], "did you mean 'loss.tau'?"),
        (["--loss", "bpr", "--set", "loss.tau=1"], "the loss 'bpr' has no parameters"),
        (["--loss", "sl", "--set", "protocol.cutoffs=[20, 900]"], "K = 900 is larger than the catalogue"),
    ],
)
def test_a_wrong_setting_of_train_writes_nothing(options, message, prepared, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in refused(capsys, "train", "--data", prepared, *options)
    assert list(tmp_path.iterdir()) == []


def test_prepare_and_train_step_by_step(raw_log, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    columns = ["--user", "who", "--item", "what", "--rating", "stars"]
    filters = ["--min-rating", "2", "--k-core", "3", "--split", "iid"]
    assert run(["prepare", "--raw", str(raw_log), "--format", "csv", *columns, *filters, "--out", "data/toy"]) == 0
    assert "60 users, 40 items, fingerprint " in capsys.readouterr().out

    small = ["--set", "train.epochs=4", "--set", "train.valid_every=2", "--set", "train.negatives=5"]
    train = ["train", "--data", "data/toy", "--loss", "SL@K", *small, "--set", "optim.lr=0.1", "--test"]
    assert run(train) == 0
    first = capsys.readouterr().out
    assert [line.split()[1] for line in first.splitlines() if line.startswith("epoch")] == ["2", "4"]
    assert run(train) == 0
    again = capsys.readouterr().out
    assert again.startswith("already trained; its result:")
    assert again.splitlines()[1:] == first.splitlines()[-len(again.splitlines()) + 1 :]

    assert run([*train, "--set", "optim.lr=1e30", "--set", "loss.tau=1e-30"]) == 2
    assert "training diverged: " in capsys.readouterr().err


def test_sweep_report_and_dry_run(prepared, capsys, tmp_path, monkeypatch, ray_local):
    monkeypatch.chdir(tmp_path)
    fixed = {"optim.lr": 0.1, "optim.weight_decay": 0, "loss.tau": [0.1, 0.2]}
    raw = {
        "name": "mini",
        "data": [{"name": "toy", "path": str(prepared)}],
        "backbones": {"mf": None},
        "losses": {"sl": fixed, "talos": fixed},
        "settings": {"train.epochs": 2, "train.valid_every": 1, "train.negatives": 5},
        "confirm_seeds": [1, 2],
        "baselines": ["sl"],
    }
    (tmp_path / "mini.yaml").write_text(yaml.safe_dump(raw))
    assert run(["sweep", "mini.yaml", "--dry-run"]) == 0
    plan = capsys.readouterr().out
    assert "2 cells, 4 grid trials on seeds [0], then 4 confirmations on seeds [1, 2]: 8 trials" in plan
    assert plan.count("loss.tau=0.1") == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mini.yaml"], "a dry run writes nothing"

    assert run(["sweep", "mini.yaml"]) == 0
    printed = capsys.readouterr().out
    assert "Talos" in printed
    assert "MLflow: recloss ui --storage runs" in printed
    written = tmp_path / "runs" / "mini" / "report"
    assert sorted(path.name for path in written.iterdir()) == [
        "cost.csv", "report.html", "seeds.csv", "significance.csv", "table.csv", "table.md", "table_wide.csv",
    ]  # fmt: skip
    assert run(["report", "--experiment", "mini", "--format", "md, csv,tex", "--out", "out"]) == 0
    for name in ("table.md", "table.csv", "seeds.csv", "table_wide.csv", "significance.csv"):
        assert (tmp_path / "out" / name).read_bytes() == (written / name).read_bytes()
    rows = list(csv.DictReader((written / "seeds.csv").open()))
    assert {row["loss"] for row in rows} == {"sl", "talos"}
    compared = list(csv.DictReader((written / "significance.csv").open()))
    assert {(c["one"], c["other"]) for c in compared if c["question"] == "baseline"} == {("talos", "sl")}
    assert "## Statistics" in (written / "table.md").read_text()
    (table,) = (tmp_path / "runs" / "artifacts").rglob("table.json")
    once = table.read_bytes()
    assert run(["sweep", "mini.yaml"]) == 0
    assert table.read_bytes() == once
    assert (
        run(["report", "--experiment", "mini", "--format", "csv", "--metrics", "coverage_20", "--out", "beyond"]) == 0
    )
    beyond = list(csv.DictReader((tmp_path / "beyond" / "table.csv").open()))
    assert {row["metric"] for row in beyond} == {"coverage_20"}
    assert all(0 < float(row["mean"]) <= 1 for row in beyond)
    capsys.readouterr()
    assert "unknown format 'pdf'" in refused(capsys, "report", "--experiment", "mini", "--format", "pdf")
    assert "did you mean 'mini'?" in refused(capsys, "report", "--experiment", "mimi")


def test_data_list_shows_the_terms(capsys):
    assert run(["data", "list"]) == 0
    assert "ml-100k" in capsys.readouterr().out


def test_version_and_help(capsys):
    assert run(["--version"]) == 0
    assert version("recloss") in capsys.readouterr().out
    for command in ("data", "prepare", "train", "sweep", "report", "ui", "doctor"):
        assert run([command, "--help"]) == 0
        assert "Usage: recloss" in capsys.readouterr().out
