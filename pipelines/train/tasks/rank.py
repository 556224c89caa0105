"""Learning to rank: training on lists of documents."""

import functools
from pathlib import Path
from typing import Any

from pipelines.settings import Trial
from pipelines.train.lists import lists
from pipelines.train.tasks.base import Run, Work, device, fit_settings
from recloss.evaluation import UserMetrics
from recloss.loop import FitResult
from recloss.ranking import Lists, evaluate, fit_lists, losses, scorers


def check(trial: Trial, manifest: dict[str, Any]) -> None:
    """Nothing that a trial may ask for depends on the lists: a cut-off may exceed their lengths."""


@functools.lru_cache(maxsize=4)
def training_lists(data: Path, fingerprint: str) -> tuple[Lists, Lists]:
    """Training and validation lists, which all processes of a machine share.

    Raises:
        InputError: if the folder no longer holds the data set the trial was planned on.
    """
    return lists(data, fingerprint, "train"), lists(data, fingerprint, "valid")


class RankWork(Work):
    """Training by `recloss.ranking.fit_lists`, NDCG of all documents of each query with a relevant one."""

    def __init__(self, trial: Trial, data: Path) -> None:
        super().__init__(trial, data)
        self.train, self.valid = training_lists(data, trial.data)
        self.scorer = scorers.build(trial.backbone.name, trial.backbone.params, self.train, trial.seed).to(device())
        self.loss = losses.build(trial.loss.name, trial.loss.params).to(device())
        self.modules = {"backbone": self.scorer, "loss": self.loss}

    def fit(self, run: Run) -> FitResult:
        """On slates of ``train.slate`` documents."""
        return fit_lists(
            self.scorer, self.loss, self.train, self.valid, fit_settings(self.trial),
            slate=self.trial.train.slate, checkpoint=run.checkpoint, on_validation=run.on_validation,
        )  # fmt: skip

    def test(self) -> UserMetrics:
        """NDCG at each cut-off."""
        test = lists(self.data, self.trial.data, "test").to(device())
        return evaluate(self.scorer, test, self.trial.protocol.cutoffs)
