"""What the renderers make of a table: terminal, Markdown, CSV."""

import csv
import io
from dataclasses import replace
from itertools import product

import pytest
from rich.console import Console

from pipelines.commands import run
from pipelines.report import FORMATS, build_report, show, write_report
from pipelines.report.markdown import escape, markdown
from pipelines.report.table import with_stars
from recloss.errors import InputError

HOSTILE = "[red]a|b[/red] <script>alert(1)</script> **x** `y` $z$ \x1b[31m\n# title"


def terminal(results, **options):
    console = Console(file=io.StringIO(), width=100, force_terminal=True, color_system="truecolor", **options)
    console.print(show(build_report(results, ["ndcg_20"])))
    return console.file.getvalue()


def as_markdown(results):
    return markdown(build_report(results, ["ndcg_20"]))


@pytest.fixture
def duel(fabric):
    """Talos ahead of BPR, PSL failed with a hostile error, SL not run."""
    fabric.cell("bpr", [0.10, 0.11, 0.12])
    fabric.cell("talos", [0.2, 0.21, 0.22])
    fabric.select(fabric.trial("psl"))
    fabric.trial("psl", seed=1, stage="confirm", status="FAILED", error=HOSTILE)
    return fabric.results(losses=dict.fromkeys(("bpr", "sl", "psl", "talos")), baselines=["bpr"])


def test_terminal(duel):
    shown = terminal(duel)
    assert "\x1b[1m0.2100\x1b[0m ±0.0100" in shown
    assert "\x1b[4m0.1100\x1b[0m ±0.0100" in shown
    assert "-- [1]" in shown
    assert "+90.91" in shown
    assert "no trial yet" in shown
    assert "0.0000" not in shown


def test_many_columns_fit_in_100_characters(fabric):
    fabric.cell("talos", [0.2, 0.21, 0.22], protocol__cutoffs=[20, 50, 100])
    fabric.cell("talos", [0.3, 0.31, 0.32], backbone="lightgcn", protocol__cutoffs=[20, 50, 100])
    console = Console(file=io.StringIO(), width=100)
    console.print(show(build_report(fabric.results(backbones={"mf": None, "lightgcn": None}))))
    shown = console.file.getvalue()
    assert "0.2100 ±0.0100" in shown
    assert "0.3100 ±0.0100" in shown
    assert max(map(len, shown.splitlines())) <= 100


def test_terminal_never_reads_text_as_markup(duel):
    shown = terminal(duel)
    assert "[red]a|b[/red]" in shown
    assert "\x1b[31m" not in shown


def test_markdown(duel):
    text = as_markdown(duel)
    assert "| Loss | ml-100k<br>MF<br>NDCG@20 |" in text
    assert "| BPR | <u>0.1100</u> ±0.0100 |" in text
    assert "| SL | -- <sup>1</sup> |" in text
    assert "| Talos | **0.2100** ±0.0100 |" in text
    assert "| Imp.% | +90.91 |" in text
    assert "<sup>1</sup> no trial yet<br>" in text


def test_markdown_escapes(duel):
    text = as_markdown(duel)
    assert "<script>" not in text
    assert "\x1b" not in text
    (note,) = [line for line in text.splitlines() if "failed:" in line]
    assert note == (
        r"<sup>2</sup> failed: \[red\]a\|b\[/red\] &lt;script&gt;alert(1)&lt;/script&gt; "
        r"\*\*x\*\* \`y\` \$z\$ \[31m # title<br>"
    )


def test_every_markdown_row_has_the_same_number_of_cells(duel):
    duel.settings["losses"]["a|b"] = {}
    table = [line for line in as_markdown(duel).splitlines() if line.startswith("|")]
    bars = [line.replace(r"\|", "").count("|") for line in table]
    assert bars == [3] * 12 + [9] * 7


def test_escape_keeps_plain_text():
    assert escape("SL@K (tau=0.1), K = 20: 1.5 to 2") == "SL@K (tau=0.1), K = 20: 1.5 to 2"


