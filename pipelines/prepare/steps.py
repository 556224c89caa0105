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

    def __init__(self, raw: Path, say: Callable[[str], None]):
        self.raw = raw
        self.say = say
        self.done: list[dict[str, Any]] = []

    def note(self, step: str, degrees: Degrees, **details: Any) -> None:
        """Add a step.

        Raises:
            InputError: the step left nothing.
        """
        users, items = (int((degree > 0).sum()) for degree in degrees)
        rows = int(degrees[0].sum())
        told = [f"{key} {value}" for key, value in details.items() if not isinstance(value, list)]
        described = f"{step} ({', '.join(told)})" if told else step
        if rows == 0:
            before = "{rows:,} interactions of {users:,} users and {items:,} items".format(**self.done[-1])
            raise InputError(f"{self.raw}: nothing is left after the step {described}; before it: {before}")
        self.done.append({"step": step, "rows": rows, "users": users, "items": items, **details})
        self.say(f"{described}: {rows:,} interactions, {users:,} users, {items:,} items")
