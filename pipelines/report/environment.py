"""Where the trials of a sweep ran: machine, versions, kernel, threads; and where these differ."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from pipelines.tracking import TrialRun

NOT_RECORDED = "not recorded"
_OF_NO_MATTER = ("pid",)


@dataclass(frozen=True)
class Setting:
    """One property of the environment."""

    name: str
    """As `pipelines.train.environment` has it."""
    values: tuple[tuple[str, int], ...]
    """Each value with the number of trials that ran so, the most frequent first."""

    @property
    def differs(self) -> bool:
        """Whether it was not the same for all trials."""
        return len(self.values) > 1


def environments(trials: Iterable[TrialRun]) -> list[Setting]:
    """The properties that any trial recorded, in the order of recording; without a trial or a record, none."""
    known = [trial.environment for trial in trials]
    names = dict.fromkeys(name for environment in known for name in environment if name not in _OF_NO_MATTER)
    return [Setting(name, tuple(Counter(e.get(name, NOT_RECORDED) for e in known).most_common())) for name in names]
