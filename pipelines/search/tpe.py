"""Points proposed by Optuna's tree-structured Parzen estimator (Bergstra et al., NeurIPS 2011)."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pipelines.search.points import uniform
from pipelines.search.space import Point, Space, numbers, rounded
from pipelines.settings import Choices, Range

if TYPE_CHECKING:
    import optuna


class Proposals:
    """Proposes points and is told what they reached.

    Proposal ``number`` is a function of the seed, the cell, the results told before and the proposals that are in
    flight: replaying a search from the trials' journals proposes what it proposed before.

    Args:
        space: of the cell.
        cell: its name.
        seed: of the search.
    """

    def __init__(self, space: Space, cell: str, seed: int) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._space, self._cell, self._seed = space, cell, seed
        self._study = optuna.create_study(direction="maximize")
        self._asked: list[optuna.Trial] = []

    def ask(self) -> Point:
        """One more point, away from those in flight."""
        from optuna.samplers import TPESampler

        number = len(self._study.trials)
        self._study.sampler = TPESampler(seed=int(uniform(self._seed, self._cell, f"tpe {number}") * 2**32))
        trial = self._study.ask()
        self._asked.append(trial)
        point: Point = {}
        for key, axis in self._space.axes.items():
            if axis.exists(point):
                point[key] = suggest(trial, key, axis)
        return point

    def tell(self, values: Sequence[float | None]) -> None:
        """What the points in flight reached, in the order asked; ``None`` for one that failed."""
        from optuna.trial import TrialState

        for trial, value in zip(self._asked, values, strict=True):
            self._study.tell(trial, value, None if value is not None else TrialState.FAIL)
        self._asked.clear()


def suggest(trial: "optuna.Trial", key: str, axis: Choices | Range) -> Any:
    """A value of an axis. A list of numbers is a row of ordered steps, any other list a set of names."""
    if isinstance(axis, Range):
        if axis.whole:
            return trial.suggest_int(key, int(axis.low), int(axis.high), log=axis.log)
        return rounded(trial.suggest_float(key, axis.low, axis.high, log=axis.log), axis)
    choices, values = axis.choices, numbers(axis.choices)
    if len(choices) == 1:
        return choices[0]
    if values is None:
        return choices[trial.suggest_categorical(key, list(range(len(choices))))]
    order = sorted(range(len(choices)), key=values.__getitem__)
    return choices[order[trial.suggest_int(key, 0, len(choices) - 1)]]
