"""The one exception for mistakes a user can mend, and the checks and hints that name what is wrong."""

import difflib
import math
from collections.abc import Iterable


class InputError(ValueError):
    """A mistake in the user's input (an option, a file, a row); its message is one line, shown without traceback."""


def plain(text: str) -> str:
    """Text on one line, without control characters: what a log contains cannot move the cursor or colour a terminal."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def choices(kind: str, given: str, accepted: Iterable[str]) -> str:
    """Message for an unknown name: ``unknown loss 'talso'; did you mean 'talos'? (accepted: bpr, ...)``."""
    accepted = sorted(accepted)
    nearest = difflib.get_close_matches(given.lower(), accepted, n=1, cutoff=0.5)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    return f"unknown {kind} {given!r}; {hint}(accepted: {', '.join(accepted)})"


def require(condition: bool, message: str) -> None:
    """Refuse a hyper-parameter.

    Raises:
        ValueError: with ``message``, if ``condition`` does not hold.
    """
    if not condition:
        raise ValueError(message)


def require_positive(**values: float) -> None:
    """Refuse a hyper-parameter that is not a finite number above 0, as in ``require_positive(tau=tau)``.

    Raises:
        ValueError: naming the first one.
    """
    for name, value in values.items():
        ok = isinstance(value, int | float) and math.isfinite(value) and value > 0
        require(ok, f"{name} must be a number above 0, got {value!r}")


def require_share(**values: float) -> None:
    """Refuse a hyper-parameter that is not a number in (0, 1], as in ``require_share(ema=ema)``.

    Raises:
        ValueError: naming the first one.
    """
    for name, value in values.items():
        ok = isinstance(value, int | float) and 0 < value <= 1
        require(ok, f"{name} must be a number in (0, 1], got {value!r}")


def require_one_of(name: str, value: str, accepted: Iterable[str]) -> None:
    """Refuse a hyper-parameter that is none of the accepted names.

    Raises:
        ValueError: naming it and what is accepted.
    """
    accepted = list(accepted)
    require(value in accepted, f"{name} must be one of {', '.join(accepted)}, got {value!r}")
