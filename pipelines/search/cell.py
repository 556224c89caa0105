"""A cell of a sweep: what is searched in it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.search.space import Space
from pipelines.settings import REFERENCE, Task, Trial, make_reference_trial, make_trial

Configuration = tuple[Trial, ...]
"""The trials of one configuration, one per seed of the search."""


@dataclass(frozen=True)
class Cell:
    """One data set x backbone x loss, or data set x "reference" x reference model, with its search.

    Attributes:
        data: the data set's name in the sweep.
        fingerprint: of the data set's content.
        where: names the cell in messages.
        space: of its settings.
        seeds: of the search.
        configurations: all of them; with TPE, which finds them as it goes, some that show the settings to be valid.
        size: number of configurations, at most.
        notes: what a reader of its result should know of its budget.
        task: of its trials.
    """

    data: str
    backbone: str
    loss: str
    fingerprint: str
    where: str
    space: Space
    seeds: tuple[int, ...]
    configurations: tuple[Configuration, ...] = ()
    size: int = 0
    notes: tuple[str, ...] = ()
    task: Task = "pairs"

    @property
    def grid(self) -> tuple[Trial, ...]:
        """The trials of all `configurations`."""
        return tuple(trial for configuration in self.configurations for trial in configuration)

    @property
    def name(self) -> str:
        """``data | backbone | loss``."""
        return f"{self.data} | {self.backbone} | {self.loss}"

    @property
    def metric(self) -> str:
        """The validation metric that selects, such as ``ndcg_20``."""
        return self.grid[0].protocol.metric

    def configuration(self, point: Mapping[str, Any]) -> Configuration:
        """The trials of a point, on every seed.

        Raises:
            InputError: naming the setting that is unknown, refused or without effect.
        """
        seed, where = self.seeds[0], self.where
        if self.backbone == REFERENCE:
            first = make_reference_trial(self.fingerprint, self.loss, point, seed=seed, where=where)
        else:
            first = make_trial(
                self.fingerprint, self.backbone, self.loss, point, task=self.task, seed=seed, where=where
            )
        return first, *(first.model_copy(update={"seed": seed}) for seed in self.seeds[1:])
