"""What the commands share: the root group, the options of storage and tracking, the console."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from recloss import __version__
from recloss.errors import choices

INTERRUPTED = 130

for _module in ("mlflow", "pyarrow", "pydantic", "ray"):
    if find_spec(_module) is None:
        raise ModuleNotFoundError(f"No module named {_module!r}", name=_module)


class Group(click.Group):
    """A group that names the nearest command."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """The command of this name."""
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


def store(tracking_uri: str | None, storage: Path) -> str:
    """The tracking store that was named, or the SQLite file in the storage folder."""
    return tracking_uri or f"sqlite:///{storage.absolute() / 'mlflow.db'}"


def new_console() -> Console:
    """A console that prints what it is given, without colouring numbers and paths."""
    return Console(highlight=False)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def recloss() -> None:
    """Find out, on your own data, which loss to train a recommender with."""
