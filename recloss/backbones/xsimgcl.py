"""XSimGCL: LightGCN on noisy layers, with a contrast between layers."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from recloss.backbones.base import Backbone, embedding_table
from recloss.errors import require, require_positive
from recloss.graph import SparseMatrix, normalised_adjacency
from recloss.interactions import Interactions
from recloss.similarity import prepare


class XSimGCL(Backbone):
    """XSimGCL: mean of the layers ``AE, ..., A^L E`` (without E itself) of LightGCN's graph, contrasted with one layer.

    In training, each propagation adds noise that the next one carries on, ``E <- E + noise * sign(E) * v / ||v||`` with
    v ~ U(0, 1)^d per node from torch's global generator. The auxiliary loss is
    ``contrast_weight * (InfoNCE(users) + InfoNCE(items))`` between the mean and the noisy layer ``contrast_layer``; it
    depends on the batch: each of its users (positive items) counts once and is told from the others.

    One propagation serves both losses: ``auxiliary_loss`` takes the views of the ``embed`` before it and drops them.

    Args:
        train: the training interactions.
        dim: embedding dimension d.
        layers: number of propagations L, at least 1.
        init: as for MF.
        noise: length of each node's noise, 0 for none.
        contrast_layer: the contrasted layer, 1 .. L.
        contrast_tau: temperature of InfoNCE.
        contrast_weight: weight of the auxiliary loss, 0 for none.

    Source: Yu et al., TKDE 2023.
    """

    name = "xsimgcl"
    title = "XSimGCL"

    def __init__(
        self,
        train: Interactions,
        *,
        dim: int = 64,
        layers: int = 3,
        init: str = "xavier_uniform",
        noise: float = 0.1,
        contrast_layer: int = 1,
        contrast_tau: float = 0.1,
        contrast_weight: float = 0.1,
    ) -> None:
        super().__init__()
        require(layers >= 1, f"layers must be at least 1, got {layers}")
        require(1 <= contrast_layer <= layers, f"contrast_layer must lie in 1..{layers}, got {contrast_layer}")
        require_positive(contrast_tau=contrast_tau)
        for key, value in (("noise", noise), ("contrast_weight", contrast_weight)):
            require(0 <= value < float("inf"), f"{key} must be a number of at least 0, got {value!r}")
        self.user = embedding_table(train.n_users, dim, init)
        self.item = embedding_table(train.n_items, dim, init)
        self.layers, self.noise = layers, noise
        self.contrast_layer, self.contrast_tau, self.contrast_weight = contrast_layer, contrast_tau, contrast_weight
        self.adjacency = SparseMatrix(normalised_adjacency(train), symmetric=True)
        self._views: tuple[Tensor, Tensor] | None = None

    def embed(self) -> tuple[Tensor, Tensor]:
        """Mean of all layers but the first; noisy in training."""
        layer, layers = torch.cat([self.user, self.item]), []
        for _ in range(self.layers):
            layer = self.adjacency(layer)
            if self.training and self.noise:
                layer = layer + self._noise(layer.detach())
            layers.append(layer)
        mean = sum(layers[1:], layers[0]) / self.layers
        contrasted = self.training and self.contrast_weight
        self._views = (mean, layers[self.contrast_layer - 1]) if contrasted else None
        return mean[: len(self.user)], mean[len(self.user) :]

    def _noise(self, layer: Tensor) -> Tensor:
        return F.normalize(torch.rand_like(layer), dim=1).mul_(layer.sign()).mul_(self.noise)

    def auxiliary_loss(self, users: Tensor, items: Tensor) -> Tensor | None:
        """Weighted InfoNCE of the distinct users plus that of the distinct items.

        Raises:
            RuntimeError: without an ``embed`` in training mode since the last call.
        """
        if not self.contrast_weight:
            return None
        if self._views is None:
            raise RuntimeError("auxiliary_loss needs the views of an embed() in training mode: call that before each")
        views, self._views = self._views, None
        users = users.unique()
        nodes = torch.cat([users, items.unique() + len(self.user)])
        (mean_users, mean_items), (layer_users, layer_items) = (
            view.index_select(0, nodes).tensor_split([len(users)]) for view in views
        )
        of_users = info_nce(mean_users, layer_users, self.contrast_tau)
        return self.contrast_weight * (of_users + info_nce(mean_items, layer_items, self.contrast_tau))

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_views": None}  # a copy has its own step


def info_nce(rows_MD: Tensor, columns_MD: Tensor, tau: float) -> Tensor:
    """``L = -mean_m log softmax(<r_m, c_.> / tau)_m`` of two L2-normalised views (M, d) of the same M nodes."""
    logits = prepare(rows_MD, "cosine") @ prepare(columns_MD, "cosine").T / tau
    return (logits.logsumexp(1) - logits.diagonal()).mean()
