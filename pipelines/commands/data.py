"""`recloss data` and `recloss prepare`: from public data sets and raw logs to prepared datasets."""

from pathlib import Path
from typing import Literal

import click

from pipelines.commands.base import Group, new_console, recloss


@recloss.group(cls=Group)
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
    new_console().print(shown)


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
