"""LensKit: epochs of FlexMF (BPR, LightGCN) and of its PyTorch Geometric LightGCN. Started by run.py, see there.

An epoch visits every training pair once, in random order, with one negative each, uniform outside the user's items;
AdamW on all rows, models compiled by `torch.compile` (during the warm-up). Variants: "flexmf" and "pyg" for LightGCN.
"pyg" in 2025.8.1 hands the layers the edges from user to item only, so their weights, normalised by the in-degrees of
both ends, are all 0: it takes the time of half the edges and learns no more than MF.
"""

import numpy as np
import pandas as pd
import torch
from lenskit.data import Dataset, DatasetBuilder
from lenskit.flexmf import FlexMFImplicitScorer
from lenskit.training import TrainingOptions
from turns import DIM, LAYERS, LR, Turns, arguments, load


def main() -> None:
    settings = arguments()
    common = {"embedding_size": DIM, "batch_size": settings.batch, "learning_rate": LR}
    if settings.variant == "pyg":
        from lenskit.graphs.lightgcn import LightGCNScorer

        scorer = LightGCNScorer(layer_count=LAYERS, **common)
    else:
        scorer = FlexMFImplicitScorer(preset="bpr" if settings.task == "mf" else "lightgcn", **common)
    trainer = scorer.create_trainer(dataset(load(settings.data)), TrainingOptions(device="cpu", rng=0))
    Turns(settings, ("lenskit", "torch"), threads=torch.get_num_threads()).repeat(trainer.train_epoch)


def dataset(data: dict[str, np.ndarray]) -> Dataset:
    """The training pairs, with users and items that have none."""
    builder = DatasetBuilder()
    builder.add_entities("user", np.arange(int(data["n_users"])))
    builder.add_entities("item", np.arange(int(data["n_items"])))
    pairs = pd.DataFrame({"user_id": data["train_user"], "item_id": data["train_item"]})
    builder.add_interactions("pair", pairs, entities=["user", "item"], allow_repeats=False, default=True)
    return builder.build()


if __name__ == "__main__":
    main()
