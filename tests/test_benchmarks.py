"""The benchmarks' own parts: made data, the naive side's equality with ours, layouts, summaries, and the page."""

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch

from recloss.interactions import Interactions

FOLDER = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture(scope="module", autouse=True)
def scripts_beside_each_other():
    sys.path.insert(0, str(FOLDER))
    yield
    sys.path.remove(str(FOLDER))


def script(name):
    return importlib.import_module(name)


@pytest.fixture(scope="module")
def train():
    return script("data_sets").made(n_users=150, n_items=300, n_train=1500, n_test=300).train


def test_made_data_has_the_sizes_asked_for_and_a_pair_for_every_user():
    data = script("data_sets").made(100, 60, 1000, 200)
    assert (len(data.train), len(data.test), data.train.n_users, data.train.n_items) == (1000, 200, 100, 60)
    assert data.train.degrees.min() >= 1
    assert not data.train.contains(data.test.user, data.test.item).any()
    assert torch.bincount(data.train.item).max() > 3 * 1000 / 60 / 2


def test_a_subset_keeps_whole_users_and_the_tables_sizes(train):
    part = script("data_sets").subset(train, 700)
    assert 700 <= len(part) < 1000
    assert (part.n_users, part.n_items) == (train.n_users, train.n_items)
    assert bool(((part.degrees == 0) | (part.degrees == train.degrees)).all())


@pytest.mark.parametrize("name", ["sl", "psl", "slatk", "talos"])
def test_the_naive_side_computes_what_we_do(name, train):
    script("training_step").check(name, train)


def test_a_naive_step_trains(train):
    torch.manual_seed(0)
    naive = script("naive").Naive("talos", train, n_negatives=20)
    losses = [naive.step(train.user[:200], train.item[:200]) for _ in range(20)]
    assert sum(losses[-3:]) / 3 < losses[0]
    assert naive.beta.abs().max() > 0


def test_every_layout_gives_the_product(train):
    propagation = script("propagation")
    matrix = script("recloss.graph").normalised_adjacency(train)
    x = torch.randn(len(matrix), 8)
    products = propagation.layouts(matrix, x)
    for name, product in products.items():
        if "by degree" not in name:
            torch.testing.assert_close(product(), matrix.to_dense() @ x, msg=name)
    order = torch.argsort(matrix.crow_indices().diff(), descending=True, stable=True)
    reordered = propagation.bag(*propagation.by_degree(matrix), x[order])
    torch.testing.assert_close(reordered, (matrix.to_dense() @ x)[order])


def test_sides_alternate_after_a_warm_up_and_ratios_are_taken_round_by_round():
    common = script("common")
    seen = []

    def side(name, seconds):
        return lambda: seen.append(name) or common.Seconds(seconds * len(seen), 1.0)

    taken = common.paired({"a": side("a", 2.0), "b": side("b", 1.0)}, rounds=2)
    assert "".join(seen) == "ab" + "ab" + "ba"
    times = common.ratio(taken["a"], taken["b"])
    assert (times.low, times.high) == (2 * 3 / 4, 2 * 6 / 5)
    assert times.show("×") == "1.95× (1.5–2.4)"
    assert common.machine()["native kernels"] in ("on", "off")


def test_a_step_is_timed_by_fit(train):
    epochs = script("epochs")
    backbone = script("recloss.backbones").MF(train.n_users, train.n_items, dim=8)
    seconds = epochs.step_seconds(backbone, epochs.loss_for("sl", train, 5), train)
    assert epochs.steps_of(train) == 2
    assert 0 < seconds.wall < 60


def test_the_users_of_an_evaluation_are_cut_off(train):
    few = script("evaluation").first(train, 40)
    assert (few.n_users, few.n_items, len(few)) == (40, train.n_items, int(train.degrees[:40].sum()))
    assert isinstance(few, Interactions)


def test_the_page_has_a_line_for_every_goal_and_the_rows_of_every_script(tmp_path):
    run_all, common = script("run_all"), script("common")
    rows = [
        {"goal": 1, "what": "step, small", "measured": "30×", "detail": "1 | 2 ms", "wanted": "≥ 20×", "met": True},
        {"goal": 1, "what": "step, large", "measured": "9×", "detail": "", "wanted": "≥ 10×", "met": False},
        {"goal": 1, "what": "a reading", "measured": "5 ms", "detail": "", "wanted": "", "met": None},
    ]
    peers = [
        {"what": "epoch", "data": "tiny", "peer": "other", "theirs_s": 3.0, "ours_s": 2.0, "ratio": 1.5,
         "spread": [1.25, 2.0], "cpu_s": {"theirs": 6.0, "ours": 4.0}, "note": "threads: 2"},
        {"what": "epoch", "data": "tiny", "peer": "absent", "theirs_s": None, "ours_s": None, "ratio": None,
         "spread": None, "cpu_s": None, "note": "not installed"},
    ]  # fmt: skip
    for name, content in (("training_step", rows), ("peers", peers)):
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
        (tmp_path / f"{name}.about.json").write_text(json.dumps({"command": f"python {name}", "note": "9 s"}))
    sections = [run_all.kept(name, tmp_path) for name in run_all.SCRIPTS]
    text = run_all.page(sections, {"CPU": "one"}, "make bench")
    lines = text.splitlines()
    goals = [line for line in lines if line.startswith(tuple(f"| {goal}. " for goal in range(1, 8)))]
    assert len(goals) == 7
    assert goals[0] == (
        "| 1. training step against the naive way | ≥ 20×; ≥ 10× | step, small: 30×<br>step, large: 9× | 1 of 2 |"
    )
    assert goals[1].endswith("| – | – | not measured |")
    assert goals[6].endswith("| epoch, tiny, other: 1.5× (1.25–2)<br>epoch, tiny, absent: – | 1 of 2 |")
    assert r"| step, small | 30× | ≥ 20× | yes | 1 \| 2 ms |" in lines
    assert "| a reading | 5 ms |  |  |  |" in lines
    assert any(line.startswith("| epoch, tiny, absent | – | ahead: > 1× | not measured |") for line in lines)
    assert "`peers/run.py`: not run." not in text
    assert "`parallel.py`: not run." in text
    assert "small" in common.table([run_all.from_json(row) for row in rows])


def test_every_script_exists():
    assert all((FOLDER / path).exists() for path in script("run_all").SCRIPTS.values())
