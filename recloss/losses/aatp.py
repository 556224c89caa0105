"""AATP: accuracy at the top, hinges on both sides of the user's top-K threshold."""

from torch import Tensor

from recloss.losses.base import Batch, ThresholdLoss


def aatp(pos: Tensor, neg: Tensor, threshold: Tensor) -> Tensor:
    """``l_b = max(0, 1 + beta_b - p_b) + 1/N * sum_j max(0, 1 + n_bj - beta_b)``.

    Args:
        pos: (B,) scores of the positives.
        neg: (B, N) scores of the negatives.
        threshold: (B,) top-K threshold beta of each row's user, without gradient.

    Returns:
        (B,) losses, at least 0.
    """
    return (1 + threshold - pos).relu() + (1 + neg - threshold[:, None]).relu().mean(1)


class AATP(ThresholdLoss):
    """Accuracy at the top on cosines; by default the threshold is learned as Talos learns it.

    The margins of 1 are wide for cosines: nearly every score has the same gradient, wherever it stands.

    The threshold used is the one before the step.

    State: ``threshold`` (see `recloss.thresholds`).

    Args:
        n_users: number of users.
        n_items: size of the catalogue.
        k: the cut-off K.
        threshold: "regression", "monte_carlo", "exact" or "smoothed".
        threshold_lr: learning rate of a "regression" or "smoothed" threshold.
        refresh: epochs between "monte_carlo" or "exact" estimates.
        samples: negatives drawn per user for a "monte_carlo" estimate.

    Source: Boyd et al., NeurIPS 2012, as Talos (WWW 2026) adapts it.
    """

    name = "aatp"
    title = "AATP"
    per_row = True
    needs = frozenset({"user"})

    def compute(self, batch: Batch) -> Tensor:
        """Mean of ``aatp`` over the batch, plus the threshold's own loss where it has one."""
        assert batch.user is not None
        return self.with_fit(aatp(batch.pos, batch.neg, self.threshold(batch.user)).mean(), batch)
