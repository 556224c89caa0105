"""Reference models: rows that a table of losses is read against. A new one is one file and one entry here."""

from typing import Any

from pipelines.references.base import Reference
from pipelines.references.ease import EASE
from pipelines.references.ials import IALS
from pipelines.references.itemknn import ItemKNN
from pipelines.references.mostpop import MostPop
from recloss.errors import InputError, choices

REFERENCES: dict[str, type[Reference]] = {cls.name: cls for cls in (MostPop, ItemKNN, EASE, IALS)}

__all__ = ["EASE", "IALS", "REFERENCES", "ItemKNN", "MostPop", "Reference", "build", "get"]


def get(name: str) -> type[Reference]:
    """The class of a reference model: "mostpop", "itemknn", "ease" or "ials".

    Raises:
        InputError: naming the nearest and all there are.
    """
    if name not in REFERENCES:
        raise InputError(choices("reference", name, REFERENCES))
    return REFERENCES[name]


def build(name: str, params: dict[str, Any]) -> Reference:
    """A reference model, not fitted yet.

    Raises:
        ValueError: for a hyper-parameter out of range.
    """
    return get(name)(**params)
