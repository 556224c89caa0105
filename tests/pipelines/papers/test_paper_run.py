"""A made-up paper in a user's own folder, from `recloss paper run` to `recloss paper report`."""

import re
import shutil

import pytest

from pipelines.commands import run
from pipelines.papers.catalogue import load
from pipelines.papers.measured import read_experiment
from pipelines.tracking import read_results
from recloss.errors import InputError

PAPER = """
title: "Toys (made up)"
source: "this test"
settings:
  train.epochs: {value: 4, why: "a test is short"}
  train.valid_every: {value: 2, why: "a test is short"}
  train.negatives: {value: 6, why: "the catalogue is small"}
  train.batch_size: {value: 64, why: "the log is small"}
  protocol.cutoffs: {value: [5], why: "the catalogue is small"}
  protocol.metric: {value: ndcg_5, why: "the catalogue is small"}
data:
  toys:
    title: Toys
    raw: log.csv
    prepare: {format: csv, columns: {user: who, item: what, rating: stars}, min_rating: 2, k_core: 3}
    get: "write_log of the tests"
    notes: ["made up"]
  gone: {title: Gone, get: "the attic", prepare: {split: given}}
grid: {optim.lr: [0.1, 0.01], optim.weight_decay: [0], backbone.dim: [8]}
rows:
  SL: {loss: sl, grid: {loss.tau: [0.2]}}
  PSL: {loss: psl, settings: {loss.activation: {value: relu, why: "to differ"}}}
  BSL:
    loss: bsl
    target: false
    settings: {loss.tau_pos: {value: 0.2, why: "one value"}, loss.tau_neg: {value: 0.2, why: "one value"}}
    notes: ["no target for it"]
  BPR: {loss: bpr}
"""
TABLE = """
title: "Table 1: toys"
shows: "PSL is better than SL"
data: [toys, gone]
backbones: [mf]
rows: [SL, PSL, BSL]
extra: [BPR]
tolerance: 0.03
findings: ["toys teach nothing"]
"""
TUNED = """
toys:
  mf:
    SL: {optim.lr: 0.1}
    PSL: {optim.lr: 0.1, loss.tau: 0.1}
    BSL: {optim.lr: 0.1}
"""
REPORTED = """data,backbone,row,metric,value
toys,mf,SL,ndcg_5,{sl}
toys,mf,PSL,ndcg_5,{psl}
toys,mf,BSL,ndcg_5,0.9
gone,mf,SL,ndcg_5,0.1
"""


def write_paper(spaces, sl="0.2", psl="0.4"):
    folder = spaces / "papers" / "toys"
    (folder / "reported").mkdir(parents=True, exist_ok=True)
    for name, text in {"paper.yaml": PAPER, "table-1.yaml": TABLE, "tuned.yaml": TUNED}.items():
        (folder / name).write_text(text)
    (folder / "reported" / "table-1.csv").write_text(REPORTED.format(sl=sl, psl=psl))
    return spaces


@pytest.fixture(scope="module")
def finished(raw_log, tmp_path_factory, ray_local):
    """The table run with two seeds, as a user would."""
    root = tmp_path_factory.mktemp("papers")
    write_paper(root / "spaces")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RECLOSS_DATA", str(raw_log.parent))
        assert run(["paper", "run", "toys/table-1", "--seeds", "2", *where(root)]) == 0
    return root


def where(root):
    return ["--storage", str(root / "runs"), "--spaces", str(root / "spaces")]


@pytest.fixture
def mine(finished, tmp_path):
    """Its own copy, to be changed."""
    shutil.copytree(finished / "spaces", tmp_path / "spaces")
    (tmp_path / "runs").symlink_to(finished / "runs")
    return tmp_path


def uri(root):
    return f"sqlite:///{root / 'runs' / 'mlflow.db'}"


def measured(root, row):
    experiment = read_experiment(uri(root), load("toys/table-1", root / "spaces"), "reported", {}, root / "spaces")
    (found,) = (line.measured for line in experiment.lines if line.row == row and line.data == "toys")
    return found


def report(root, capsys, *options):
    capsys.readouterr()
    assert run(["paper", "report", *options, *where(root)]) == 0
    return capsys.readouterr().out


def test_each_seed_is_trained_once_and_the_numbers_are_those_of_the_store(finished):
    found = read_results(uri(finished), "toys-table-1-toys-mf")
    once = [("bsl", 0), ("bsl", 1), ("psl", 0), ("psl", 1), ("sl", 0), ("sl", 1)]
    assert sorted((t.loss, t.seed) for t in found.trials) == once
    assert {t.stages for t in found.trials if t.seed == 0} == {("grid", "confirm")}
    by_seed = {t.seed: t.metrics["test/ndcg_5"] for t in found.trials if t.loss == "sl"}
    assert dict(zip((m := measured(finished, "SL")).seeds, m.values, strict=True)) == by_seed
    assert {t.params["loss.activation"] for t in found.trials if t.loss == "psl"} == {"relu"}


