"""What is to be known of a prepared dataset, as a terminal shows it, whatever its task."""

from pathlib import Path

from pipelines.prepare.dataset import read_manifest
from pipelines.prepare.graphs.shown import shown_graph
from pipelines.prepare.inspect import inspect
from pipelines.prepare.ranking.shown import shown_lists
from pipelines.prepare.shown import shown


def look(path: Path) -> list[str]:
    """The lines; no user or item is named.

    Raises:
        InputError: it is not a prepared dataset, or a file of it is damaged.
    """
    task = read_manifest(path).get("task", "pairs")
    if task == "rank":
        return shown_lists(path)
    return shown_graph(path) if task == "link" else shown(inspect(path))
