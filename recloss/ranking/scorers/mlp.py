"""MLP: each document is scored by itself."""

from itertools import pairwise

from torch import Tensor, nn

from recloss.errors import require
from recloss.ranking.lists import Lists
from recloss.ranking.scorers.base import ListScorer, Scale, Scaling


class MLP(ListScorer):
    """Layers ``dropout(relu(W x))`` on scaled features, and a linear output.

    Args:
        train: the training lists.
        width: of the hidden layers.
        layers: number of hidden layers; none gives a linear scorer.
        dropout: of their outputs, in [0, 1).
        scaling: of the features: "standard" or "log" (see `recloss.ranking.scorers.base.Scale`).
    """

    name = "mlp"
    title = "MLP"

    def __init__(
        self, train: Lists, *, width: int = 96, layers: int = 2, dropout: float = 0.1, scaling: Scaling = "standard"
    ) -> None:
        super().__init__()
        require(width >= 1, f"width must be at least 1, got {width!r}")
        require(layers >= 0, f"layers must be at least 0, got {layers!r}")
        require(0 <= dropout < 1, f"dropout must lie in [0, 1), got {dropout!r}")
        self.scale = Scale(train, scaling)
        sizes = [train.n_features, *[width] * layers]
        hidden = [part for a, b in pairwise(sizes) for part in (nn.Linear(a, b), nn.ReLU(), nn.Dropout(dropout))]
        self.network = nn.Sequential(*hidden, nn.Linear(sizes[-1], 1))

    def forward(self, features: Tensor, present: Tensor) -> Tensor:
        """Scores that do not depend on the other documents."""
        return self.network(self.scale(features))[:, :, 0]
