"""`recloss report`, `recloss ui` and `recloss doctor`: what was found, and what works here."""

import os
import subprocess
from pathlib import Path

import click

from pipelines.commands.base import STORAGE, TRACKING, new_console, recloss, store


def _parts(context: click.Context, option: click.Parameter, given: str | None) -> list[str] | None:
    """The parts of a comma-separated option."""
    return None if given is None else [part.strip() for part in given.split(",")]


@recloss.command()
@click.option("--experiment", required=True, help="Name of the sweep.")
@click.option(
    "--format",
    "formats",
    default="md,csv",
    show_default=True,
    callback=_parts,
    help="Comma-separated: md (the tables), csv (unrounded numbers), tex (LaTeX, for a paper), "
    "html (one page for a browser, which sorts and filters), figures (PNG and SVG).",
)
@click.option(
    "--metrics",
    callback=_parts,
    help="Comma-separated, such as ndcg_20,coverage_20.  [default: Recall and NDCG at every cut-off]",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("report"),
    show_default=True,
    help="Folder.",
)
@click.option(
    "--mix-fingerprints",
    is_flag=True,
    help="Show results on different contents of a data set in one column, with a footnote and unranked.",
)
@STORAGE
@TRACKING
def report(
    experiment: str, formats: list[str], metrics: list[str] | None, out: Path, mix_fingerprints: bool, storage: Path,
    tracking_uri: str | None,
) -> None:  # fmt: skip
    """Rebuild the comparison table of a sweep from the tracking and artifact stores alone."""
    from pipelines.report import check_formats, make_report, show, write_report

    check_formats(formats)
    found = make_report(
        store(tracking_uri, storage),
        experiment,
        metrics,
        mix_fingerprints,
        figures=bool({"html", "figures"} & set(formats)),
    )
    paths = write_report(found, out, formats)
    console = new_console()
    console.print(show(found))
    for path in paths:
        console.print(str(path), markup=False, soft_wrap=True)


@recloss.command()
@click.option("--port", type=click.IntRange(1, 65535), default=5000, show_default=True, help="Port on 127.0.0.1.")
@STORAGE
@TRACKING
def ui(port: int, storage: Path, tracking_uri: str | None) -> int:
    """Open the MLflow UI on 127.0.0.1 until Ctrl-C."""
    from pipelines.tracking import ui_command

    command, environment = ui_command(store(tracking_uri, storage), port)
    click.echo(f"MLflow UI on http://127.0.0.1:{port} (Ctrl-C ends it)")
    return subprocess.run(command, env={**os.environ, **environment}, check=False).returncode


@recloss.command()
@STORAGE
@TRACKING
def doctor(storage: Path, tracking_uri: str | None) -> int:
    """Show versions, devices, Ray, tracking store and write access: what works and what does not."""
    from pipelines.doctor import checks, render

    return 0 if render(checks(store(tracking_uri, storage), storage)) else 1
