"""What the cells of a sweep cost: search and confirmation, failed and pruned trials too."""

from dataclasses import dataclass

from pipelines.report.cells import Cell


@dataclass(frozen=True)
class CellCost:
    """Sums over the trials of a cell that ended, test scoring not counted."""

    trials: int
    """Those of which the cost is known."""
    hours: float
    """Wall time, one trial after the other."""
    cpu_hours: float
    gpu_hours: float
    peak_gb: float
    """Largest resident memory of one process, in 10^9 bytes."""


def cell_cost(cell: Cell) -> CellCost | None:
    """The cost of a cell; ``None`` where no trial told it."""
    trials = {trial.hash: trial.cost for trial in (*cell.grid, *cell.confirmation) if trial.cost}
    if not trials:
        return None
    costs = list(trials.values())
    hours, cpu, gpu = (sum(cost[f"{name}seconds"] for cost in costs) / 3600 for name in ("", "cpu_", "gpu_"))
    return CellCost(len(costs), hours, cpu, gpu, max(cost["peak_memory"] for cost in costs) / 1e9)
