"""`recloss register`, `recloss recommend` and `recloss export`: from a finished sweep to a model in production."""

from pathlib import Path

import click

from pipelines.commands.base import STORAGE, TRACKING, new_console, recloss, store

DATA = click.option(
    "--data",
    type=click.Path(path_type=Path),
    multiple=True,
    help="A prepared dataset of the model, where the sweep's own folders are elsewhere; repeatable.",
)
RUN = click.option(
    "--run",
    "run_",
    required=True,
    metavar="WHICH",
    help="A registered model (NAME, NAME@ALIAS, NAME/VERSION), a trial's hash or folder, or the id of its MLflow run.",
)


@recloss.command()
@click.option("--experiment", required=True, help="Name of the sweep.")
@click.option("--cell", "cells", multiple=True, metavar="DATA/BACKBONE/LOSS", help="Only this cell; repeatable.")
@click.option("--best", is_flag=True, help="Of each data set only the cell with the best validation metric.")
@DATA
@STORAGE
@TRACKING
def register(
    experiment: str, cells: tuple[str, ...], best: bool, data: tuple[Path, ...], storage: Path, tracking_uri: str | None
) -> None:
    """Put the selected models of a sweep into MLflow's model registry, ready to be served."""
    from pipelines.serving.register import register_selected

    register_selected(store(tracking_uri, storage), experiment, cells, best, data, click.echo)


@recloss.command()
@RUN
@click.option(
    "--users", required=True, metavar="ID,ID,...|@FILE", help="Ids as in the raw log, or a file of one a line."
)
@click.option("--k", type=click.IntRange(min=1), default=20, show_default=True, help="Items per user.")
@click.option(
    "--show-seen", is_flag=True, help="Items that the user has interacted with in training may be among them."
)
@click.option(
    "--format",
    "how",
    type=click.Choice(["table", "json", "csv"]),
    default="table",
    show_default=True,
    help="Of output.",
)
@DATA
@STORAGE
@TRACKING
def recommend(
    run_: str, users: str, k: int, show_seen: bool, how: str, data: tuple[Path, ...], storage: Path,
    tracking_uri: str | None,
) -> None:  # fmt: skip
    """Show the top items of users; one that is unknown gets the most popular items."""
    from pipelines.serving.recommend import as_table, as_text, read_users, recommendations

    wanted = read_users(users)
    top = recommendations(run_, wanted, k, not show_seen, store(tracking_uri, storage), storage, data)
    if how == "table":
        new_console().print(as_table(top))
    else:
        click.echo(as_text(top, how))


@recloss.command()
@RUN
@click.option(
    "--format",
    "how",
    type=click.Choice(["parquet", "npy", "faiss"]),
    default="parquet",
    show_default=True,
    help="Of the files; faiss needs the extra recloss[faiss].",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="A new folder.")
@DATA
@STORAGE
@TRACKING
def export(run_: str, how: str, out: Path, data: tuple[Path, ...], storage: Path, tracking_uri: str | None) -> None:
    """Write a model's embeddings with the original ids; the inner product is the score."""
    from pipelines.serving.export import export as write_export
    from pipelines.serving.source import open_ranking

    with open_ranking(run_, store(tracking_uri, storage), storage, data) as ranking:
        for path in write_export(ranking, how, out):
            click.echo(path)
