"""The comparison table as LaTeX: what is in it, and that pdflatex takes it."""

import re
import shutil
import subprocess
from dataclasses import replace

import pytest

from pipelines.report import build_report
from pipelines.report.latex import escape, latex
from pipelines.report.table import with_stars

HOSTILE = (
    r"[red]*x* a|b & 100% _u_ #1 $x$ {y} ~ ^ \input{x} \\ <script> `q' ?` \" -- é Łódź 中 ± " + "\x1b[31m\nnew line"
)


def rows(text):
    """First cell to the other ones, of every table."""
    lines = [line.removesuffix(r" \\") for line in text.splitlines() if line.endswith(r" \\") and " & " in line]
    return [line.split(" & ") for line in lines]


def grown(fabric, data, backbones, cutoffs):
    for number, name in enumerate(data):
        for backbone in backbones:
            where = {"data": name, "backbone": backbone, "fingerprint": f"{number:064x}", "protocol__cutoffs": cutoffs}
            fabric.cell("bpr", [0.1, 0.2, 0.3], **where)
            fabric.cell("talos", [0.4, 0.5, 0.6], **where)
    places = [{"name": name, "path": "p"} for name in data]
    return fabric.results(data=places, backbones=dict.fromkeys(backbones), baselines=["bpr"])


def test_rows_and_headings(fabric):
    text = latex(build_report(grown(fabric, ["a-data"], ["mf", "lightgcn"], [20]), ["ndcg_20"]))
    assert rows(text) == [
        ["", r"\multicolumn{2}{c}{a-data}"],
        ["", r"\multicolumn{1}{c}{MF}", r"\multicolumn{1}{c}{LightGCN}"],
        ["Loss", "NDCG@20", "NDCG@20"],
        ["BPR", *[r"\underline{0.2000} {\scriptsize$\pm$0.1000}"] * 2],
        ["Talos", *[r"\textbf{0.5000} {\scriptsize$\pm$0.1000}"] * 2],
        [r"Imp.\%", "$+150.00$", "$+150.00$"],
    ]
    assert re.findall(r"\\cmidrule\(lr\){(\d-\d)}", text) == ["2-3", "2-2", "3-3"]
    assert re.findall(r"textit{(.*?)}", text) == ["pointwise and pairwise", "top-K accuracy"]
    for said in ("K = 20, training positives hidden", "over seeds 1, 2, 3", "tuning budget, grid points: BPR 1"):
        assert said in text


def test_a_missing_score_is_a_footnote(fabric):
    fabric.cell("bpr", [0.1] * 3)
    text = latex(build_report(fabric.results(), ["ndcg_20"]))
    assert ["Talos", r"--\textsuperscript{1}"] in rows(text)
    assert r"\textsuperscript{1} no trial yet" in text


@pytest.mark.parametrize(
    ("data", "backbones", "cutoffs", "shapes"),
    [
        (["a"], ["mf", "lightgcn"], [20], [4]),
        (["a", "b"], ["mf"], [20], [4]),
        (["a", "b", "c"], ["mf"], [20], [6]),
        (["a", "b"], ["mf", "lightgcn"], [20], [4, 4]),
        (["a"], ["mf", "lightgcn"], [20, 50], [4, 4]),
        (["a"], ["mf", "lightgcn", "xsimgcl", "ncf"], [20], [6, 2]),
        (["a", "b"], ["mf"], [5, 10, 20, 50], [6, 2, 6, 2]),
    ],
)
def test_a_table_too_wide_for_a_page_is_several(fabric, data, backbones, cutoffs, shapes):
    report = build_report(grown(fabric, data, backbones, cutoffs))
    text = latex(report)
    assert [len(found) for found in re.findall(r"begin{tabular}{l(r+)}", text)] == shapes
    metrics = [cell for row in rows(text) if row[0] == "Loss" for cell in row[1:]]
    assert metrics == [column.metric_title for column in report.table.columns], "each column once, in its place"
    for table, part in zip(text.split(r"\begin{table*}")[1:], shapes, strict=True):
        assert {len(row) - 1 for row in rows(table) if not any("multicolumn" in cell for cell in row)} == {part}


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        ("SL@K (tau=0.1), K = 20: 1.5 to 2", "SL@K (tau=0.1), K = 20: 1.5 to 2"),
        ("100% & _x_ #1 $y {z}", r"100\% \& \_x\_ \#1 \$y \{z\}"),
        ("a~b^c\\d", r"a\textasciitilde{}b\textasciicircum{}c\textbackslash{}d"),
        ("<script>", r"\textless{}script\textgreater{}"),
        ("*a [b]", "{*}a {[}b{]}"),
        ("--mix ---x", "-{}-mix -{}-{}-x"),
        ("0.1 ± 0.2 ↓", r"0.1 $\pm$ 0.2 $\downarrow$"),
        ("é Ü ñ ç Łódź", r"\'{e} \"{U} \~{n} \c{c} \L{}\'{o}d\'{z}"),
        ("中\x00", "{[}U+4E2D{]}{[}U+0000{]}"),
    ],
)
def test_escape(text, printed):
    assert escape(text) == printed


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_pdflatex_takes_it_whatever_the_names_are(fabric, tmp_path):
    results = grown(fabric, ["a", "b"], ["mf", "lightgcn"], [20])
    fabric.select(fabric.trial("psl", data="a", fingerprint=f"{0:064x}"))
    fabric.trial("psl", data="a", fingerprint=f"{0:064x}", seed=1, stage="confirm", status="FAILED", error=HOSTILE)
    results = replace(fabric.results(), settings=results.settings, experiment=HOSTILE)
    results.settings["losses"] = {HOSTILE: {}, "psl": {}, **results.settings["losses"]}
    report = build_report(results)
    report = replace(report, table=with_stars(report.table, {("a", "mf", "ndcg_20", "talos")}))
    columns = tuple(replace(c, data=HOSTILE, backbone_title=HOSTILE) for c in report.table.columns)
    report = replace(report, table=replace(report.table, columns=columns))
    page = "\\documentclass{article}\n\\usepackage{booktabs}\n\\begin{document}\n" + latex(report) + "\\end{document}\n"
    (tmp_path / "page.tex").write_text(page, encoding="ascii")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "page.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", timeout=120)
    assert done.returncode == 0, done.stdout[-2000:]
    if shutil.which("pdftotext"):
        shown = subprocess.run(["pdftotext", "-layout", "page.pdf", "-"], cwd=tmp_path, capture_output=True, text=True)
        words = " ".join(shown.stdout.split())
        assert "\\input{x}" in words
        assert "* significantly better" in words
