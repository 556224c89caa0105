"""MLflow: no other package talks to it.

Experiment = sweep, parent run = sweep, child run = cell, grandchild run = trial. Only the driver writes. A
write first looks at what the store holds already (runs are found by their tags), so repeating it changes
nothing. The reports read nothing but what `read_results` returns.
"""

from pipelines.tracking.outcome import record_outcome
from pipelines.tracking.read import Results, Selection, TrialRun, experiments, read_results
from pipelines.tracking.recorder import Recorder
from pipelines.tracking.store import UI_ENVIRONMENT, ui_command
from pipelines.tracking.write import Tracker, open_tracker

__all__ = [
    "UI_ENVIRONMENT", "Recorder", "Results", "Selection", "Tracker", "TrialRun", "experiments", "open_tracker",
    "read_results", "record_outcome", "ui_command",
]  # fmt: skip
