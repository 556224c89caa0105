"""LambdaMART: boosted trees on the gradients of LambdaRank, by LightGBM; the usual model for ranking with features."""

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from recloss.errors import InputError, require, require_positive
from recloss.ranking import Lists


class LambdaMART:
    """A document's score is a sum of regression trees of its features, with gains of 2^grade - 1.

    Trees are not stopped early: their number is a hyper-parameter like others. All else is LightGBM's default.

    Args:
        trees: number of trees.
        leaves: of a tree, at most.
        lr: learning rate, above 0.
        min_documents: in a leaf.

    Raises:
        ValueError: for a value out of range.

    Source: Burges, MSR-TR-2010-82; Ke et al., NIPS 2017.
    """

    name: ClassVar[str] = "lambdamart"
    title: ClassVar[str] = "LambdaMART"

    def __init__(self, *, trees: int = 100, leaves: int = 31, lr: float = 0.1, min_documents: int = 20) -> None:
        require(trees >= 1, f"trees must be at least 1, got {trees}")
        require(leaves >= 2, f"leaves must be at least 2, got {leaves}")
        require(min_documents >= 1, f"min_documents must be at least 1, got {min_documents}")
        require_positive(lr=lr)
        self.trees, self.leaves, self.lr, self.min_documents = trees, leaves, lr, min_documents

    def fit(self, train: Lists, *, seed: int, threads: int) -> dict[str, Tensor]:
        """``trees``, LightGBM's text of them as bytes.

        Raises:
            InputError: for grades that are not whole numbers up to 30.
        """
        import lightgbm

        grades = train.grades.numpy()
        if not (grades == grades.round()).all() or grades.max(initial=0) > 30:
            raise InputError("LambdaMART takes whole numbers from 0 to 30 as grades; the data have others")
        lengths = train.lengths.numpy()
        data = lightgbm.Dataset(train.features.numpy(), grades.astype(np.int32), group=lengths[lengths > 0])
        settings: dict[str, Any] = {
            "objective": "lambdarank",
            "num_leaves": self.leaves,
            "learning_rate": self.lr,
            "min_data_in_leaf": self.min_documents,
            "seed": seed,
            "num_threads": threads,
            "deterministic": True,
            "force_row_wise": True,
            "verbosity": -1,
        }
        text = lightgbm.train(settings, data, self.trees).model_to_string()
        return {"trees": torch.frombuffer(bytearray(text.encode()), dtype=torch.uint8)}

    def scorer(self, state: dict[str, Tensor]) -> Callable[[Lists], Tensor]:
        """What gives lists the float64 scores (n,) of their documents, by what `fit` returned."""
        import lightgbm

        model = lightgbm.Booster(model_str=state["trees"].numpy().tobytes().decode())
        return lambda lists: torch.from_numpy(model.predict(lists.features.numpy()))
