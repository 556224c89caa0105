"""The page as a parser sees it: what it says, where it says it, and that text stays text."""

import base64
import dataclasses
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pytest

import pipelines.report
from pipelines.report import build_report
from pipelines.report.html import html
from pipelines.settings import SweepSettings, parse

HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(1)</script>",
    "</style></title><b>x</b>",
    "\"' onmouseover='alert(1)' & &amp; {{ 7 * 7 }} {% raw %}",
    "x" * 500,
)
REVERSED = "abc\u202edef\u200f\x1b[31m\x00\n"
VOID = {"meta", "link", "input", "img", "br"}
ROOT = Path(pipelines.report.__file__).parent


class Tree(HTMLParser):
    """The page as a tree; a tag that is not closed where it should be is an error."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.builder, self.open = ElementTree.TreeBuilder(), []
        self.feed(text)
        self.close()
        assert self.open == []
        self.root = self.builder.close()

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), f"an attribute twice: {attrs}"
        self.builder.start(tag, {key: value or "" for key, value in attrs})
        if tag in VOID:
            self.builder.end(tag)
        else:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        self.builder.end(tag)

    def handle_data(self, data):
        if self.open:
            self.builder.data(data)


def tree(report):
    return Tree(html(report)).root


def said(element):
    return " ".join("".join(element.itertext()).split())


def by_id(root, name):
    (found,) = root.iterfind(f".//*[@id='{name}']")
    return found


def facts(root, heading):
    """The details of the cell whose heading starts so."""
    return next(e for e in root.iterfind(".//div[@class='facts']") if said(e.find("h3")).startswith(heading))


@pytest.fixture
def duel(fabric):
    """Talos ahead of BPR, PSL failed, SL not run."""
    fabric.cell("bpr", [0.10, 0.11, 0.12])
    fabric.cell("talos", [0.2, 0.21, 0.22])
    fabric.select(fabric.trial("psl"))
    fabric.trial("psl", seed=1, stage="confirm", status="FAILED", error="loss is nan")
    return fabric.results(losses=dict.fromkeys(("bpr", "sl", "psl", "talos")), baselines=["bpr"])


def test_the_table(duel):
    table = tree(build_report(duel)).find(".//table[@class='main sortable']")
    assert [said(th) for th in table.iterfind("thead//th")] == ["Loss", "MF", "Recall@20", "NDCG@20"]
    rows = {said(row[0]): row for row in table.iterfind("tbody/tr[@class='loss']")}
    assert list(rows) == ["BPR", "SL", "PSL", "Talos"]
    assert [said(tr) for tr in table.iterfind(".//tr[@class='family']")] == [
        "pointwise and pairwise", "softmax", "top-K accuracy"
    ]  # fmt: skip
    bpr, sl, _, talos = rows.values()
    assert [said(td) for td in bpr.iterfind("td")] == ["0.0550 ±0.0050", "0.1100 ±0.0100"]
    assert float(talos[2].get("data-value")) == pytest.approx(0.21)
    assert "best" in talos[2].find("a").get("class").split()
    assert "second" in bpr[2].find("a").get("class").split()
    assert said(sl[1]) == "--1"
    assert "data-value" not in sl[1].attrib
    (gain,) = table.iterfind("tfoot/tr")
    assert [said(cell) for cell in gain] == ["Imp.%", "+90.91", "+90.91"]


def test_footnotes_and_every_other_link_lead_somewhere(duel):
    root = tree(build_report(duel))
    assert said(by_id(root, "note-1")) == "no trial yet"
    assert said(by_id(root, "note-2")) == "failed: loss is nan"
    ids = [element.get("id") for element in root.iter() if "id" in element.attrib]
    assert len(set(ids)) == len(ids)
    targets = {a.get("href") for a in root.iterfind(".//a")}
    assert {"#note-1", "#note-2", "#results", "#cost"} <= targets
    assert targets <= {f"#{name}" for name in ids}
    for element in root.iter():
        assert set(element.get("aria-labelledby", "").split()) <= set(ids)


def test_columns_of_the_head_and_of_the_rows_agree(fabric):
    for backbone in ("mf", "lightgcn"):
        fabric.cell("bpr", [0.1] * 3, backbone=backbone, protocol__cutoffs=[20, 50])
    table = tree(build_report(fabric.results(backbones={"mf": None, "lightgcn": None}, baselines=["bpr"]))).find(
        ".//table[@class='main sortable']"
    )
    top, below = table.iterfind("thead/tr")
    assert sum(int(th.get("colspan")) for th in top[1:]) == len(below) == 8
    assert [int(th.get("data-column")) for th in below] == list(range(1, 9))
    assert {len(row) for row in table.iterfind("tbody/tr[@class='loss']")} == {9}
    assert {len(row) for row in table.iterfind("tfoot/tr")} == {9}


def test_a_score_leads_to_its_cell(fabric):
    chosen = fabric.trial("talos", loss__tau=0.1, optim__lr=0.01)
    fabric.trial("talos", loss__tau=0.2, optim__lr=0.01)
    fabric.trial("talos", loss__tau=0.3, optim__lr=0.01, status="FAILED", error="nan")
    fabric.select(chosen, value=0.4)
    for seed, ndcg in ((3, 0.3), (1, 0.1)):
        scores = {"test/ndcg_20": ndcg, "test/recall_20": 0.5, "seconds": 30.0, "epochs": 20.0}
        fabric.trial("talos", seed=seed, stage="confirm", loss__tau=0.1, optim__lr=0.01, scores=scores)
    fabric.trial(
        "talos", seed=2, stage="confirm", loss__tau=0.1, optim__lr=0.01, status="FAILED", error="CUDA out of memory"
    )
    cost = {"seconds": 360.0, "cpu_seconds": 720.0, "gpu_seconds": 0.0, "peak_memory": 1.5e9}
    fabric.trials = [dataclasses.replace(t, cost=cost, run_id=f"run{i}") for i, t in enumerate(fabric.trials)]
    key = ("ml-100k", "mf", "talos")
    results = dataclasses.replace(
        fabric.results(),
        notes={key: ("successive halving: 1 of 3 pruned", "talos: loss.tau: [0.1, 0.2, 0.3]  ->  add 0.05")},
        run_ids={key: "cellrun"},
    )
    root = tree(build_report(results))
    (row,) = [
        row for row in root.iterfind(".//table[@class='main sortable']//tr") if row.get("data-loss") == "Talos talos"
    ]
    details = by_id(root, row.find("td/a").get("href")[1:])
    assert details == facts(root, "Talos")
    assert said(details.find("dl")) == "loss.tau0.1", "what the search varied"
    text = said(details)
    assert "Selected with valid/ndcg_20 0.4000" in text
    assert "On an edge of what was searched: talos: loss.tau: [0.1, 0.2, 0.3]. To extend it: add 0.05" in text
    assert "successive halving: 1 of 3 pruned" in text
    assert "Configurations tried: 3. Trials failed: 1, pruned: 0." in text
    assert "0.600 h of wall time in 6 trials, 1.200 CPU hours, 0.000 GPU hours, peak 1.50 GB; 1.500 s an epoch" in text
    assert "MLflow cellrun ml-100k | mf | talos" in text
    seeds = [[said(td) for td in tr] for tr in details.iterfind(".//tbody/tr")]
    hashes = {t.seed: t.hash for t in fabric.trials if t.stages == ("confirm",)}
    assert seeds == [
        ["1", "0.5000", "0.1000", "1.500", hashes[1]],
        ["2", "failed: CUDA out of memory", hashes[2]],
        ["3", "0.5000", "0.3000", "1.500", hashes[3]],
    ]
    assert "optim.lr0.01" in said(details.find("details"))


def test_a_cell_without_a_result_says_why(duel):
    assert "No result: no trial yet" in said(facts(tree(build_report(duel)), "SL MF"))


def test_runs_are_links_where_mlflow_has_a_server_only(duel):
    duel = dataclasses.replace(
        duel,
        experiment_id="7",
        run_ids={("ml-100k", "mf", "bpr"): "cell"},
        trials=tuple(dataclasses.replace(t, run_id=f"run{i}") for i, t in enumerate(duel.trials)),
    )
    report = build_report(duel)
    assert [a for a in tree(report).iterfind(".//a") if not a.get("href").startswith("#")] == []
    linked = tree(dataclasses.replace(report, server="http://host:5000"))
    links = {a.get("href") for a in linked.iterfind(".//a") if not a.get("href").startswith("#")}
    first = "http://host:5000/#/experiments/7/runs/"
    confirmed = [t.run_id for t in duel.trials if t.stages == ("confirm",)]
    assert links == {first + run for run in ("cell", *confirmed)}


class TestHostileText:
    @pytest.fixture(params=[*HOSTILE, REVERSED], ids=["img", "script", "style", "quotes", "long", "reversed"])
    def text(self, request):
        return request.param

    @pytest.fixture
    def page(self, fabric, text):
        fabric.cell("bpr", [0.1] * 3)
        fabric.cell("talos", [0.2] * 3)
        fabric.trial("talos", stage="confirm", seed=4, status="FAILED", error=text)
        fabric.rename(data=text, environment={"host": text, "git_commit": text})
        fabric.selections = {(text, *key[1:]): value for key, value in fabric.selections.items()}
        results = fabric.results()
        results.settings["data"][0]["name"] = text
        results.settings["losses"] |= {text: {}}
        results.manifests["ab" * 32] = {"settings": {text: text}, "fingerprint": text}
        results.notes[text, "mf", "bpr"] = (f"{text} -> {text}", text)
        report = build_report(dataclasses.replace(results, experiment=text, run_ids={(text, "mf", "bpr"): text}))
        comparison = (text, text, f"<svg xmlns='http://www.w3.org/2000/svg'><script>{text}</script></svg>")
        return html(dataclasses.replace(report, figures={text: comparison}))

    def test_is_text(self, page, text):
        root = Tree(page).root
        shown = " ".join("".join(c if c.isprintable() else " " for c in text).split())
        assert said(root.find(".//h1")) == shown
        assert shown in said(root.find(".//title"))
        places = ["h3/bdi", "h3/small/bdi", "dd", "summary/bdi", "figcaption"]
        for place in places:
            assert any(shown in said(element) for element in root.iterfind(f".//{place}")), place
        titles = [said(th[0]) for th in root.iterfind(".//tr[@class='loss']/th") if th.get("data-value")]
        assert shown in titles
        assert shown in said(by_id(root, "failures"))
        assert shown in said(by_id(root, "environment"))
        assert shown in said(by_id(root, "reproduce"))

    def test_adds_no_element_and_no_attribute(self, page):
        root = Tree(page).root
        assert len(list(root.iterfind(".//script"))) == len(list(root.iterfind(".//style"))) == 1
        assert [img.get("src")[:26] for img in root.iterfind(".//img")] == ["data:image/svg+xml;base64,"]
        assert not [key for element in root.iter() for key in element.attrib if key.startswith("on") or key == "style"]
        known = "accept aria autocomplete alt charset checked class colspan content datetime dir for hidden href"
        known += (
            " http-equiv id lang name open placeholder rel role rowspan scope spellcheck src tabindex title type value"
        )
        used = {key for element in root.iter() for key in element.attrib}
        assert {key for key in used if not key.startswith(("data-", "aria-"))} <= set(known.split())

    def test_has_no_control_character_or_mark_of_direction(self, page):
        assert [c for c in page if not c.isprintable() and c != "\n"] == []

    def test_is_in_the_record_of_the_settings(self, page, text):
        (record,) = Tree(page).root.iterfind(".//section[@id='data']//pre")
        assert json.loads("".join(record.itertext())) == {"settings": {text: text}, "fingerprint": text}


def test_the_policy_lets_this_style_and_this_script_run_and_nothing_else(duel):
    root = tree(build_report(duel))
    (policy,) = [m.get("content") for m in root.iterfind(".//meta[@http-equiv='Content-Security-Policy']")]
    parts = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    assert parts["default-src"] == "'none'"
    for kind in ("style", "script"):
        content = "".join(root.find(f".//{kind}").itertext())
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert parts[f"{kind}-src"] == f"'sha256-{digest}'"
    assert parts["img-src"] == "data:"
    assert "unsafe" not in policy
    sources = [e.get(key) for e in root.iter() for key in ("src", "srcset", "data", "action") if key in e.attrib]
    assert all(source.startswith("data:") for source in sources)


def test_figures_are_images_that_hold_the_whole_svg(duel):
    svgs = [f"<svg xmlns='http://www.w3.org/2000/svg'><g id='axes'>{i}</g></svg>" for i in range(2)]
    figures = {f"f{i}": (f"Figure {i}", "What it shows", svg) for i, svg in enumerate(svgs)}
    root = tree(dataclasses.replace(build_report(duel), figures=figures))
    images = list(root.iterfind(".//figure/img"))
    assert [base64.b64decode(i.get("src").partition("base64,")[2]).decode() for i in images] == svgs
    assert [i.get("alt") for i in images] == ["Figure 0. What it shows", "Figure 1. What it shows"]
    assert list(root.iterfind(".//svg")) == []


def per_user(results, **means):
    """Made-up scores of 40 users by trial: losses with their mean NDCG, and a little of the trial's own."""
    users, tables = np.arange(40), {}
    for number, trial in enumerate(t for t in results.trials if t.stages == ("confirm",)):
        noise = np.random.default_rng(number).normal(0, 0.01, len(users))
        tables[trial.hash] = pa.table({"user": users, "ndcg_20": means[trial.loss] + noise})
    return tables