def test_csv(duel, tmp_path):
    report = build_report(duel, ["ndcg_20", "recall_20"])
    paths = write_report(report, tmp_path / "new" / "folder", ["csv"])
    assert [path.name for path in paths] == ["table.csv", "table_wide.csv", "seeds.csv", "cost.csv", "significance.csv"]
    rows, _, seeds, cost, _ = (list(csv.DictReader(path.open(encoding="utf-8"))) for path in paths)
    assert [(c["data"], c["loss"]) for c in cost] == [(row["data"], row["loss"]) for row in rows[::2]]
    assert len(rows) == 8
    bpr = rows[0]
    assert (bpr["data"], bpr["backbone"], bpr["loss"], bpr["metric"]) == ("ml-100k", "mf", "bpr", "ndcg_20")
    assert float(bpr["mean"]) == pytest.approx(0.11)
    assert float(bpr["std"]) == pytest.approx(0.01)
    assert (bpr["n"], bpr["mark"], bpr["note"]) == ("3", "second", "")
    sl = next(row for row in rows if row["loss"] == "sl")
    assert (sl["mean"], sl["std"], sl["n"], sl["mark"], sl["note"]) == ("", "", "0", "", "no trial yet")
    assert len(seeds) == 12
    assert [(s["seed"], float(s["value"])) for s in seeds[:3]] == [("1", 0.10), ("2", 0.11), ("3", 0.12)]
    assert all(len(s["trial"]) == 16 for s in seeds)


def test_wide_csv_equals_long_csv(fabric, tmp_path):
    """Number by number, to the last digit."""
    data = [{"name": name, "path": "p"} for name in ("a", "b")]
    for where in product(("a", "b"), ("mf", "lightgcn")):
        for loss, mean in {"bpr": 0.1, "sl": 0.2, "talos": 0.3}.items():
            values = [mean + len("".join(where)) / 300, mean / 3, mean / 7]
            if where != ("b", "mf") or loss != "sl":
                fabric.cell(loss, values, data=where[0], backbone=where[1], fingerprint=where[0] * 64)
    losses = dict.fromkeys(("sl", "talos", "bpr"))
    results = fabric.results(data=data, backbones={"mf": None, "lightgcn": None}, losses=losses)
    write_report(build_report(results), tmp_path, ["csv"])
    long, wide = (list(csv.DictReader((tmp_path / name).open())) for name in ("table.csv", "table_wide.csv"))
    assert [row["loss"] for row in wide] == ["bpr", "sl", "talos"]
    assert [row["family"] for row in wide] == ["pointwise and pairwise", "softmax", "top-K accuracy"]
    unfolded = {
        (row["loss"], *name.split("|")): number
        for row in wide
        for name, number in row.items()
        if name not in ("loss", "family")
    }
    assert unfolded == {
        (row["loss"], row["data"], row["backbone"], row["metric"], part): row[part]
        for row in long
        for part in ("mean", "std")
    }
    assert unfolded["sl", "b", "mf", "ndcg_20", "mean"] == ""
    assert float(unfolded["talos", "b", "mf", "ndcg_20", "mean"]) == pytest.approx((0.31 + 0.1 + 0.3 / 7) / 3)


def test_a_significant_score_has_a_star_and_the_star_a_meaning(duel, tmp_path):
    plain_report = build_report(duel, ["ndcg_20"])
    report = replace(plain_report, table=with_stars(plain_report.table, {("ml-100k", "mf", "ndcg_20", "talos")}))
    assert [row.scores[0].significant for row in report.table.rows] == [
        row.loss == "talos" for row in report.table.rows
    ]
    write_report(report, tmp_path, ["md", "csv", "tex"])
    console = Console(file=io.StringIO(), width=200)
    console.print(show(report))
    markdown_text, latex_text = ((tmp_path / name).read_text() for name in ("table.md", "table.tex"))
    assert r"| Talos | **0.2100**\* ±0.0100 |" in markdown_text
    assert r"Talos & \textbf{0.2100}$^{*}$ {\scriptsize$\pm$0.0100} \\" in latex_text
    assert "0.2100* ±0.0100" in console.file.getvalue()
    stars = {row["loss"]: row["significant"] for row in csv.DictReader((tmp_path / "table.csv").open())}
    assert stars == {"bpr": "", "psl": "", "sl": "", "talos": "*"}
    for text in (markdown_text, latex_text, console.file.getvalue()):
        assert text.count("significantly better than the best baseline: paired t-test over users") == 1
    assert "significantly" not in as_markdown(duel)


