"""The steps of a preparation, as they are counted in the manifest and told while it runs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recloss.errors import InputError

Degrees = list[NDArray[np.int64]]
"""Interactions per user and per item."""


class Steps:
    """What was left after each step so far."""

    def __init__(
        self,
        raw: Path,
        say: Callable[[str], None],
        words: tuple[str, str, str] = ("interactions", "users", "items"),
    ):
        self.raw = raw
        self.say = say
        self.words = words
        self.done: list[dict[str, Any]] = []

    def note(self, step: str, degrees: Degrees, **details: Any) -> None:
        """Add a step: what is left are the interactions, and the users and items that have any.

        Raises:
            InputError: the step left nothing.
        """
        users, items = (int((degree > 0).sum()) for degree in degrees)
        self.add(step, int(degrees[0].sum()), users, items, **details)

    def add(self, step: str, rows: int, users: int, items: int, **details: Any) -> None:
        """Add a step that left so many.

        Raises:
            InputError: there are no rows.
        """
        told = [f"{key} {value}" for key, value in details.items() if not isinstance(value, list)]
        described = f"{step} ({', '.join(told)})" if told else step
        if rows == 0:
            last, (things, users_, items_) = self.done[-1], self.words
            before = f"{last['rows']:,} {things} of {last['users']:,} {users_} and {last['items']:,} {items_}"
            raise InputError(f"{self.raw}: nothing is left after the step {described}; before it: {before}")
        self.done.append({"step": step, "rows": rows, "users": users, "items": items, **details})
        counts = dict(zip(self.words, (rows, users, items), strict=True))  # the nodes of a graph are told once
        self.say(f"{described}: {', '.join(f'{count:,} {word}' for word, count in counts.items())}")