def test_statistics_are_told_in_words(fabric):
    means = {"bpr": 0.1, "sl": 0.1, "talos": 0.3}
    for loss, mean in means.items():
        fabric.cell(loss, [mean] * 3)
    results = fabric.results(losses=dict.fromkeys(means), baselines=["bpr"])
    root = tree(build_report(results, ["ndcg_20"], users=per_user(results, **means)))
    baseline, best = by_id(root, "statistics").iterfind("details")
    assert said(baseline[0]) == "ml-100k, MF, NDCG@20: against the best baseline, BPR (p corrected for 2 pairs)"
    assert ["open" in details.attrib for details in (baseline, best)] == [True, False]
    sentences = [said(li) for li in baseline.iterfind("ul/li")]
    assert len(sentences) == 2
    assert sentences[1].startswith("Talos is better than BPR by 0.1")
    (starred,) = [
        row for row in root.iterfind(".//table[@class='main sortable']//tr[@class='loss']") if "*" in said(row)
    ]
    assert said(starred) == "Talos0.3000 ±0.0000*"
    assert "* significantly better than the best baseline" in said(by_id(root, "results"))


def test_losses_are_ranked_across_data_sets(fabric):
    names = ("a", "b", "c")
    for data in names:
        for loss, mean in (("bpr", 0.1), ("sl", 0.3), ("talos", 0.2)):
            fabric.cell(loss, [mean] * 3, data=data)
    data = [{"name": name, "path": "p"} for name in names]
    results = fabric.results(data=data, losses=dict.fromkeys(("bpr", "sl", "talos")))
    (lines,) = by_id(tree(build_report(results)), "statistics").iterfind("ul")
    first = "MF, NDCG@20, mean ranks over 3 data sets (a, b, c), 1 is best: SL 1.00, Talos 2.00, BPR 3.00"
    assert said(lines[0]) == first
    assert "Friedman's test" in said(lines[1])


