"""What a complete sweep leaves for those who read it in MLflow: the main table, test scores of cells, descriptions."""

import hashlib
import json
import math
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from pipelines.tracking.read import Results
from pipelines.tracking.runs import DESCRIPTION, SIGNED, paged
from pipelines.tracking.store import contact

if TYPE_CHECKING:
    from mlflow import MlflowClient

TABLE = "table.json"
"""Artifact of the sweep's run, such as MLflow's ``log_table`` makes."""

_LOGGED, _DIGEST = "mlflow.loggedArtifacts", "recloss.table"
_SCORES = "test/"

Name = tuple[str, ...]
"""Of a cell: data set, backbone, loss. Of the sweep: ``()``."""


def record_outcome(
    uri: str,
    results: Results,
    table: Mapping[str, Sequence[str]],
    scores: Mapping[Name, Mapping[str, float]],
    descriptions: Mapping[Name, str],
) -> None:
    """Bring the runs of a sweep and its cells up to date with its report. To do it again changes nothing.

    Args:
        uri: of the tracking store.
        results: what was read from it.
        table: the main table by columns; it replaces an earlier one, to which ``log_table`` would append.
        scores: of cells, metrics such as ``test/ndcg_20``. One that a cell has no more becomes NaN: MLflow forgets
            none.
        descriptions: of the sweep and its cells, as Markdown; one that a user wrote stays.

    Raises:
        InputError: if the store does not answer.
    """
    from mlflow.entities import Metric, RunTag

    with contact(uri, create=False) as client:
        ours = "tags.`recloss.kind` != 'trial'"
        found = paged(lambda token: client.search_runs([results.experiment_id], ours, page_token=token))
        runs = {run.info.run_id: run.data for run in found}
        now = round(time.time() * 1000)
        for name, run_id in results.run_ids.items():
            tags, known = runs[run_id].tags, runs[run_id].metrics
            wanted = {key: math.nan for key in known if key.startswith(_SCORES)} | dict(scores.get(name, {}))
            news = [Metric(key, value, now, 0) for key, value in wanted.items() if not _same(known.get(key), value)]
            said = {} if name else _log_table(client, run_id, tags, table)
            if name in descriptions and tags.get(DESCRIPTION, SIGNED).startswith(SIGNED):
                said[DESCRIPTION] = SIGNED + descriptions[name]
            changed = [RunTag(key, text) for key, text in said.items() if tags.get(key) != text]
            if news or changed:
                client.log_batch(run_id, metrics=news, tags=changed)


def _same(one: float | None, other: float) -> bool:
    return one == other or (one is not None and math.isnan(one) and math.isnan(other))


def _log_table(
    client: "MlflowClient", run_id: str, tags: Mapping[str, str], table: Mapping[str, Sequence[str]]
) -> dict[str, str]:
    """Write the table unless it is there; the tags that tell MLflow's pages and the next call of it."""
    text = json.dumps({"columns": list(table), "data": list(zip(*table.values(), strict=True))})
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    if tags.get(_DIGEST) == digest:
        return {}
    client.log_text(run_id, text, TABLE)
    logged, entry = json.loads(tags.get(_LOGGED, "[]")), {"path": TABLE, "type": "table"}
    return {_LOGGED: json.dumps(logged if entry in logged else [*logged, entry]), _DIGEST: digest}
