"""What is served of a finished trial: its arrays and the catalogue, as `pipelines.tracking.served` reads them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from pipelines.settings import REFERENCE, Trial, task_of_reference
from pipelines.tracking.served import FORMAT
from pipelines.train import mapped
from pipelines.train.tasks.pairs import build
from recloss.checkpoints import load_checkpoint
from recloss.errors import InputError
from recloss.evaluation import evaluating
from recloss.interactions import Interactions
from recloss.similarity import prepare
from recloss.ties import item_order


def write_snapshot(trial: Trial, model: Path, data: Path, out: Path, about: dict[str, Any]) -> None:
    """Write the files of a served model into a folder, which is made.

    Embeddings of a cosine model are normalised, so that the inner product is its score. Hidden are the interactions
    that the test scores hide: training, with ``protocol.mask_valid`` validation too.

    Args:
        trial: the finished trial.
        model: its ``model.pt``.
        data: folder of its prepared dataset.
        out: the folder.
        about: more to say in ``ranking.json``.

    Raises:
        InputError: if the trial is of a task that cannot be served, the folder holds other data, or the model is
            damaged, of another size or not finite.
    """
    task = task_of_reference(trial.loss.name) if trial.task == REFERENCE else trial.task
    if task != "pairs":
        raise InputError(f"trial {trial.hash} is of the task {task!r}; models of pairs alone can be served")
    train = mapped.interactions(data, trial.data, "train")
    order = item_order(train.n_items)
    place = torch.argsort(order)
    try:
        state = load_checkpoint(model)
    except ValueError as error:
        raise InputError(str(error)) from None
    try:
        kind, similarity, arrays = (_reference if trial.task == REFERENCE else _trained)(trial, state, train, order)
    except (KeyError, RuntimeError) as error:
        raise InputError(f"{model}: not the model of trial {trial.hash} ({str(error).splitlines()[0]})") from None
    if not all(array.isfinite().all() for array in arrays.values()):
        raise InputError(f"{model}: the model is not finite")
    hidden = [train]
    if trial.protocol.mask_valid:
        hidden.append(mapped.interactions(data, trial.data, "valid"))
    arrays |= _segments(
        "hidden", torch.cat([p.user for p in hidden]), place[torch.cat([p.item for p in hidden])], train
    )
    if kind != "embeddings":
        arrays |= _segments("history", train.user, place[train.item], train)
    out.mkdir(parents=True)
    for name, array in arrays.items():
        np.save(out / f"{name}.npy", array.numpy(), allow_pickle=False)
    item_users = torch.bincount(train.item, minlength=train.n_items)
    catalogue = {"id": _ids(data, "items").take(order.numpy()), "index": order.numpy()}
    pq.write_table(pa.table({"id": _ids(data, "users")}), out / "users.parquet")
    pq.write_table(pa.table(catalogue | {"users": item_users[order].numpy()}), out / "items.parquet")
    content = {
        "format": FORMAT,
        "kind": kind,
        "trial": trial.hash,
        "fingerprint": trial.data,
        "backbone": trial.backbone.name,
        "loss": trial.loss.name,
        "seed": trial.seed,
        "similarity": similarity,
        "normalised": similarity == "cosine",
        "users": train.n_users,
        "items": train.n_items,
    }
    (out / "ranking.json").write_text(json.dumps(content | about, indent=2) + "\n", encoding="utf-8")


def _trained(
    trial: Trial, state: dict[str, Any], train: Interactions, order: Tensor
) -> tuple[str, str, dict[str, Tensor]]:
    """Kind, similarity and arrays of a backbone's embeddings."""
    backbone, loss = build(trial, train)
    backbone.load_state_dict(state["backbone"])
    with torch.no_grad(), evaluating(backbone):
        users, items = (prepare(e.detach(), loss.similarity).float().cpu() for e in backbone.embed())
    return "embeddings", loss.similarity, {"user_embeddings": users.contiguous(), "item_embeddings": items[order]}


def _reference(
    trial: Trial, state: dict[str, Any], train: Interactions, order: Tensor
) -> tuple[str, str, dict[str, Tensor]]:
    """Kind, similarity and arrays of a reference model, of which ``state`` has what it needs to score."""
    fitted = state["reference"]
    match trial.loss.name:
        case "mostpop":
            users, items = torch.ones(train.n_users, 1), fitted["counts"].float()[:, None]
        case "ials":
            users, items = fitted["users"], fitted["items"]
        case "ease":
            return "item-item", "item-item", {"item_item": fitted["weights"][order][:, order].contiguous()}
        case "itemknn":
            return "neighbours", "item-item", _neighbours(fitted, order)
        case name:
            raise InputError(f"the reference {name!r} cannot be served yet")
    return "embeddings", "dot", {"user_embeddings": users.contiguous(), "item_embeddings": items[order]}


def _neighbours(fitted: dict[str, Tensor], order: Tensor) -> dict[str, Tensor]:
    """The rows of a sparse matrix of items, and their columns, in tie order."""
    lengths = fitted["offsets"].diff()[order]
    offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    starts = (fitted["offsets"][:-1][order] - offsets[:-1]).repeat_interleave(lengths)
    rows = starts + torch.arange(int(offsets[-1]))
    items = torch.argsort(order)[fitted["items"][rows]].to(torch.int32)
    return {
        "neighbour_offsets": offsets,
        "neighbour_items": items,
        "neighbour_scores": fitted["similarities"][rows],
    }


def _segments(name: str, user: Tensor, item: Tensor, train: Interactions) -> dict[str, Tensor]:
    """Items of each user, those of one user in the order in which they are given."""
    by_user = torch.sort(user, stable=True).indices
    counts = torch.bincount(user, minlength=train.n_users)
    offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return {f"{name}_offsets": offsets, f"{name}_items": item[by_user].to(torch.int32)}


def _ids(data: Path, side: str) -> pa.ChunkedArray:
    return pq.read_table(data / f"{side}.parquet", columns=["id"])["id"]
