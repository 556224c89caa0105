"""The steps of preparing lists of documents and graphs in words."""

from collections.abc import Mapping
from typing import Any

Facts = Mapping[str, Any]
"""A step or the settings of a manifest."""


def _lists(step: Facts, before: Facts, settings: Facts) -> str:
    counts = f"{step['rows']:,} judged documents of {step['users']:,} queries, {step['features']:,} features"
    return f"Read {counts} ({step['format']})."


def _queries(step: Facts, before: Facts, settings: Facts) -> str:
    parts = [
        f"{name} {step[f'{part}_queries']:,}"
        for part, name in (("train", "train"), ("valid", "validation"), ("test", "test"))
    ]
    made = []
    if "test" not in step["given"]:
        made.append(f"test ceil({100 * settings['test_ratio']:g} %) of all queries")
    if "valid" not in step["given"]:
        made.append(f"validation ceil({100 * settings['valid_ratio']:g} %) of the training queries")
    seeded = f"{' and '.join(made)} at random (seed {settings['split_seed']})" if made else "as given"
    given = f"{' and '.join(step['given'])} as given, " if step["given"] and made else ""
    return f"Split by query, {given}{seeded}: {', '.join(parts)} queries."


def _edges(step: Facts, before: Facts, settings: Facts) -> str:
    features = f", {step['features']:,} features" if step["features"] else ""
    return f"Read {step['rows']:,} edges of {step['users']:,} nodes{features} ({step['format']})."


def _undirected(step: Facts, before: Facts, settings: Facts) -> str:
    dropped = f"Dropped {step['loops']:,} self-loops and {step['repeated']:,} repeated or reversed edges"
    return f"{dropped}: {step['rows']:,} edges, {step['isolated']:,} nodes without one."


def _links(step: Facts, before: Facts, settings: Facts) -> str:
    parts = f"train {step['train']:,}, validation {step['valid']:,}, test {step['test']:,}"
    return f"Split 85/5/10 at random (seed {settings['split_seed']}): {parts} edges."


def _negatives(step: Facts, before: Facts, settings: Facts) -> str:
    return f"Each edge of validation and test is ranked against {step['per_edge']:,} {step['kind']} negatives."


TELL_LISTS = {"lists": _lists, "queries": _queries}
TELL_GRAPH = {"edges": _edges, "undirected": _undirected, "links": _links, "negatives": _negatives}
