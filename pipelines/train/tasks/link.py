"""Link prediction: training on the edges of a graph."""

import functools
from pathlib import Path
from typing import Any

from pipelines.settings import Trial
from pipelines.train.links import links
from pipelines.train.tasks.base import Run, Work, device, fit_settings
from pipelines.train.tasks.pairs import check_catalogue
from recloss import losses
from recloss.errors import InputError
from recloss.evaluation import UserMetrics
from recloss.links import Links, build, evaluate_links, fit_links
from recloss.loop import FitResult


def check(trial: Trial, manifest: dict[str, Any]) -> None:
    """Refuse what exceeds the nodes or the negatives.

    Raises:
        InputError: naming the cut-off or the hyper-parameter.
    """
    sizes = manifest["sizes"]
    check_catalogue(trial, sizes["users"], sizes["items"])
    if max(trial.protocol.cutoffs) > sizes["negatives_per_edge"]:
        raise InputError(
            f"protocol.cutoffs: K = {max(trial.protocol.cutoffs)} is larger than the number of negatives that an edge "
            f"is ranked against ({sizes['negatives_per_edge']})"
        )


@functools.lru_cache(maxsize=4)
def _graph(data: Path, fingerprint: str) -> Links:
    return links(data, fingerprint)


class LinkWork(Work):
    """Training by `recloss.links.fit_links`, the rank of each test edge among its negatives."""

    def __init__(self, trial: Trial, data: Path) -> None:
        super().__init__(trial, data)
        self.links = _graph(data, trial.data)
        self.backbone = build(trial.backbone.name, trial.backbone.params, self.links, trial.seed).to(device())
        n = self.links.n_nodes
        sizes = {"n_users": n, "n_items": n, "n_pairs": 2 * len(self.links.train), "n_negatives": trial.train.negatives}
        self.loss = losses.build(trial.loss.name, trial.loss.params, **sizes, seed=trial.seed).to(device())
        self.modules = {"backbone": self.backbone, "loss": self.loss}

    def fit(self, run: Run) -> FitResult:
        """On both directions of the training edges."""
        return fit_links(
            self.backbone, self.loss, self.links, fit_settings(self.trial),
            checkpoint=run.checkpoint, on_validation=run.on_validation,
        )  # fmt: skip

    def test(self) -> UserMetrics:
        """Hit rates and MRR of each test edge."""
        return evaluate_links(self.backbone, self.loss.similarity, self.links, "test", self.trial.protocol.cutoffs)
