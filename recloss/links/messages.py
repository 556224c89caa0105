"""The graph that messages travel on: training edges, less those that are being scored."""

import torch
from torch import Tensor, nn

from recloss.graph import SparseMatrix
from recloss.links.links import edge_keys
from recloss.similarity import csr


class MessageGraph(nn.Module):
    """Undirected edges with a loop at every node; calling it gives ``D^-1/2 (A + I) D^-1/2`` of all or fewer edges.

    Args:
        edges: (E, 2) int64 distinct edges, the smaller node of each first.
        n_nodes: number of nodes.

    Source: Kipf and Welling, ICLR 2017, eq. 2.
    """

    row: Tensor
    column: Tensor
    key: Tensor

    def __init__(self, edges: Tensor, n_nodes: int) -> None:
        super().__init__()
        loops = torch.arange(n_nodes, device=edges.device)[:, None].expand(-1, 2)
        entries = torch.cat([edges, edges.flip(1), loops])
        entries = entries[torch.argsort(entries[:, 0] * n_nodes + entries[:, 1])]
        self.n_nodes = n_nodes
        self.register_buffer("row", entries[:, 0].contiguous(), persistent=False)
        self.register_buffer("column", entries[:, 1].contiguous(), persistent=False)
        self.register_buffer("key", edge_keys(entries, n_nodes), persistent=False)

    def forward(self, without: Tensor | None = None) -> SparseMatrix:
        """The (n_nodes, n_nodes) matrix as if the edges ``without`` (B, 2), in any order of nodes, had never been."""
        row, column = self.row, self.column
        if without is not None:
            kept = ~torch.isin(self.key, edge_keys(without, self.n_nodes))
            row, column = row[kept], column[kept]
        degree = torch.bincount(row, minlength=self.n_nodes)
        scale = degree.to(torch.get_default_dtype()).rsqrt()
        offsets = torch.cat([degree.new_zeros(1), degree.cumsum(0)])
        return SparseMatrix(csr(scale[row] * scale[column], column, offsets, self.n_nodes), symmetric=True)
