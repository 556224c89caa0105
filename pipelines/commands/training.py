"""`recloss train` and `recloss sweep`."""

import time
from pathlib import Path
from typing import Any

import click
import yaml

from pipelines.commands.base import SPACES, STORAGE, TRACKING, new_console, recloss, store
from recloss.errors import InputError


@recloss.command()
@click.option("--data", "data_path", type=click.Path(path_type=Path), required=True, help="A prepared dataset.")
@click.option("--backbone", default="mf", show_default=True, help="Name of the backbone, or 'reference'.")
@click.option("--loss", required=True, help="Name of the loss, or of the reference model.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="A setting, such as loss.tau=0.1; repeatable.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of every random draw.")
@click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True, help="Data-parallel processes.")
@click.option("--test", is_flag=True, help="Score the test split at the end.")
@STORAGE
@TRACKING
@SPACES
def train(
    data_path: Path, backbone: str, loss: str, settings: tuple[str, ...], seed: int, workers: int, test: bool,
    storage: Path, tracking_uri: str | None, spaces: Path | None,
) -> None:  # fmt: skip
    """Train one configuration; the same command again resumes it, or shows its result."""
    from pipelines.single import train_single

    dotted = dict(_key_value(setting) for setting in settings)
    folder = train_single(
        data_path,
        backbone,
        loss,
        dotted,
        seed=seed,
        workers=workers,
        test=test,
        storage=storage,
        tracking_uri=store(tracking_uri, storage),
        spaces=spaces,
        say=click.echo,
    )
    click.echo(f"model: {folder / 'model.pt'}")


def _key_value(setting: str) -> tuple[str, Any]:
    key, equals, value = setting.partition("=")
    if not equals or not key:
        raise InputError(f"--set {setting!r}: expected KEY=VALUE, such as loss.tau=0.1")
    try:
        return key, yaml.safe_load(value)
    except yaml.YAMLError:
        raise InputError(f"--set {setting!r}: {value!r} is not a value") from None


@recloss.command()
@click.argument("what", nargs=-1, required=True, metavar="FILE | status NAME")
@click.option("--dry-run", is_flag=True, help="Print the cells and trials with their counts, and stop.")
@STORAGE
@TRACKING
@SPACES
def sweep(
    what: tuple[str, ...], dry_run: bool, storage: Path, tracking_uri: str | None, spaces: Path | None
) -> int:  # fmt: skip
    """Run the sweep of a YAML file; the same command again resumes it. `status NAME` shows how far a sweep is, from
    another terminal or host.
    """
    match what:
        case ("status", name):
            return _status(name, store(tracking_uri, storage))
        case ("status",):
            raise click.UsageError("sweep status: expected the NAME of a sweep")
        case (file,):
            return _run(Path(file), dry_run, storage, store(tracking_uri, storage), spaces)
    raise click.UsageError(f"sweep: expected a FILE or 'status NAME', got {' '.join(what)!r}")


def _status(name: str, uri: str) -> int:
    from pipelines.sweep.status import show_status
    from pipelines.tracking import read_results

    new_console().print(show_status(read_results(uri, name), time.time()))
    return 0


def _run(file: Path, dry_run: bool, storage: Path, uri: str, spaces: Path | None) -> int:
    from pipelines.settings import SweepSettings, read

    settings = read(SweepSettings, file)
    console = new_console()
    if dry_run:
        from pipelines.search.describe import describe
        from pipelines.sweep.plan import plan

        describe(settings, plan(settings, {}, spaces), console)
        return 0
    from pipelines.report import AT_THE_END, log_outcome, make_report, show, write_report
    from pipelines.sweep.run import run_sweep

    ending = run_sweep(settings, storage=storage, tracking_uri=uri, spaces=spaces, console=console)
    if not ending:
        console.print(
            f"{ending.message}; nothing is lost. To go on: recloss sweep {file}", markup=False, soft_wrap=True
        )
        return ending.code
    report = make_report(uri, settings.name)
    log_outcome(uri, report)
    console.print(show(report))
    for path in write_report(report, storage / settings.name / "report", AT_THE_END):
        console.print(str(path), markup=False, soft_wrap=True)
    console.print(f"MLflow: recloss ui --storage {storage}", markup=False, soft_wrap=True)
    return 0
