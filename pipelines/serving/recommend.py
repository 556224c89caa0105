"""Top items of users on the command line."""

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from rich.table import Table

from pipelines.serving.source import open_ranking
from recloss.errors import InputError, plain


def recommendations(
    run: str, users: Sequence[str], k: int, hide_seen: bool, uri: str, storage: Path, data: Sequence[Path]
) -> pd.DataFrame:
    """`Ranking.recommend` of what `open_ranking` finds.

    Raises:
        InputError: see `open_ranking`; if k exceeds the catalogue.
    """
    with open_ranking(run, uri, storage, data) as ranking:
        try:
            return ranking.recommend(users, k, hide_seen)
        except ValueError as error:
            raise InputError(f"--k: {error}") from None


def read_users(text: str) -> list[str]:
    """User ids: comma-separated, or a line each in the file after an ``@``.

    Raises:
        InputError: if there are none, or the file cannot be read.
    """
    if text.startswith("@"):
        file = Path(text[1:])
        try:
            users = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
            raise InputError(f"--users: {file} cannot be read ({why}); expected a user id per line") from None
    else:
        users = [user.strip() for user in text.split(",")]
    users = [user for user in users if user]
    if not users:
        raise InputError(f"--users {text!r}: no user id in it; expected ID,ID,... or @FILE with one per line")
    return users


def as_text(top: pd.DataFrame, how: str) -> str:
    """As ``json`` (a list of rows) or ``csv``."""
    if how == "csv":
        return top.to_csv(index=False).rstrip("\n")
    return json.dumps(top.to_dict("records"), indent=2, ensure_ascii=False)


def as_table(top: pd.DataFrame) -> Table:
    """A row per user and item for a rich console."""
    shown = Table(box=None, pad_edge=False)
    for name in ("user", "rank", "item", "score"):
        shown.add_column(name, justify="right" if name in ("rank", "score") else "left", no_wrap=True)
    shown.add_column("")
    for row in top.itertuples():
        note = "unknown user: most popular" if row.fallback else ""
        shown.add_row(*(_literal(str(v)) for v in (row.user, row.rank, row.item, f"{row.score:.4f}")), note)
    return shown


def _literal(text: str) -> str:
    """Shown as it is: an id is no mark-up."""
    from rich.markup import escape

    return escape(plain(text))
