"""Reference models: rows that a table of losses is read against. A new one is one file and one entry here."""

from collections.abc import Mapping
from typing import Any

from pipelines.references.base import Reference
from pipelines.references.ease import EASE
from pipelines.references.ials import IALS
from pipelines.references.itemknn import ItemKNN
from pipelines.references.lambdamart import LambdaMART
from pipelines.references.mostpop import MostPop
from recloss.errors import InputError, choices

REFERENCES: dict[str, type[Reference]] = {cls.name: cls for cls in (MostPop, ItemKNN, EASE, IALS)}
"""Those of pairs."""
LIST_REFERENCES: dict[str, type[LambdaMART]] = {LambdaMART.name: LambdaMART}
"""Those of lists of documents."""
ALL: Mapping[str, type[Any]] = REFERENCES | LIST_REFERENCES

__all__ = [
    "EASE", "IALS", "LIST_REFERENCES", "REFERENCES", "ItemKNN", "LambdaMART", "MostPop", "Reference", "build", "get",
]  # fmt: skip


def get(name: str) -> type[Any]:
    """The class of a reference model: "mostpop", "itemknn", "ease" or "ials"; of lists "lambdamart".

    Raises:
        InputError: naming the nearest and all there are.
    """
    if name not in ALL:
        raise InputError(choices("reference", name, ALL))
    return ALL[name]


def build(name: str, params: dict[str, Any]) -> Any:
    """A reference model, not fitted yet.

    Raises:
        ValueError: for a hyper-parameter out of range.
    """
    return get(name)(**params)
