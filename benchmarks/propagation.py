"""Goal 5: the sparse product of LightGCN and XSimGCL on Gowalla's graph, and their step against what they must do.

    python benchmarks/propagation.py [--quick] [--out FILE]

First the product `M @ x` of the normalised adjacency (70,846 nodes, 1.6 million entries) with d = 64 columns, in each
layout; `recloss.graph` is the package's own. Then one step of LightGCN (2 layers) and XSimGCL (3 layers) with SL at
B = N = 1,024, from `recloss.training.fit` over a few batches, against the products it cannot do without: one per layer
forward and one per layer backward (the graph is symmetric), timed on their own. What is left of the step is the
layers' sums, noise and contrast, the scores and the loss, and Adam.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from common import Row, main, paired, ratio, timed, walls
from data_sets import load, subset
from epochs import BATCH, loss_for, step_seconds, steps_of
from torch import Tensor

from recloss.backbones import Backbone, LightGCN, XSimGCL
from recloss.graph import SparseMatrix, normalised_adjacency
from recloss.interactions import Interactions
from recloss.similarity import csr

DIM, BLOCKS, TOLERANCE = 64, 4, 0.9


def bag(offsets: Tensor, columns: Tensor, weights: Tensor, x: Tensor) -> Tensor:
    return F.embedding_bag(columns, x, offsets, mode="sum", per_sample_weights=weights, include_last_offset=True)


def layouts(matrix: Tensor, x: Tensor) -> dict[str, Callable[[], Tensor]]:
    """The product in every layout, by name; all but the reordered one give `M @ x` itself."""
    own = SparseMatrix(matrix, symmetric=True)
    parts = matrix.crow_indices(), matrix.col_indices(), matrix.values()
    short = csr(parts[2], parts[1].int(), parts[0].int(), len(matrix))
    coo = matrix.to_sparse_coo().coalesce()
    reordered = [part.contiguous() for part in by_degree(matrix)]
    blocks = [(range_, *columns) for range_, columns in column_blocks(matrix)]

    def blocked() -> Tensor:
        first, *others = (bag(*columns, x[range_]) for range_, *columns in blocks)
        for other in others:
            first += other
        return first

    return {
        "recloss.graph": lambda: own(x),
        "CSR": lambda: matrix @ x,
        "CSR, 32-bit indices": lambda: short @ x,
        "COO": lambda: coo @ x,
        "embedding_bag": lambda: bag(*parts, x),
        "embedding_bag, nodes by degree": lambda: bag(*reordered, x),
        f"embedding_bag, {BLOCKS} blocks of columns": blocked,
    }


def by_degree(matrix: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Offsets, columns and weights with rows and columns renumbered by falling degree."""
    order = torch.argsort(matrix.crow_indices().diff(), descending=True, stable=True)
    place = torch.argsort(order)
    row, column = matrix.to_sparse_coo().coalesce().indices()
    moved = torch.stack([place[row], place[column]])
    moved = torch.sparse_coo_tensor(moved, matrix.values(), matrix.shape, check_invariants=False)
    moved = moved.coalesce().to_sparse_csr()
    return moved.crow_indices(), moved.col_indices(), moved.values()


def column_blocks(matrix: Tensor) -> list[tuple[slice, tuple[Tensor, Tensor, Tensor]]]:
    """Each range of columns, and the offsets, columns (from 0) and weights of the part of the matrix in it."""
    size, found = -(-matrix.shape[1] // BLOCKS), []
    row, column = matrix.to_sparse_coo().coalesce().indices()
    for start in range(0, matrix.shape[1], size):
        inside = (column >= start) & (column < start + size)
        counts = torch.bincount(row[inside], minlength=len(matrix))
        offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        found.append((slice(start, start + size), (offsets, column[inside] - start, matrix.values()[inside])))
    return found


def of_step(title: str, make: Callable[[], Backbone], part: Interactions, rounds: int) -> list[Row]:
    """Rows of a backbone's step."""
    backbone, calls, validations = make(), [], 2
    backbone.adjacency.register_forward_hook(lambda *_: calls.append(1))
    layers, gradient = backbone.layers, torch.randn(part.n_users + part.n_items, DIM)
    step_seconds(backbone, loss_for("sl", part), part)
    per_step = (len(calls) / layers - validations) / (2 * steps_of(part))

    def products() -> None:
        for _ in range(2 * layers):  # a backward product is the same one of a gradient
            backbone.adjacency(gradient)

    sides = {"step": lambda: step_seconds(make(), loss_for("sl", part), part), "products": timed(products)}
    taken = paired(sides, rounds)
    times, cpu = (ratio(taken["step"], taken["products"], clock) for clock in ("wall", "cpu"))
    step, bare = (walls(taken[side]).show(" ms", 1e3) for side in ("step", "products"))
    detail = f"{step}; {2 * layers} products {bare}; CPU seconds {cpu.show('×')}"
    return [
        Row(5, f"{title}: step, of its products' time", times.show("×"), detail),
        Row(5, f"{title}: propagations per step", f"{per_step:g}", "", "one", per_step == 1),
    ]


def benchmark(quick: bool) -> list[Row]:
    train, rounds = load("gowalla-40988").train, 3 if quick else 7
    torch.manual_seed(0)
    matrix = normalised_adjacency(train)
    sides = layouts(matrix, torch.randn(len(matrix), DIM))
    taken = paired({name: timed(product) for name, product in sides.items()}, 3 * rounds)
    rows = [
        Row(
            5, f"product, {name}", walls(taken[name]).show(" ms", 1e3),
            f"{ratio(taken[name], taken['recloss.graph']).show('×')} of recloss.graph's time",
        )
        for name in sides
    ]  # fmt: skip
    rivals = [name for name in sides if name != "recloss.graph"]
    best = min(rivals, key=lambda name: walls(taken[name]).median)
    ahead = ratio(taken[best], taken["recloss.graph"])
    met = ahead.median >= TOLERANCE
    rows.append(Row(5, "best other layout's time, of recloss.graph's", ahead.show("×"), best, f"≥ {TOLERANCE}×", met))
    part = subset(train, (8 if quick else 64) * BATCH)
    for title, cls in (("LightGCN, 2 layers", LightGCN), ("XSimGCL, 3 layers", XSimGCL)):
        rows += of_step(title, lambda cls=cls: cls(train, dim=DIM), part, rounds)
    return rows


if __name__ == "__main__":
    main(benchmark, __doc__)