def test_the_same_command_again_trains_nothing(finished, raw_log, monkeypatch):
    monkeypatch.setenv("RECLOSS_DATA", str(raw_log.parent))
    before = {t.hash: t.start for t in read_results(uri(finished), "toys-table-1-toys-mf").trials}
    assert run(["paper", "run", "toys/table-1", "--seeds", "2", *where(finished)]) == 0
    assert {t.hash: t.start for t in read_results(uri(finished), "toys-table-1-toys-mf").trials} == before


def test_the_report_says_what_reproduces(mine, capsys):
    sl, psl = (measured(mine, row).mean for row in ("SL", "PSL"))
    write_paper(mine / "spaces", sl=f"{sl * 1.02:.6f}", psl=f"{psl / 2:.6f}")
    text = report(mine, capsys, "toys/table-1")
    assert text.startswith("<!-- recloss paper report toys/table-1 -->\n# Toys (made up), Table 1: toys\n")
    assert "**1 of 2 measured numbers with a target are within 3% of the reported ones.**" in text
    assert "recloss paper run toys/table-1 --data toys --backbones mf --hyper reported --seeds 2" in text
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if "NDCG@5" in line]
    by_row = {row[0]: row[1:] for row in rows if len(row) == 7}
    assert re.fullmatch(rf"{sl:.4f} ±0\.\d{{4}}", by_row["SL"][2])
    assert by_row["SL"][3:] == ["2", "-2.0 %", "yes"]
    assert by_row["PSL"][4:] == ["+100.0 %", "**no**"]
    assert by_row["BSL"][5] == "no target"
    assert re.search(r"\| PSL +\| `loss.activation` +\| `relu` +\| `tanh` +\| to differ +\|", text)
    assert "- BSL: no target for it" in text
    assert "\n- toys teach nothing\n" in text
    assert "- Gone, MF: data missing; get the attic" in text
    assert "BPR" not in text
    fingerprint = read_results(uri(mine), "toys-table-1-toys-mf").trials[0].fingerprint[:12]
    assert f"- Toys: fingerprint {fingerprint}" in text


def test_the_report_says_whether_the_order_agrees(mine, capsys):
    sl, psl = (measured(mine, row).mean for row in ("SL", "PSL"))
    higher, lower = ("SL", "PSL") if sl > psl else ("PSL", "SL")
    write_paper(mine / "spaces", **{higher.lower(): "0.2", lower.lower(): "0.4"})  # the other way round
    text = report(mine, capsys, "toys/table-1")
    turned = f"  - {lower} before {higher} (0.4000, 0.2000); measured {min(sl, psl):.4f}, {max(sl, psl):.4f} (p "
    assert turned in text
    assert "significant)" in text.split(turned)[1].splitlines()[0]
    write_paper(mine / "spaces", **{higher.lower(): "0.2", lower.lower(): "0.1999"})
    assert turned[:20] not in report(mine, capsys, "toys/table-1")


def test_a_preset_that_changed_is_not_compared_with_results_of_before(mine, capsys):
    file = mine / "spaces" / "papers" / "toys" / "tuned.yaml"
    file.write_text(TUNED.replace("loss.tau: 0.1", "loss.tau: 0.3"))
    text = report(mine, capsys, "toys/table-1")
    assert (
        "- PSL was run with other settings than the preset's and is not compared: `loss.tau` is `0.1`, not `0.3`"
        in text
    )
    assert re.search(r"\| PSL +\| NDCG@5 .* other settings \|", text)


@pytest.mark.slow
def test_what_was_run_beside_the_paper_is_shown_without_a_reported_value(mine, capsys, raw_log, monkeypatch, ray_local):
    monkeypatch.setenv("RECLOSS_DATA", str(raw_log.parent))
    storage = shutil.copytree(mine / "runs", mine / "own")
    where_else = ["--storage", str(storage), "--spaces", str(mine / "spaces")]
    assert run(["paper", "run", "toys/table-1", "--losses", "bpr", "--data", "toys", "--seeds", "1", *where_else]) == 0
    assert len(read_results(f"sqlite:///{storage / 'mlflow.db'}", "toys-table-1-toys-mf-bpr").trials) == 2  # two lr
    capsys.readouterr()
    assert run(["paper", "report", "toys/table-1", *where_else]) == 0
    text = capsys.readouterr().out
    assert re.search(r"\| BPR +\| NDCG@5 +\| +-- \|", text)
    assert "--losses SL,PSL,BSL,BPR --hyper reported --seeds 2" in text


