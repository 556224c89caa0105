"""The commands: parse, call, print. Heavy modules are imported by the command that needs them."""

import os
import subprocess
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import click
import yaml
from rich.console import Console

from recloss import __version__
from recloss.errors import InputError, choices

INTERRUPTED = 130

for _module in ("mlflow", "pyarrow", "pydantic", "ray"):
    if find_spec(_module) is None:
        raise ModuleNotFoundError(f"No module named {_module!r}", name=_module)


def run(arguments: Sequence[str]) -> int:
    """Run a command line; the exit code is 0, 1 (a check failed), 2 (a mistake in the input) or 130 (Ctrl-C)."""
    try:
        return recloss.main(args=list(arguments), prog_name="recloss", standalone_mode=False) or 0
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return 2
    except click.ClickException as error:
        return _refuse(error.format_message())
    except InputError as error:
        return _refuse(str(error))
    except (KeyboardInterrupt, click.Abort):
        click.echo("recloss: interrupted", err=True)
        return INTERRUPTED


def _refuse(message: str) -> int:
    click.echo(f"recloss: {' '.join(message.split())}", err=True)
    return 2


class _Group(click.Group):
    """A group that names the nearest command."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if self.get_command(ctx, args[0]) is None:
            raise click.UsageError(choices("command", args[0], self.list_commands(ctx)))
        return super().resolve_command(ctx, args)


STORAGE = click.option(
    "--storage",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("runs"),
    show_default=True,
    help="Folder of trials, and of the tracking store and artifacts unless --tracking-uri says otherwise.",
)
TRACKING = click.option(
    "--tracking-uri",
    envvar="MLFLOW_TRACKING_URI",
    help="MLflow tracking store.  [env: MLFLOW_TRACKING_URI; default: sqlite:///<storage>/mlflow.db]",
)
SPACES = click.option(
    "--spaces",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Your own folder of search spaces (losses/*.yaml, backbones/*.yaml), used before the package's.",
)


def _store(tracking_uri: str | None, storage: Path) -> str:
    return tracking_uri or f"sqlite:///{storage.absolute() / 'mlflow.db'}"


def _console() -> Console:
    return Console(highlight=False)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def recloss() -> None:
    """Find out, on your own data, which loss to train a recommender with."""


@recloss.group(cls=_Group)
def data() -> None:
    """Public data sets."""


@data.command("list")
def data_list() -> None:
    """Show the public data sets that `fetch` knows."""
    from rich.table import Table

    from pipelines.fetch import table

    shown = Table("name", "title", "size", "terms")
    for public in table():
        shown.add_row(public.name, public.title, f"{public.bytes / 1e6:.1f} MB", public.licence)
    _console().print(shown)


@data.command("fetch")
@click.argument("name")
def data_fetch(name: str) -> None:
    """Download a public data set into the cache and show its terms."""
    from pipelines.fetch import fetch

    click.echo(fetch(name, on_step=click.echo))


@recloss.command()
@click.option("--raw", type=click.Path(path_type=Path), required=True, help="A raw log: a file, or a folder of files.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder for the prepared dataset.")
@click.option("--format", "format_", default="auto", show_default=True, help="movielens, csv, parquet or auto.")
@click.option("--user", help="Column of user ids (csv, parquet).  [default: user]")
@click.option("--item", help="Column of item ids.  [default: item]")
@click.option("--rating", help="Column of ratings, if there is one.")
@click.option("--timestamp", help="Column of timestamps, if there is one.")
@click.option("--min-rating", help="Drop interactions with a lower rating.")
@click.option("--k-core", help="Keep users and items with at least this many interactions, iterated.  [default: 1]")
@click.option("--split", help="How to split: iid (per user, at random).  [default: iid]")
@click.option("--split-seed", help="Seed of the split.  [default: 0]")
@click.option(
    "--engine",
    type=click.Choice(["auto", "local", "ray"]),
    default="auto",
    show_default=True,
    help="Where it runs.",
)
def prepare(raw: Path, out: Path, format_: str, engine: Literal["auto", "local", "ray"], **options: str | None) -> None:
    """Turn a raw log into a prepared dataset: filter, de-duplicate, k-core, index, split."""
    from pipelines.prepare import prepare as prepare_dataset
    from pipelines.settings import PrepareSettings, parse

    given = {key: value for key, value in options.items() if value is not None}
    columns = {key: given.pop(key) for key in ("user", "item", "rating", "timestamp") if key in given}
    settings = parse(PrepareSettings, {"format": format_, "columns": columns} | given, "recloss prepare")
    manifest = prepare_dataset(raw, out, settings, engine=engine, on_step=click.echo)
    sizes = manifest["sizes"]
    click.echo(f"{out}: {sizes['users']:,} users, {sizes['items']:,} items, fingerprint {manifest['fingerprint'][:12]}")


@recloss.command()
@click.option("--data", "data_path", type=click.Path(path_type=Path), required=True, help="A prepared dataset.")
@click.option("--backbone", default="mf", show_default=True, help="Name of the backbone.")
@click.option("--loss", required=True, help="Name of the loss.")
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
        tracking_uri=_store(tracking_uri, storage),
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
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--dry-run", is_flag=True, help="Print the cells and trials with their counts, and stop.")
@STORAGE
@TRACKING
@SPACES
def sweep(file: Path, dry_run: bool, storage: Path, tracking_uri: str | None, spaces: Path | None) -> int:
    """Run the sweep of a YAML file; the same command again resumes it."""
    from pipelines.settings import SweepSettings, read

    settings = read(SweepSettings, file)
    console = _console()
    if dry_run:
        from pipelines.plan import describe

        describe(settings, spaces, console)
        return 0
    from pipelines.report import show, write_report
    from pipelines.sweep import run_sweep
    from pipelines.tracking import read_results

    uri = _store(tracking_uri, storage)
    if not run_sweep(settings, storage=storage, tracking_uri=uri, spaces=spaces, console=console):
        console.print(
            f"interrupted; finished trials are kept. To go on: recloss sweep {file}", markup=False, soft_wrap=True
        )
        return INTERRUPTED
    results = read_results(uri, settings.name)
    console.print(show(results))
    for path in write_report(results, storage / settings.name / "report", ["md", "csv"]):
        console.print(str(path), markup=False, soft_wrap=True)
    console.print(f"MLflow: recloss ui --storage {storage}", markup=False, soft_wrap=True)
    return 0


@recloss.command()
@click.option("--experiment", required=True, help="Name of the sweep.")
@click.option("--format", "formats", default="md,csv", show_default=True, help="Comma-separated: md, csv.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("report"),
    show_default=True,
    help="Folder.",
)
@STORAGE
@TRACKING
def report(experiment: str, formats: str, out: Path, storage: Path, tracking_uri: str | None) -> None:
    """Rebuild the comparison table of a sweep from the tracking store alone."""
    from pipelines.report import show, write_report
    from pipelines.tracking import read_results

    results = read_results(_store(tracking_uri, storage), experiment)
    paths = write_report(results, out, [part.strip() for part in formats.split(",")])
    console = _console()
    console.print(show(results))
    for path in paths:
        console.print(str(path), markup=False, soft_wrap=True)


@recloss.command()
@click.option("--port", type=click.IntRange(1, 65535), default=5000, show_default=True, help="Port on 127.0.0.1.")
@STORAGE
@TRACKING
def ui(port: int, storage: Path, tracking_uri: str | None) -> int:
    """Open the MLflow UI on 127.0.0.1 until Ctrl-C."""
    from pipelines.tracking import UI_ENVIRONMENT, ui_command

    command = ui_command(_store(tracking_uri, storage), port)
    click.echo(f"MLflow UI on http://127.0.0.1:{port} (Ctrl-C ends it)")
    return subprocess.run(command, env={**os.environ, **UI_ENVIRONMENT}, check=False).returncode


@recloss.command()
@STORAGE
@TRACKING
def doctor(storage: Path, tracking_uri: str | None) -> int:
    """Show versions, devices, Ray, tracking store and write access: what works and what does not."""
    from pipelines.doctor import checks, render

    return 0 if render(checks(_store(tracking_uri, storage), storage)) else 1
