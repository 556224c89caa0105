"""RecBole: epochs of its Trainer with BPR or LightGCN, and its full-ranking evaluation. Started by run.py, see there.

An epoch visits every training pair once, in random order, with one negative each, uniform outside the user's items;
Adam on all rows. LightGCN adds RecBole's L2 term on the batch (its default, 1e-5).
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, get_trainer, init_seed
from turns import DIM, LAYERS, LR, TOP, Turns, arguments, load

BLOCK = 256


def main() -> None:
    settings = arguments()
    torch.set_num_threads(settings.threads)
    data = load(settings.data)
    with tempfile.TemporaryDirectory() as folder:
        write(data, Path(folder) / "pairs")
        options = {
            "data_path": folder,
            "checkpoint_dir": folder,
            "benchmark_filename": ["train", "valid", "test"],
            "load_col": {"inter": ["user_id", "item_id"]},
            "use_gpu": False,
            "gpu_id": "",
            "show_progress": False,
            "embedding_size": DIM,
            "n_layers": LAYERS,
            "learning_rate": LR,
            "train_batch_size": settings.batch,
            "metrics": ["Recall", "NDCG"],
            "topk": [TOP],
            "valid_metric": f"NDCG@{TOP}",
            "metric_decimal_place": 8,
        }
        if settings.variant == "blocks":
            options["eval_batch_size"] = BLOCK * (int(data["n_items"]) + 1)
        config = Config("LightGCN" if settings.task == "lightgcn" else "BPR", "pairs", config_dict=options)
        init_seed(config["seed"], config["reproducibility"])
        dataset = create_dataset(config)
        train, _, test = data_preparation(config, dataset)
        model = get_model(config["model"])(config, train.dataset).to(config["device"])
        trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, model)
        turns = Turns(settings, ("recbole", "torch"), threads=torch.get_num_threads())
        if settings.task == "evaluate":
            fill(model.user_embedding, dataset.field2id_token["user_id"], data["user"])
            fill(model.item_embedding, dataset.field2id_token["item_id"], data["item"])
            trainer.eval_collector.data_collect(train)

            def rank() -> None:
                turns.facts["ndcg"] = trainer.evaluate(test, load_best_model=False)[f"ndcg@{TOP}"]

            turns.repeat(rank)
        turns.repeat(lambda: trainer._train_epoch(train, 0))


def write(data: dict[str, np.ndarray], folder: Path) -> None:
    """RecBole's files of a given split; the validation file, which must not be empty, repeats one test pair."""
    folder.mkdir()
    rows = {split: np.stack([data[f"{split}_user"], data[f"{split}_item"]], 1) for split in ("train", "test")}
    rows["valid"] = rows["test"][:1]
    for split, pairs in rows.items():
        path = folder / f"{folder.name}.{split}.inter"
        np.savetxt(path, pairs, "%d", "\t", header="user_id:token\titem_id:token", comments="")


def fill(embedding: torch.nn.Embedding, tokens: Any, table: np.ndarray) -> None:
    """The given embeddings, in RecBole's order of ids; its id 0 is padding."""
    places = torch.from_numpy(tokens[1:].astype(np.int64))
    with torch.no_grad():
        embedding.weight[1:] = torch.from_numpy(table)[places]


if __name__ == "__main__":
    main()
