"""The one exception for mistakes a user can mend, and the hint that names what was probably meant."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """A mistake in the user's input (an option, a file, a row); its message is one line, shown without traceback."""


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
