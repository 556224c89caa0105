"""The code of a served model: top items of users from arrays in a folder.

MLflow copies this file into every registered model and runs it there (models from code: nothing is pickled), so it
imports numpy, pandas, pyarrow and MLflow only. The folder is written by `pipelines.serving.snapshot`:

    ranking.json             format, kind, sizes, and what the model is of
    users.parquet            id of each user's row
    items.parquet            id, index in the prepared dataset, and number of training users of each item's row
    hidden_offsets.npy       (U + 1,) int64, where each user's part of hidden_items.npy begins
    hidden_items.npy         rows of the items that the user has interacted with in training

and by kind, in float32 where nothing else is said:

    embeddings               user_embeddings.npy (U, d), item_embeddings.npy (I, d): the score is their inner product
    item-item                item_item.npy (I, I): the score is the sum of the rows of the user's training items
    neighbours               the same with sparse rows: neighbour_offsets.npy (I + 1,) int64, neighbour_items.npy (rows
                             of items) and neighbour_scores.npy

The training items of the last two are in history_offsets.npy and history_items.npy, laid out as the hidden ones.

Items are in the order in which equal scores rank.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext
from numpy.typing import NDArray

FORMAT = 1
K = 20
_SCORES_AT_ONCE = 2**23
"""32 MB of scores; sorting them takes three times as much again."""


class Ranking:
    """A model's arrays and catalogue, and the ranking that they give."""

    def __init__(self, folder: Path) -> None:
        """Open a folder; the arrays are mapped, not read.

        Raises:
            ValueError: if it is of another format or a file is damaged.
            OSError: if a file is missing.
        """
        self.about: dict[str, Any] = json.loads((folder / "ranking.json").read_text(encoding="utf-8"))
        if (found := self.about.get("format")) != FORMAT:
            raise ValueError(f"{folder}: format {found!r} of a served model, this code reads {FORMAT}")
        self.user_ids = pq.read_table(folder / "users.parquet")["id"].to_pylist()
        items = pq.read_table(folder / "items.parquet")
        self.item_ids = np.array(items["id"].to_pylist(), dtype=object)
        self.item_index, self.item_users = items["index"].to_numpy(), items["users"].to_numpy()
        self._hidden = _Segments(folder, "hidden")
        if (kind := self.about.get("kind")) not in _KINDS:
            raise ValueError(f"{folder}: unknown kind {kind!r} of a served model")
        self.scores: Scores = _KINDS[kind](folder)
        sizes = {"users": len(self.user_ids), "items": len(self.item_ids)}
        if any(self.about[side] != size for side, size in sizes.items()):
            raise ValueError(f"{folder}: {sizes} are listed, ranking.json says otherwise")
        self._rows = {id_: row for row, id_ in enumerate(self.user_ids)}
        self._popular = np.argsort(-self.item_users, kind="stable")

    def recommend(self, users: Sequence[Any], k: int = K, hide_seen: bool = True) -> pd.DataFrame:
        """The top items of users, best first, equal scores in the order of the evaluation.

        Args:
            users: ids as in the raw log, strings or integers; one that is not known gets the most popular items.
            k: items per user; a user who has interacted with nearly all gets those that are left.
            hide_seen: leave out the items that the user has interacted with in training.

        Returns:
            A row per user and item: ``user`` and ``item`` (ids, as strings), ``rank`` (from 1), ``score`` (cosine or
            inner product; of a fallback the item's number of training users) and ``fallback``.

        Raises:
            ValueError: if k is not in 1 .. number of items.
        """
        if not 1 <= k <= len(self.item_ids):
            raise ValueError(f"k must lie in 1..{len(self.item_ids)} (the catalogue), got {k}")
        ids = [as_id(user) for user in users]
        rows = np.array([self._rows.get(id_, -1) for id_ in ids], dtype=np.int64)
        top = np.tile(self._popular[:k], (len(ids), 1))
        scores = self.item_users[top].astype(np.float64)
        known = np.flatnonzero(rows >= 0)
        block = max(1, min(512, _SCORES_AT_ONCE // len(self.item_ids)))
        for start in range(0, len(known), block):
            places = known[start : start + block]
            top[places], scores[places] = self._rank(rows[places], k, hide_seen)
        shown = (scores > -np.inf).ravel()
        return pd.DataFrame(
            {
                "user": pd.Series(np.repeat(np.array(ids, dtype=object), k)[shown], dtype="str"),
                "item": pd.Series(self.item_ids[top.ravel()[shown]], dtype="str"),
                "rank": np.tile(np.arange(1, k + 1), len(ids))[shown],
                "score": scores.ravel()[shown],
                "fallback": np.repeat(rows < 0, k)[shown],
            }
        )

    def _rank(self, rows: NDArray[np.int64], k: int, hide_seen: bool) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """(B, k) rows of the best items and their scores, -inf where none is left."""
        scores = self.scores(rows)
        if hide_seen:
            for place, row in enumerate(rows):
                scores[place, self._hidden.of(row)] = -np.inf
        columns = best_columns(scores, k)
        return columns, np.take_along_axis(scores, columns, 1)


class _Segments:
    """Ragged rows of item rows."""

    def __init__(self, folder: Path, name: str) -> None:
        self.offsets, self.values = _mapped(folder, f"{name}_offsets"), _mapped(folder, f"{name}_items")

    def of(self, row: int) -> NDArray[np.integer[Any]]:
        return self.values[self.offsets[row] : self.offsets[row + 1]]


class Embeddings:
    """Scores of users' rows by two tables."""

    def __init__(self, folder: Path) -> None:
        self.users, self.items = _mapped(folder, "user_embeddings"), _mapped(folder, "item_embeddings")

    def __call__(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """(B, I) inner products."""
        return self.users[rows] @ self.items.T


class ItemItem:
    """Scores of users' rows by a matrix of items."""

    def __init__(self, folder: Path) -> None:
        self.history, self.weights = _Segments(folder, "history"), _mapped(folder, "item_item")

    def __call__(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """(B, I) sums of rows."""
        return np.stack([self.weights[self.history.of(row)].sum(0) for row in rows])


class Neighbours:
    """Scores of users' rows by a sparse matrix of items."""

    def __init__(self, folder: Path) -> None:
        self.history, self.neighbours = _Segments(folder, "history"), _Segments(folder, "neighbour")
        self.weights = _mapped(folder, "neighbour_scores")

    def __call__(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """(B, I) sums of rows."""
        scores = np.zeros((len(rows), len(self.neighbours.offsets) - 1), np.float32)
        for place, row in enumerate(rows):
            for item in self.history.of(row):
                first, last = self.neighbours.offsets[item : item + 2]
                scores[place, self.neighbours.values[first:last]] += self.weights[first:last]
        return scores


Scores = Embeddings | ItemItem | Neighbours
_KINDS: dict[str, type[Scores]] = {"embeddings": Embeddings, "item-item": ItemItem, "neighbours": Neighbours}


def best_columns(scores: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """(B, k) columns of the k best scores of each row; equal scores in ascending order of column."""
    descending = -scores
    columns = np.sort(np.argpartition(descending, k - 1, axis=1)[:, :k], axis=1)
    columns = np.take_along_axis(columns, _order(np.take_along_axis(descending, columns, 1)), 1)
    worst = np.take_along_axis(descending, columns[:, -1:], 1)
    for row in np.flatnonzero((descending <= worst).sum(1) > k):  # a tie across the cut
        columns[row] = _order(descending[row])[:k]
    return columns


def _order(descending: NDArray[np.float32]) -> NDArray[np.int64]:
    return np.argsort(descending, axis=-1, kind="stable")


def as_id(user: Any) -> str:
    """The id of a user as the prepared dataset has it; a column with gaps makes floats of integers."""
    if isinstance(user, float | np.floating) and float(user).is_integer():
        user = int(user)
    return str(user)


def _mapped(folder: Path, name: str) -> NDArray[Any]:
    file = folder / f"{name}.npy"
    try:
        return np.load(file, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from None


class ServedModel(PythonModel):
    """What MLflow loads: top items for a column ``user`` of ids, with the parameters ``k`` and ``hide_seen``."""

    def load_context(self, context: PythonModelContext) -> None:
        """Open the arrays."""
        self.ranking = Ranking(Path(context.artifacts["ranking"]))

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: Mapping[str, Any] | None = None
    ) -> pd.DataFrame:
        """See `Ranking.recommend`."""
        cells = model_input["user"].tolist()
        users = [user for cell in cells for user in (cell if isinstance(cell, list) else [cell])]  # {"user": [..]}
        try:
            return self.ranking.recommend(users, **dict(params or {}))
        except ValueError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from None


set_model(ServedModel())
