"""RecBole: batches of its Trainer with SASRec. Started by ../sasrec_recbole.py, see there.

An epoch has a row for every item of a training sequence but the first: that item as the target, and the 50 items before
it as a window of its own, padded to 50 (RecBole's data augmentation).
"""

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, get_trainer, init_seed
from turns import SASREC, Turns, arguments, load


class Some:
    """The first batches of a loader, anew in each pass."""

    def __init__(self, loader: Any, batches: int) -> None:
        self.loader, self.batches = loader, batches

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[Any]:
        return itertools.islice(iter(self.loader), self.batches)


def main() -> None:
    settings = arguments()
    torch.set_num_threads(settings.threads)
    loss, _ = settings.variant.split()
    data = load(settings.data)
    with tempfile.TemporaryDirectory() as folder:
        write(data, Path(folder) / "log")
        options = {
            "data_path": folder,
            "checkpoint_dir": folder,
            "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
            "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"},
            "use_gpu": False,
            "gpu_id": "",
            "show_progress": False,
            "MAX_ITEM_LIST_LENGTH": SASREC["length"],
            "hidden_size": SASREC["dim"],
            "inner_size": SASREC["dim"],
            "n_layers": SASREC["blocks"],
            "n_heads": SASREC["heads"],
            "hidden_dropout_prob": SASREC["dropout"],
            "attn_dropout_prob": SASREC["dropout"],
            "hidden_act": "relu",
            "loss_type": loss.upper(),
            "train_neg_sample_args": {"distribution": "uniform", "sample_num": 1} if loss == "bpr" else None,
            "learning_rate": 0.001,
            "train_batch_size": settings.batch,
        }
        config = Config("SASRec", "log", config_dict=options)
        init_seed(config["seed"], config["reproducibility"])
        dataset = create_dataset(config)
        train, _, _ = data_preparation(config, dataset)
        model = get_model(config["model"])(config, train.dataset).to(config["device"])
        trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, model)
        epoch_rows = len(train.dataset)
        batches = min(int(data["batches"]), epoch_rows // settings.batch)
        some = Some(train, batches)
        facts = {"rows": batches * settings.batch, "epoch_rows": epoch_rows}
        turns = Turns(settings, ("recbole", "torch"), threads=torch.get_num_threads(), **facts)
        turns.repeat(lambda: trainer._train_epoch(some, 0))


def write(data: dict[str, np.ndarray], folder: Path) -> None:
    """RecBole's file of whole sequences, whose places are the times."""
    folder.mkdir()
    lengths = np.diff(data["offsets"])
    user = np.repeat(np.arange(len(lengths)), lengths)
    place = np.arange(len(user)) - np.repeat(data["offsets"][:-1], lengths)
    header = "user_id:token\titem_id:token\ttimestamp:float"
    rows = np.stack([user, data["items"], place], 1)
    np.savetxt(folder / f"{folder.name}.inter", rows, "%d", "\t", header=header, comments="")


if __name__ == "__main__":
    main()
