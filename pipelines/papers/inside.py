"""What papers show of a trained model beyond the test: thresholds, scores and gradients, from a trial's diagnostics."""

from collections.abc import Callable, Mapping
from typing import Any

Diagnosis = Mapping[str, Any]
"""See `pipelines.train.diagnostics`."""

INSIDE: dict[str, tuple[str, Callable[[Diagnosis], float | None]]] = {
    "threshold_error": ("Threshold error", lambda found: found.get("threshold", {}).get("mean_absolute_error")),
    "positive_score": ("Median positive score", lambda found: _median(found, "positive")),
    "negative_score": ("Median negative score", lambda found: _median(found, "negative")),
    "positive_gradient_share": ("Gradient share, top 5 % of positives", lambda found: found["gradient"]["positive"]),
    "negative_gradient_share": ("Gradient share, top 5 % of negatives", lambda found: found["gradient"]["negative"]),
    "truncation_rate": ("Negatives without gradient", lambda found: found["gradient"].get("zero_negatives")),
}
"""By metric its title and where it is; ``None`` for a model that has none."""


def _median(found: Diagnosis, kind: str) -> float:
    return found["scores"][kind]["quantiles"][found["scores"]["quantile_levels"].index(0.5)]
