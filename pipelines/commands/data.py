"""`recloss data`: public data sets, and what is to be known of prepared ones."""

from pathlib import Path

import click

from pipelines.commands.base import Group, new_console, recloss


@recloss.group(cls=Group)
def data() -> None:
    """Public data sets, and a look at prepared ones."""


@data.command("list")
@click.argument("name", required=False)
def data_list(name: str | None) -> None:
    """Show the public data sets that `fetch` knows, or all that is known of one."""
    from rich.table import Table

    from pipelines.public import described, public_datasets

    console = new_console()
    if name is not None:
        for line in described(name):
            console.print(line, markup=False, soft_wrap=True)
        return
    shown = Table(box=None, pad_edge=False)
    for heading in ("name", "download", "--format"):
        shown.add_column(heading, no_wrap=True)
    shown.add_column("title")
    for key, public in public_datasets().items():
        bytes_ = next((source.bytes for source in public.sources if source.bytes), public.bytes)
        size = f"{bytes_ / 1e6:,.1f} MB" if bytes_ else "by hand" if public.by_hand else ""
        shown.add_row(key, size, public.format, public.title)
    console.print(shown)
    console.print("Terms, address, citation and checksum of one: recloss data list NAME", markup=False)


@data.command("fetch")
@click.argument("name")
def data_fetch(name: str) -> None:
    """Download a public data set into the cache (RECLOSS_CACHE) and show its terms."""
    from pipelines.public import fetch, prepare_command

    file = fetch(name, on_step=click.echo)
    click.echo(file)
    click.echo(f"to prepare it: {prepare_command(name, file)}")


@data.command("inspect")
@click.argument("path", type=click.Path(path_type=Path))
def data_inspect(path: Path) -> None:
    """Show what a prepared dataset looks like and how it was made; names no user and no item."""
    from pipelines.prepare.look import look

    for line in look(path):
        click.echo(line)


@data.command("verify")
@click.argument("paths", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option("--raw", type=click.Path(path_type=Path), help="The raw log: compare its checksums too.")
def data_verify(paths: tuple[Path, ...], raw: Path | None) -> int:
    """Read every file of prepared datasets again: are they what their manifests say?"""
    from pipelines.doctor import render
    from pipelines.prepare.verify import verify

    fine = True
    for path in paths:
        click.echo(f"{path}:")
        fine &= render(verify(path, raw), fine="as its manifest says")
    return 0 if fine else 1
