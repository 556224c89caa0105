"""`recloss paper`: the tables of papers, run again and set beside what the papers report."""

from pathlib import Path

import click

from pipelines.commands.base import SPACES, STORAGE, TRACKING, Group, new_console, recloss, store
from recloss.errors import InputError


def _parts(context: click.Context, option: click.Parameter, given: str | None) -> list[str] | None:
    """The parts of a comma-separated option."""
    return None if given is None else [part.strip() for part in given.split(",") if part.strip()]


HYPER = click.option(
    "--hyper",
    type=click.Choice(["reported", "search"]),
    default="reported",
    show_default=True,
    help="The paper's hyper-parameters, of which those that it does not give are searched; or all searched.",
)
RAW = click.option("--raw", multiple=True, metavar="NAME=PATH", help="Raw files of a data set; repeatable.")


@recloss.group(cls=Group)
def paper() -> None:
    """Experiments of papers: run them again, and compare with what the papers report."""


@paper.command("list")
@SPACES
def paper_list(spaces: Path | None) -> None:
    """Show every experiment: what it shows, its rows, and which of its data sets are here."""
    from pipelines.papers.listed import listed

    for line in listed(spaces):
        click.echo(line)


@paper.command("run")
@click.argument("name", metavar="PAPER/EXPERIMENT")
@click.option("--data", callback=_parts, help="Comma-separated data sets.  [default: all that are ready]")
@click.option("--backbones", callback=_parts, help="Comma-separated.  [default: all of the experiment]")
@click.option("--losses", callback=_parts, help="Comma-separated rows or losses.  [default: all that the paper has]")
@HYPER
@click.option("--seeds", type=click.IntRange(min=1), default=3, show_default=True, help="Confirmation seeds, from 0.")
@click.option("--concurrent", type=click.IntRange(min=1), help="Trials at once.  [default: as many as fit]")
@RAW
@click.option("--dry-run", is_flag=True, help="Print the sweeps with their cells and trials, and stop.")
@STORAGE
@TRACKING
@SPACES
def paper_run(
    name: str, data: list[str] | None, backbones: list[str] | None, losses: list[str] | None, hyper: str, seeds: int,
    concurrent: int | None, raw: tuple[str, ...], dry_run: bool, storage: Path, tracking_uri: str | None,
    spaces: Path | None,
) -> int:  # fmt: skip
    """Run an experiment of a paper as sweeps; the same command again resumes it."""
    from pipelines.papers.catalogue import load
    from pipelines.papers.run import run_paper

    return run_paper(
        load(name, spaces),
        hyper="search" if hyper == "search" else "reported",
        data=data,
        backbones=backbones,
        losses=losses,
        seeds=seeds,
        concurrent=concurrent,
        raw=_raw(raw),
        dry_run=dry_run,
        storage=storage,
        tracking_uri=store(tracking_uri, storage),
        spaces=spaces,
        console=new_console(),
    )


@paper.command("report")
@click.argument("name", required=False, metavar="[PAPER/EXPERIMENT]")
@click.option("--summary", is_flag=True, help="One table over all experiments that have results.")
@HYPER
@RAW
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="Also write it as Markdown to this file.")
@STORAGE
@TRACKING
@SPACES
def paper_report(
    name: str | None, summary: bool, hyper: str, raw: tuple[str, ...], out: Path | None, storage: Path,
    tracking_uri: str | None, spaces: Path | None,
) -> None:  # fmt: skip
    """Set what was measured beside what the paper reports, from the tracking and artifact stores alone."""
    from pipelines.papers.report import experiment_report, write
    from pipelines.papers.summary import summary_report

    if summary == bool(name):
        raise click.UsageError("paper report: expected a PAPER/EXPERIMENT, or --summary")
    uri = store(tracking_uri, storage)
    if name is None:
        text = summary_report(uri, spaces)
    else:
        text = experiment_report(uri, name, "search" if hyper == "search" else "reported", _raw(raw), spaces)
    if out is not None:
        write(text, out)
    click.echo(text, nl=False)
    if out is not None:
        click.echo(str(out))


def _raw(given: tuple[str, ...]) -> dict[str, Path]:
    """``NAME=PATH`` by name."""
    pairs = [text.partition("=") for text in given]
    for text, (name, equals, path) in zip(given, pairs, strict=True):
        if not (name and equals and path):
            raise InputError(f"--raw {text!r}: expected NAME=PATH, such as health=downloads/health")
    return {name: Path(path).expanduser() for name, _, path in pairs}