def test_families_have_headings_where_there_are_several(fabric):
    for loss in ("bpr", "bce", "talos"):
        fabric.cell(loss, [0.1] * 3)
    lines = as_markdown(fabric.results(losses=dict.fromkeys(("talos", "bce", "bpr")))).splitlines()
    first = [line.split(" | ")[0].strip("| ") for line in lines if line.startswith("|")][2:7]
    assert first == ["*pointwise and pairwise*", "BCE", "BPR", "*top-K accuracy*", "Talos"]
    shown = terminal(fabric.results(losses=dict.fromkeys(("talos", "bce", "bpr"))))
    assert "rows by family: pointwise and pairwise (BCE, BPR); top-K accuracy (Talos)" in " ".join(shown.split())
    assert "pointwise" not in as_markdown(fabric.results(losses={"bpr": None, "bce": None}))


def test_every_renderer_shows_where_contents_are_mixed(fabric, tmp_path):
    a, b = "aa" * 32, "bb" * 32
    fabric.cell("bpr", [0.1] * 3, fingerprint=a)
    fabric.cell("talos", [0.2] * 3, fingerprint=b)
    results = fabric.results()
    with pytest.raises(InputError, match="--mix-fingerprints"):
        build_report(results)
    report = build_report(results, ["ndcg_20"], mix_fingerprints=True)
    write_report(report, tmp_path, ["csv", "md", "tex"])
    rows, seeds = (list(csv.DictReader((tmp_path / name).open())) for name in ("table.csv", "seeds.csv"))
    assert {row["loss"]: (row["fingerprint"], row["mark"]) for row in rows} == {"bpr": (a, ""), "talos": (b, "best")}
    assert {row["loss"]: row["fingerprint"] for row in seeds} == {"bpr": a, "talos": b}
    note = f"on other data, fingerprint {a[:12]}, not ranked; how they differ is not recorded"
    assert f"<sup>1</sup> {note}" in (tmp_path / "table.md").read_text()
    assert rf"\textsuperscript{{1}} {note}" in (tmp_path / "table.tex").read_text()
    console = Console(file=io.StringIO(), width=100)
    console.print(show(report))
    assert f"[1] {note}" in " ".join(console.file.getvalue().split())


def test_the_command_refuses_to_mix_contents_unless_told_to(fabric, tmp_path, monkeypatch, capsys):
    fabric.cell("bpr", [0.1] * 3, fingerprint="aa" * 32)
    fabric.cell("talos", [0.2] * 3, fingerprint="bb" * 32)
    monkeypatch.setattr("pipelines.report.report.read_results", lambda uri, name: fabric.results())
    command = ["report", "--experiment", "duel", "--out", str(tmp_path / "out"), "--storage", str(tmp_path)]
    assert run(command) == 2
    assert "--mix-fingerprints" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert run([*command, "--mix-fingerprints"]) == 0
    assert "not ranked" in capsys.readouterr().out
    assert "not ranked" in (tmp_path / "out" / "table.md").read_text()


def test_the_help_of_the_command_names_every_format(capsys):
    assert run(["report", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert ", ".join(f"{name} ({form.about})" for name, form in FORMATS.items()) in shown


def test_the_command_refuses_a_format_before_it_reads_a_store(tmp_path, capsys):
    assert run(["report", "--experiment", "duel", "--format", "md,htm", "--storage", str(tmp_path / "none")]) == 2
    assert "unknown format 'htm'" in capsys.readouterr().err


def test_write_report(duel, tmp_path):
    (tmp_path / "table.md").write_text("old")
    paths = write_report(build_report(duel), tmp_path, ["md", "csv"])
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "cost.csv", "seeds.csv", "significance.csv", "table.csv", "table.md", "table_wide.csv",
    ]  # fmt: skip
    assert sorted(paths) == sorted(tmp_path.iterdir())
    assert "Recall@20" in (tmp_path / "table.md").read_text(encoding="utf-8")


def test_write_report_refuses(duel, tmp_path):
    with pytest.raises(InputError, match=rf"unknown format 'markdown'; .*\(accepted: {', '.join(sorted(FORMATS))}\)"):
        write_report(build_report(duel), tmp_path, ["csv", "markdown"])
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="the report cannot be written"):
        write_report(build_report(duel), tmp_path / "file", ["md"])
