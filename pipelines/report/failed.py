"""The failed trials of a sweep, those of one reason together."""

from collections.abc import Iterable
from dataclasses import dataclass

from pipelines.tracking import TrialRun
from recloss.errors import plain


@dataclass(frozen=True)
class Failure:
    """Trials that failed for the same reason."""

    kind: str
    """See `pipelines.train.failures`; empty where it is not recorded."""
    error: str
    trials: tuple[TrialRun, ...]

    @property
    def cells(self) -> list[str]:
        """Data set, backbone and loss of the cells that they are of, each once."""
        return list(dict.fromkeys(", ".join((t.data, t.backbone, t.loss)) for t in self.trials))


def failures(trials: Iterable[TrialRun]) -> list[Failure]:
    """The reasons of the failed trials, the most frequent first."""
    groups: dict[tuple[str, str], list[TrialRun]] = {}
    for trial in trials:
        if trial.status == "FAILED":
            kind = trial.failures[-1] if trial.failures else ""
            groups.setdefault((kind, plain(trial.error or "") or "no error text"), []).append(trial)
    found = [Failure(kind, error, tuple(group)) for (kind, error), group in groups.items()]
    return sorted(found, key=lambda failure: -len(failure.trials))
