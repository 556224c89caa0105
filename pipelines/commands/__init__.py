"""The commands: parse, call, print. Heavy modules are imported by the command that needs them."""

from collections.abc import Sequence

import click

from pipelines.commands import data, papers, prepare, results, serving, training
from pipelines.commands.base import INTERRUPTED, recloss
from recloss.errors import InputError, plain

__all__ = ["data", "papers", "prepare", "recloss", "results", "run", "serving", "training"]


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
    click.echo(f"recloss: {plain(message)}", err=True)
    return 2
