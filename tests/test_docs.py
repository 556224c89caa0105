"""The README and the pages in docs/: their code runs, their commands are accepted, their links lead somewhere."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
import torch
import yaml

from pipelines.commands import recloss
from pipelines.settings import SpaceSettings, SweepSettings, parse, read
from pipelines.sweep.plan import plan
from recloss.losses import LOSSES, Batch
from recloss.losses.talos import talos

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


def test_the_loop_of_ones_own_in_the_readme_runs():
    names: dict = {}
    exec("\n".join(blocks(ROOT / "README.md", "python")), names)
    user, pos, neg, positives = (names[name] for name in ("user", "pos", "neg", "positives"))
    threshold = names["loss"].threshold
    expected = talos(pos, neg, torch.zeros(2), 0.1).mean() + threshold.loss(user, neg, positives)
    assert names["value"].item() == pytest.approx(expected.item())
    assert threshold.value.grad.nonzero().flatten().tolist() == [3, 7]
    assert pos.grad.abs().min() > 0
    assert neg.grad.abs().min() > 0


USES = blocks(ROOT / "docs" / "use-a-loss.md", "python")


@pytest.mark.parametrize("block", USES, ids=["plain", "state", "lightning", "two-tower"])
def test_every_loop_of_the_page_on_using_a_loss_learns(block):
    if "lightning" in block:
        pytest.importorskip("pytorch_lightning")
    torch.manual_seed(0)
    names: dict = {}
    exec(block, names)
    history = names["history"]
    assert sum(history[-5:]) / 5 < sum(history[:3]) / 3 - 0.3


def test_the_loop_of_the_page_on_ranking_learns():
    torch.manual_seed(0)
    names: dict = {}
    exec(blocks(ROOT / "docs" / "ranking.md", "python")[0], names)
    assert names["history"][-1] < names["history"][0] - 0.05


def test_the_loss_of_the_page_on_adding_one_works():
    page = ROOT / "docs" / "add-a-loss.md"
    names: dict = {}
    exec(blocks(page, "python")[0], names)
    loss = names["Hinge"](margin=0.5)
    batch = Batch(torch.tensor([0.4, -0.2]), torch.tensor([[0.1, -0.5], [0.3, 0.0]]))
    assert float(loss(batch)) == pytest.approx(((0.2 + 0) / 2 + (1.0 + 0.7) / 2) / 2)
    space = parse(SpaceSettings, yaml.safe_load(blocks(page, "yaml")[0]), "page")
    assert "loss.margin" in space.space


def commands() -> list[str]:
    lines = [line for page in PAGES for block in blocks(page, "sh") for line in block.splitlines()]
    return sorted({line.split("#")[0].strip() for line in lines if line.startswith("recloss ")})


@pytest.mark.parametrize("line", commands())
def test_every_command_of_the_pages_is_one(line):
    """Every command, option and argument is accepted; nothing is run."""
    words = shlex.split(line)[1:]
    command: click.Command = recloss
    context = click.Context(command)
    while isinstance(command, click.Group):
        command = command.get_command(context, words.pop(0))
        assert command is not None, line
    command.make_context("recloss", words, resilient_parsing=False)


def test_the_readme_names_every_command_and_there_are_some():
    named = {line.split()[1] for line in commands()}
    assert named == set(recloss.commands)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


SEQUENCES = ROOT / "docs" / "sequences.md"


def test_the_code_of_the_page_on_sequences_finds_the_next_item():
    names: dict = {}
    exec(blocks(SEQUENCES, "python")[0], names)
    assert names["found"]["ndcg_5"] > 0.9


def test_the_example_of_the_page_on_sequences_plans():
    [text] = blocks(SEQUENCES, "yaml sweep")
    raw = {"name": "s", "data": [{"name": "a", "path": "x"}]} | yaml.safe_load(text)
    [cell] = plan(parse(SweepSettings, raw, "page"), {})
    assert len(cell.configurations) == 3


SWEEPS = ROOT / "docs" / "sweeps.md"


def test_the_metrics_of_the_page_on_sweeps_are_measured():
    names: dict = {}
    exec(blocks(SWEEPS, "python")[0], names)
    found = names["found"].mean()
    assert found["recall_1"] == 0.5, "item 2 is shown to both, who like 2 and 1"
    assert found["novelty_1"] == 1.0, "nobody has it: as if one of two users had"
    assert found["coverage_1"] == 0.25


RANDOM = {"method": "random", "trials": 3}


@pytest.mark.parametrize("text", [*blocks(SWEEPS, "yaml sweep"), *blocks(SWEEPS, "yaml losses")])
def test_every_example_of_the_page_on_sweeps_plans(text):
    part = yaml.safe_load(text)
    part = part if SweepSettings.model_fields.keys() & part.keys() else {"losses": part, "search": RANDOM}
    raw = {"name": "s", "data": [{"name": "a", "path": "x"}], "backbones": {"mf": None}, "losses": {"llpauc": None}}
    if "trials_per_cell" in part.get("budget", {}):
        part["losses"] = {"sl": None}
    for cell in plan(parse(SweepSettings, raw | part, "page"), {}):
        assert cell.grid


@pytest.mark.parametrize("file", sorted((ROOT / "tune_spaces" / "sweeps").glob("*.yaml")), ids=lambda file: file.name)
def test_every_packaged_sweep_plans(file):
    cells = plan(read(SweepSettings, file), {})
    assert all(cell.grid for cell in cells)


def test_the_readme_lists_every_loss():
    listed = re.findall(r"^\| `(\w+)` \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(LOSSES)


def test_the_catalogue_of_losses_is_current():
    made = subprocess.run(
        [sys.executable, ROOT / "docs" / "make_catalogue.py", "--check"], capture_output=True, text=True
    )
    assert made.returncode == 0, made.stdout + made.stderr
