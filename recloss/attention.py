"""The block of attention networks, over histories and over lists."""

import torch.nn.functional as F
from torch import Tensor, nn


class AttentionBlock(nn.Module):
    """``x + dropout(attention(norm(x)))``, then ``x + dropout(network(norm(x)))``, the network with one hidden layer.

    Args:
        dim: d.
        feed_forward: size of the hidden layer.
        heads: of the attention; divides ``dim``.
        dropout: of the attention's weights, the hidden layer and both results, in [0, 1).
    """

    def __init__(self, dim: int, feed_forward: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.share = heads, dropout
        self.before_attention, self.before_network = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.mixed = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.network = nn.Sequential(
            nn.Linear(dim, feed_forward), nn.ReLU(), nn.Dropout(dropout), nn.Linear(feed_forward, dim)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        """(B, L, d) to (B, L, d); ``seen`` (B, 1, L or 1, L) says which columns each row attends to."""
        parts = self.qkv(self.before_attention(x)).unflatten(2, (3 * self.heads, -1)).transpose(1, 2)
        q, k, v = parts.chunk(3, dim=1)
        share = self.share if self.training else 0.0
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, dropout_p=share)
        x = x + self.dropout(self.mixed(attended.transpose(1, 2).flatten(2)))
        return x + self.dropout(self.network(self.before_network(x)))