def test_a_reference_leads_to_its_own_cell_from_every_backbone(fabric):
    fabric.cell("talos", [0.05] * 3)
    fabric.rename(backbone="reference", loss="mostpop")
    (selection,) = fabric.selections.values()
    fabric.selections = {("ml-100k", "reference", "mostpop"): selection}
    for backbone in ("mf", "lightgcn"):
        fabric.cell("bpr", [0.1] * 3, backbone=backbone)
    results = fabric.results(backbones={"mf": None, "lightgcn": None}, losses={"bpr": None}, references={"mostpop": {}})
    root = tree(build_report(results))
    (row,) = root.iterfind(".//table[@class='main sortable']//tr[@data-loss='MostPop mostpop']")
    (anchor,) = {a.get("href") for a in row.iterfind("td/a")}
    assert said(by_id(root, anchor[1:]).find("h3")) == "MostPop reference on ml-100k"
    assert "Selected with valid/ndcg_20 0.5000 One configuration" in said(by_id(root, anchor[1:]))
    assert [said(td) for td in row.iterfind("td")] == ["0.0250 ±0.0000", "0.0500 ±0.0000"] * 2


def test_the_environment_says_where_it_differs(fabric):
    fabric.cell("bpr", [0.1] * 3)
    fabric.rename(environment={"torch": "2.13", "threads": "1", "pid": "5"})
    fabric.trials[0] = dataclasses.replace(fabric.trials[0], environment={"torch": "2.13", "threads": "2", "pid": "6"})
    lines = [said(div) for div in by_id(tree(build_report(fabric.results())), "environment").iterfind("dl/div")]
    assert lines == ["torch2.13", "threads differs1 (3), 2 (1)"]


