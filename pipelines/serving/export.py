"""A model's embeddings in a folder for other programs."""

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.prepare.folder import staging, write
from pipelines.tracking.served import Embeddings, Ranking
from recloss.errors import InputError, choices

ABOUT = "export.json"
_SCORE = "the inner product of a user's and an item's embedding"


def export(ranking: Ranking, how: str, out: Path) -> list[Path]:
    """Write the embeddings of users and items with their original ids; complete, or nothing.

    Rows are in the order of the prepared dataset. Embeddings of a cosine model are normalised: in every format the
    inner product is the score that the evaluation ranks by. ``export.json`` says what the model is and how to read it.

    Args:
        ranking: the model.
        how: of `FORMATS`.
        out: the folder; it must not exist, or be empty.

    Returns:
        The files.

    Raises:
        InputError: for an unknown format, a missing package, a folder that is not empty or cannot be written.
    """
    if how not in FORMATS:
        raise InputError(f"--format: {choices('format', how, FORMATS)}")
    if how == "faiss" and find_spec("faiss") is None:
        raise InputError("--format faiss: the package faiss is missing; install it: pip install 'recloss[faiss]'")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: exists and is not empty; give another folder")
    if not isinstance(ranking.scores, Embeddings):
        raise InputError(f"{ranking.about['loss']}: a model of items by items, it has no embeddings to export")
    order = np.argsort(ranking.item_index)
    users, items = ranking.scores.users, ranking.scores.items[order]
    with staging(out) as folder:
        about = FORMATS[how](folder, (ranking.user_ids, users), (ranking.item_ids[order].tolist(), items))
        about = ranking.about | {"export": how, "score": _SCORE} | about
        (folder / ABOUT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        names = sorted(file.name for file in folder.iterdir())
        folder.rename(out)
    return [out / name for name in names]


Side = tuple[list[str], NDArray[np.float32]]
"""Ids, and an embedding for each."""


def _parquet(folder: Path, users: Side, items: Side) -> dict[str, str]:
    for name, (ids, embeddings) in (("users", users), ("items", items)):
        flat = pa.array(np.ascontiguousarray(embeddings).ravel())
        vectors = pa.FixedSizeListArray.from_arrays(flat, embeddings.shape[1])
        write(pa.table({"id": pa.array(ids, pa.string()), "embedding": vectors}), folder / f"{name}.parquet")
    return {"files": "users.parquet and items.parquet: columns id and embedding"}


def _npy(folder: Path, users: Side, items: Side) -> dict[str, str]:
    for name, (ids, embeddings) in (("user", users), ("item", items)):
        np.save(folder / f"{name}_embeddings.npy", embeddings, allow_pickle=False)
        write(pa.table({"id": pa.array(ids, pa.string())}), folder / f"{name}s.parquet")
    return {"files": "row r of user_embeddings.npy (item_embeddings.npy) is of row r of users.parquet (items.parquet)"}


def _faiss(folder: Path, users: Side, items: Side) -> dict[str, str]:
    import faiss

    index = faiss.IndexFlatIP(items[1].shape[1])
    index.add(np.ascontiguousarray(items[1]))
    faiss.write_index(index, str(folder / "items.faiss"))
    _npy(folder, users, items)
    (folder / "item_embeddings.npy").unlink()
    return {
        "files": "items.faiss: an IndexFlatIP, whose label r is row r of items.parquet; "
        "row r of user_embeddings.npy is of row r of users.parquet"
    }


FORMATS: dict[str, Callable[[Path, Side, Side], dict[str, str]]] = {"parquet": _parquet, "npy": _npy, "faiss": _faiss}