def test_the_summary_has_a_line_per_data_set_and_backbone_with_results(mine, capsys):
    sl, psl = (measured(mine, row).mean for row in ("SL", "PSL"))
    write_paper(mine / "spaces", sl=f"{sl:.6f}", psl=f"{psl / 2:.6f}")
    text = report(mine, capsys, "--summary")
    rows = [line for line in text.splitlines() if line.startswith("| toys/table-1")]
    assert len(rows) == 1
    cells = [cell.strip() for cell in rows[0].split("|")[1:-1]]
    assert cells[1:5] == ["Toys", "MF", "3 of 3", "1 of 2"]
    assert cells[6] == "PSL, NDCG@5: +100.0 %"
    assert "- toys/table-1, Toys, MF: PSL, NDCG@5: +100.0 %" in text
    assert text.endswith("What was learned:\n\n- toys/table-1: toys teach nothing\n")


def test_a_report_is_written_over_a_report_alone(mine, capsys):
    out = mine / "results" / "toys.md"
    text = report(mine, capsys, "toys/table-1", "--out", str(out))
    assert text == out.read_text() + f"{out}\n"
    report(mine, capsys, "toys/table-1", "--out", str(out))
    out.write_text("# my notes\n")
    assert run(["paper", "report", "toys/table-1", "--out", str(out), *where(mine)]) == 2
    assert "toys.md: is there and is no report of 'recloss paper report'" in capsys.readouterr().err
    assert out.read_text() == "# my notes\n"
    assert [file.name for file in out.parent.iterdir()] == ["toys.md"]


def refused(capsys, *arguments):
    capsys.readouterr()
    assert run([*arguments]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    return said[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data", "tois"], "toys/table-1: unknown data set 'tois'; did you mean 'toys'? (accepted: gone, toys)"),
        (["--data", "gone"], "toys/table-1: data missing: gone (Gone); get the attic, or name it by --raw gone=PATH"),
        (["--losses", "talos"], "toys/table-1: unknown loss 'talos'"),
        (["--raw", "gone"], "--raw 'gone': expected NAME=PATH, such as health=downloads/health"),
        (["--raw", "gone=nowhere"], "--raw gone: nowhere: no such file or folder"),
        (["--raw", "health=."], "--raw health: toys/table-1 has no such data set (it has gone, toys)"),
        ([], "toys/table-1: none of its data sets is here; set RECLOSS_DATA, or give --raw NAME=PATH"),
    ],
)
def test_a_wrong_option_is_refused_in_one_line(options, message, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("RECLOSS_DATA", raising=False)
    write_paper(tmp_path / "spaces")
    assert message in refused(capsys, "paper", "run", "toys/table-1", *options, *where(tmp_path))
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("paper.yaml", '{value: relu, why: "to differ"}', "{value: relu}", r"rows.PSL.settings.loss.activation.why"),
        ("paper.yaml", "loss: sl,", "loss: sl, colour: red,", "unknown setting 'colour'"),
        ("table-1.yaml", "rows: [SL,", "rows: [SLL,", "rows: unknown row 'SLL'; (accepted: BPR"),
        ("table-1.yaml", "data: [toys,", "data: [toy,", "data: unknown data set 'toy'; did you mean 'toys'"),
        ("reported/table-1.csv", "toys,mf,SL,", "toys,mf,SLL,", "reported/table-1.csv: unknown row 'SLL'"),
        ("reported/table-1.csv", "SL,ndcg_5,0.2", "SL,ndcg_5,high", "table-1.csv, line 2: expected data,backbone,row"),
        ("reported/table-1.csv", "toys,mf,PSL,", "toys,mf,SL,", "line 3: toys, mf, SL, ndcg_5 is there twice"),
    ],
)
def test_a_preset_that_is_wrong_says_where(file, old, new, message, tmp_path):
    write_paper(tmp_path)
    path = tmp_path / "papers" / "toys" / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(InputError, match=re.escape(message)):
        load("toys/table-1", tmp_path)


def test_the_list_says_what_is_ready_and_what_is_missing(tmp_path, capsys, monkeypatch, raw_log):
    monkeypatch.setenv("RECLOSS_DATA", str(raw_log.parent))
    write_paper(tmp_path)
    assert run(["paper", "list", "--spaces", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    place = lines.index("  toys/table-1")
    assert lines[place + 1 : place + 4] == [
        "    Table 1: toys",
        "    ready: toys; data missing: gone",
        "    mf: SL, PSL, BSL",
    ]
    assert "    a simulation: 'recloss paper report' makes it" in lines


def test_a_dry_run_shows_the_trials_and_makes_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("RECLOSS_DATA", raising=False)
    write_paper(tmp_path / "spaces")
    arguments = ["--data", "toys", "--seeds", "2", "--dry-run", *where(tmp_path)]
    assert run(["paper", "run", "toys/table-1", *arguments]) == 0
    shown = capsys.readouterr().out
    assert "sweep toys-table-1-toys-mf" in shown
    assert "3 cells, 3 grid trials on seeds [0], then 6 confirmations on seeds [0, 1]: 9 trials" in shown
    assert not (tmp_path / "runs").exists()