def test_failures_are_told_by_reason(fabric):
    for loss in ("bpr", "talos"):
        for seed in (0, 1):
            fabric.trial(loss, seed=seed, status="FAILED", error="loss is nan")
    fabric.trial("talos", seed=2, status="FAILED", error="CUDA out of memory")
    fabric.trials[-1] = dataclasses.replace(fabric.trials[-1], failures=("crash", "out of memory"))
    told = [said(div) for div in by_id(tree(build_report(fabric.results())), "failures").iterfind("div")]
    hashes = [trial.hash for trial in fabric.trials]
    assert told[0].startswith("4 trials: loss is nan ml-100k, mf, bpr; ml-100k, mf, talos Trials")
    assert all(name in told[0] for name in hashes[:4])
    assert told[1].startswith("1 trial, out of memory: CUDA out of memory ml-100k, mf, talos")
    assert hashes[4] in told[1]


def test_the_settings_on_the_page_are_a_sweep_file(duel):
    section = by_id(tree(build_report(duel)), "reproduce")
    settings = json.loads("".join(section.find("details/pre").itertext()))
    assert parse(SweepSettings, settings, "page").model_dump(mode="json") == duel.settings
    assert "recloss report --experiment duel --format html" in said(section)


def test_the_day_is_that_of_the_latest_trial(fabric):
    fabric.cell("bpr", [0.1] * 3)
    day = 86400.0
    fabric.trials[1] = dataclasses.replace(fabric.trials[1], start=day, end=3 * day + 5)
    fabric.trials[2] = dataclasses.replace(fabric.trials[2], start=2 * day)
    root = tree(build_report(fabric.results()))
    assert root.find(".//time").get("datetime") == "1970-01-04"


def test_a_sweep_without_any_trial_has_a_page(fabric):
    root = tree(build_report(fabric.results()))
    assert "no trial yet" in said(root.find(".//header"))
    assert root.find(".//*[@id='environment']") is None
    assert root.find(".//*[@id='failures']") is None


def test_equal_reports_make_equal_pages(duel):
    assert html(build_report(duel)) == html(build_report(duel))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read(scheme):
    """WCAG 2.2, success criterion 1.4.3: a contrast of 4.5 at least."""
    css = (ROOT / "page" / "page.css").read_text()
    light, dark = css.split("@media (prefers-color-scheme: dark)", 1)
    palette = dict(re.findall(r"--([\w-]+): #(\w{6})", light))
    if scheme == "dark":
        palette |= dict(re.findall(r"--([\w-]+): #(\w{6})", dark.split("@media", 1)[0]))

    def luminance(name):
        parts = [int(palette[name][i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    pairs = [(text, ground) for text in ("ink", "quiet", "accent") for ground in ("page", "shade")]
    for text, ground in [*pairs, ("warn", "warn-shade")]:
        dim, bright = sorted((luminance(text), luminance(ground)))
        assert (bright + 0.05) / (dim + 0.05) >= 4.5, (text, ground)
