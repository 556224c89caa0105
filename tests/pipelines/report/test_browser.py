"""The page as a reader has it: in Chromium, from a file, without a network."""

import dataclasses
import shutil

import pytest

from pipelines.report import build_report
from pipelines.report.html import html

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
HOSTILE = ["<img src=x onerror=alert(1)>", "</script><script>alert(1)</script>", "\"'&", "x" * 500]
SVG = "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 9 9'><style>*{{fill:red}}</style><script>{}</script></svg>"


@pytest.fixture(scope="module")
def chromium():
    sync = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("no chromium on this machine")
    with sync.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def show(chromium, tmp_path):
    """Open a report; at the end nothing may have been complained of, asked for or run."""
    trouble, contexts = [], []

    def opened(report, **options):
        file = tmp_path / "report.html"
        file.write_text(html(report), encoding="utf-8")
        contexts.append(chromium.new_context(**options))
        page = contexts[-1].new_page()
        page.on("console", lambda message: trouble.append(f"console: {message.text}"))
        page.on("pageerror", lambda error: trouble.append(f"error: {error}"))
        page.on("dialog", lambda dialog: trouble.append(f"dialog: {dialog.message}"))
        page.on("request", lambda request: asked(request.url, file.as_uri()))
        page.goto(file.as_uri())
        return page

    def asked(url, own):
        if url != own and not url.startswith("data:"):
            trouble.append(f"request: {url}")

    yield opened
    for context in contexts:
        context.close()
    assert trouble == []


@pytest.fixture
def results(fabric):
    """Two data sets, two backbones; PSL was not run on LightGCN. Values whose order by text is another."""
    ndcg = {"bpr": 0.05, "sl": 0.2, "psl": 0.11, "talos": 0.1}
    for data, shift in (("ml-100k", 0.0), ("health", -0.04)):
        for backbone in ("mf", "lightgcn"):
            for loss, value in ndcg.items():
                if (backbone, loss) != ("lightgcn", "psl"):
                    fabric.cell(loss, [value + shift] * 3, data=data, backbone=backbone)
    return fabric.results(
        data=[{"name": name, "path": "p"} for name in ("ml-100k", "health")],
        backbones={"mf": None, "lightgcn": None},
        losses=dict.fromkeys(ndcg),
        baselines=["bpr"],
    )


def losses(page, data="ml-100k"):
    """Titles of the rows that are shown, from top to bottom."""
    return page.locator(f"section[data-data='{data}'] tr.loss:visible th .name").all_inner_texts()


def heading(page, column):
    return page.locator("section[data-data='ml-100k'] th[data-column]").nth(column)


def test_sorts_by_value_in_both_directions_and_back(show, results):
    page = show(build_report(results))
    given = losses(page)
    ndcg, states = heading(page, 2), []
    for _ in range(3):
        ndcg.get_by_role("button").click()
        states.append((ndcg.get_attribute("aria-sort"), losses(page)))
    assert states == [
        ("descending", ["SL", "PSL", "Talos", "BPR"]),
        ("ascending", ["BPR", "Talos", "PSL", "SL"]),
        (None, given),
    ]
    assert losses(page, "health") == given, "each table for itself"


def test_what_is_missing_comes_last_either_way(show, results):
    page = show(build_report(results))
    for expected in (["SL", "Talos", "BPR", "PSL"], ["BPR", "Talos", "SL", "PSL"]):
        heading(page, 4).get_by_role("button").click()
        assert losses(page) == expected


def test_sorts_by_the_keyboard(show, results):
    page = show(build_report(results))
    heading(page, 0).get_by_role("button").focus()
    page.keyboard.press("Enter")
    assert (heading(page, 0).get_attribute("aria-sort"), losses(page)) == ("ascending", ["BPR", "PSL", "SL", "Talos"])
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    assert heading(page, 0).get_attribute("aria-sort") is None
    assert heading(page, 1).get_attribute("aria-sort") == "descending"
    assert losses(page) == ["SL", "PSL", "Talos", "BPR"]


