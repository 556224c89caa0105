"""What must not happen, whatever the data, the files and the neighbours do."""

import io
import json
from pathlib import Path

import pytest
import torch
from rich.console import Console

from pipelines.commands import run
from pipelines.report import build_report, show, write_report
from pipelines.settings import ResourceSettings, SweepSettings, make_trial, parse
from pipelines.sweep.status import show_status
from pipelines.tracking import open_tracker, read_results
from pipelines.train import journal
from pipelines.train.folder import CHECKPOINT, MODEL, status
from pipelines.train.scoring import score_test
from pipelines.train.trial import train_trial
from recloss.errors import InputError

HOSTILE = "[bold red]x[/] | <script>alert(1)</script>\x1b[31m\x1b]0;owned\x07 **c** [d](http://evil.example)"
SMALL = {"train.epochs": 4, "train.valid_every": 2, "train.negatives": 5, "backbone.dim": 4}


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.fixture
def trained(prepared, tmp_path):
    """A finished trial: its settings, the data's folder and its own."""
    fingerprint = json.loads((prepared / "manifest.json").read_text())["fingerprint"]
    trial = make_trial(fingerprint, "mf", "bpr", SMALL)
    train_trial(trial, prepared, tmp_path / "trial", ResourceSettings(), lambda validation: None)
    return trial, prepared, tmp_path / "trial"


@pytest.mark.parametrize("name", [CHECKPOINT, MODEL])
def test_a_file_with_code_in_it_is_refused_not_run(name, trained, tmp_path):
    trial, data, folder = trained
    model = (folder / MODEL).read_bytes()
    evil = {"backbone": Evil(tmp_path / "owned"), "loss": {}, "progress": {"history": []}}
    torch.save(evil, folder / name)
    if name == MODEL:
        with pytest.raises(ValueError, match="is damaged"):
            score_test(trial, data, folder)
    else:
        (folder / MODEL).unlink()
        train_trial(trial, data, folder, ResourceSettings(), lambda validation: None)
        assert status(folder) == "finished"
        assert (folder / MODEL).read_bytes() == model, "trained again from the start"
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize("value", ["!!python/object/apply:os.mkdir [owned]", "!!python/name:os.system"])
def test_yaml_makes_plain_values_only(value, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sweep.yaml").write_text(f"name: {value}\n")
    assert run(["sweep", "sweep.yaml"]) == 2
    assert run(["train", "--data", "x", "--loss", "sl", "--set", f"loss.tau={value}"]) == 2
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 2, printed.err
    assert "sweep.yaml, line 1: not valid YAML" in printed.err
    assert [file.name for file in tmp_path.iterdir()] == ["sweep.yaml"]


@pytest.mark.parametrize(
    "rows",
    [f'user,"{HOSTILE}"\nu1,i1\n', f'user,item,rating\n"{HOSTILE}",i1,4\nu2,i2,"{HOSTILE}"\n'],
    ids=["column", "value"],
)
def test_a_log_cannot_write_to_the_terminal(rows, tmp_path, capfd):
    (tmp_path / "log.csv").write_text(rows)
    out = str(tmp_path / "out")
    assert (
        run(["prepare", "--raw", str(tmp_path / "log.csv"), "--format", "csv", "--rating", "rating", "--out", out]) == 2
    )
    printed = capfd.readouterr()
    assert printed.err.count("\n") == 1
    assert "[bold red]x[/]" in printed.err, "shown as it is, not read as markup"
    assert printable(printed.out + printed.err)


def printable(text: str) -> bool:
    return all(character.isprintable() or character == "\n" for character in text)


def test_names_are_letters_digits_dots_and_dashes():
    raw = {"name": "x", "data": [{"name": "y", "path": "z"}], "backbones": {"mf": None}, "losses": {"sl": None}}
    assert parse(SweepSettings, raw, "sweep").name == "x"
    for broken in ({"name": HOSTILE}, {"name": "../x"}, {"data": [{"name": HOSTILE, "path": "z"}]}):
        with pytest.raises(InputError):
            parse(SweepSettings, raw | broken, "sweep")


def test_the_error_of_a_trial_is_shown_as_text(prepared, tmp_path):
    fingerprint = json.loads((prepared / "manifest.json").read_text())["fingerprint"]
    trial = make_trial(fingerprint, "mf", "bpr", SMALL)
    folder = tmp_path / trial.hash
    folder.mkdir()
    start = {"event": "start", "time": 1.0, "trial": trial.model_dump(mode="json"), "environment": {"host": HOSTILE}}
    fail = {
        "event": "fail",
        "time": 2.0,
        "error": f"ValueError: {HOSTILE}\nsecond line",
        "diverged": True,
        "kind": "diverged",
    }
    journal.rewrite(folder, [start, fail])
    raw = {
        "name": "hostile",
        "data": [{"name": "toy", "path": "x"}],
        "backbones": {"mf": None},
        "losses": {"bpr": None},
    }
    settings = parse(SweepSettings, raw, "test").model_dump(mode="json")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    tracker = open_tracker(uri, "hostile", tmp_path / "artifacts")
    tracker.sweep_started(settings)
    tracker.record_trial(folder, data_name="toy", stage="grid")
    tracker.record_no_selection(data_name="toy", backbone="mf", loss="bpr")
    tracker.sweep_ended("FINISHED")
    found = read_results(uri, "hostile")

    report = build_report(found)
    write_report(report, tmp_path / "report", ["md", "csv"])
    page = (tmp_path / "report" / "table.md").read_text()
    assert "alert(1)" in page
    assert "<script>" not in page
    assert "[d](" not in page
    assert printable(page)

    for rendered in (show(report), show_status(found, now=10.0)):
        screen = Console(width=400, force_terminal=True, color_system=None, file=io.StringIO())
        screen.print(rendered)
        text = screen.file.getvalue()
        assert "[bold red]x[/]" in text
        assert printable(text)