def test_filters_rows_tables_and_columns(show, results):
    page = show(build_report(results))
    page.get_by_label("Losses").fill("sl")
    assert losses(page) == ["SL", "PSL"]
    assert page.locator("section[data-data='ml-100k'] tr.family:visible").all_inner_texts() == ["softmax"]
    page.get_by_label("Losses").fill("none of them")
    assert page.get_by_role("status").is_visible()
    page.get_by_label("Losses").fill("")
    page.get_by_role("checkbox", name="health").uncheck()
    assert page.locator("section.data:visible h3").all_inner_texts() == ["ml-100k 0123456789ab"]
    page.get_by_role("checkbox", name="MF", exact=True).uncheck()
    page.get_by_role("checkbox", name="Recall@20").uncheck()
    table = page.locator("section[data-data='ml-100k'] table")
    assert [t.strip() for t in table.locator("thead th:visible").all_inner_texts()] == ["Loss", "LightGCN", "NDCG@20"]
    assert table.locator("th.backbone:visible").get_attribute("colspan") == "1"
    assert table.locator("tr[data-loss='SL sl'] td:visible").all_inner_texts() == ["0.2000 ±0.0000"]
    assert table.locator("tfoot td:visible").all_inner_texts() == ["+300.00"]
    heading(page, 4).get_by_role("button").click()
    assert losses(page) == ["SL", "Talos", "BPR", "PSL"], "sorts what is filtered"
    cells = page.locator("table.cost tr.loss:visible").all_inner_texts()
    assert [cell.split("\t")[:3] for cell in cells] == [
        ["ml-100k", "LightGCN", title] for title in ("BPR", "SL", "PSL", "Talos")
    ]


def test_a_score_opens_its_cell_by_keyboard_and_gives_the_focus_back(show, results):
    page = show(build_report(results))
    score = page.locator("section[data-data='health'] tr[data-loss='SL sl'] a.score").nth(2)
    score.focus()
    page.keyboard.press("Enter")
    panel = page.get_by_role("dialog")
    assert panel.is_visible()
    assert panel.get_attribute("aria-label").split() == ["SL", "LightGCN", "on", "health"]
    hashes = [
        t.hash
        for t in results.trials
        if (t.data, t.backbone, t.loss, t.stages) == ("health", "lightgcn", "sl", ("confirm",))
    ]
    assert panel.locator("tbody code").all_inner_texts() == hashes
    page.keyboard.press("Escape")
    assert not panel.is_visible()
    assert score.evaluate("element => element === document.activeElement")


def test_without_scripts_it_says_the_same(show, results):
    page = show(build_report(results), java_script_enabled=False)
    assert losses(page) == ["BPR", "SL", "PSL", "Talos"]
    assert not page.locator(".filters").is_visible()
    assert page.get_by_role("button").count() == 0
    page.locator("section[data-data='health'] tr[data-loss='SL sl'] a.score").first.click()
    assert page.locator("details.cell[open] h4").first.is_visible(), "a link opens the details it leads into"


@pytest.mark.parametrize("text", HOSTILE, ids=["img", "script", "quotes", "long"])
def test_hostile_names_are_shown_as_text(show, fabric, text):
    fabric.cell("bpr", [0.1] * 3)
    fabric.trial("talos", status="FAILED", error=text)
    fabric.rename(data=text, environment={"host": text})
    fabric.selections = {(text, *key[1:]): value for key, value in fabric.selections.items()}
    found = fabric.results()
    found.settings["data"][0]["name"] = text
    found.settings["losses"] |= {text: {}}
    report = build_report(dataclasses.replace(found, experiment=text))
    figures = {"f": (text, text, SVG.format("alert(1)"))}
    page = show(dataclasses.replace(report, figures=figures), viewport={"width": 360, "height": 740})
    assert page.locator("h1").inner_text() == text
    assert page.locator("tr.loss:visible th .name").all_inner_texts()[-1] == text
    assert text in page.locator("#failures").inner_text()
    page.locator("a.score").first.click()
    assert text in page.get_by_role("dialog").inner_text()
    assert page.locator("img").count() == 1
    assert page.locator("img").evaluate("image => image.decode().then(() => image.naturalWidth > 0)")
    assert page.evaluate("document.documentElement.scrollWidth") == 360


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_narrow_window_scrolls_the_tables_and_not_the_page(show, results, scheme):
    page = show(build_report(results), viewport={"width": 360, "height": 740}, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    box = page.locator(".scroll").first
    assert box.evaluate("box => box.scrollWidth > box.clientWidth")
    ground = page.locator("body").evaluate("body => getComputedStyle(body).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") == (scheme == "light")


def test_prints_the_tables_without_what_needs_a_screen(show, results):
    page = show(build_report(results))
    page.emulate_media(media="print")
    assert page.locator("table.main:visible").count() == 2
    for name in (".filters", "nav", "#cells", "dialog"):
        assert not page.locator(name).first.is_visible(), name
    assert page.pdf().startswith(b"%PDF")
