"""python -m benchmarks.recall [ROWS WIDTH]: what approximate neighbours do to labels.

Candidates are the rows of the nearest cells of k-means, an inverted file; all that follows is exact.
"""

from __future__ import annotations

import argparse

import torch
from sklearn.metrics import adjusted_rand_score
from torch import Tensor
from torch.nn.functional import normalize

from benchmarks.data import clustered_features
from ise_fast import ops
from ise_fast.types import CSRGraph

K1, K2, EPS, MIN_SAMPLES = 30, 6, 0.6, 4


def overlapping_parts(n: int, d: int, seed: int = 0) -> Tensor:
    """[n, d] unit rows of a mixture in eight dimensions whose n / 17 parts overlap."""
    g = torch.Generator().manual_seed(seed)
    centres = torch.randn(n // 17, 8, generator=g)
    x = centres[torch.randint(len(centres), (n,), generator=g)] + 0.45 * torch.randn(n, 8, generator=g)
    return normalize(x @ torch.randn(8, d, generator=g) + 0.3 * torch.randn(n, d, generator=g), dim=1)


def cell_order(x: Tensor, cells: int) -> tuple[Tensor, Tensor]:
    """The cell of each row, [N], and for each row the place of every cell by its distance, [N, cells]."""
    start = ops.kmeans_start(x, cells, torch.Generator().manual_seed(0))
    centres = ops.kmeans(x, x[start], iterations=10).centres
    nearest = ops.knn(centres, cells, y=x).indices
    return nearest[:, 0], nearest.argsort(dim=1)


def candidates_of(cell: Tensor, place: Tensor, probes: int) -> Tensor:
    """[N, c] rows of the `probes` nearest cells of each row, and of more where they have fewer than k1; -1 fills up."""
    sizes = torch.bincount(cell, minlength=place.shape[1])
    reached = sizes[place.argsort(dim=1)].cumsum(1)
    needed = ((reached < K1).sum(1) + 1).clamp_min(probes)
    chosen = place[:, cell] < needed[:, None]
    order = chosen.to(torch.uint8).argsort(dim=1, descending=True, stable=True)
    most = int(chosen.sum(1).max())
    return torch.where(chosen.gather(1, order), order, -1)[:, :most]


def labels_of(x: Tensor, nn: Tensor) -> Tensor:
    v = torch.ops.ise_fast.k_reciprocal_encoding(x, nn, K2)
    return ops.dbscan(CSRGraph(*torch.ops.ise_fast.jaccard_graph(*v, EPS, 0, len(x))), EPS, MIN_SAMPLES).labels


def table(rows: int, width: int) -> str:
    lines = [
        "| data | cells looked at | share of rows | recall of 30 | index of labels | clusters | noise |",
        "|---|---|---|---|---|---|---|",
    ]
    kinds = {
        "clustered": clustered_features(rows, width, rows // 17),
        "overlapping": overlapping_parts(rows, width),
    }
    for name, x in kinds.items():
        exact = ops.knn(x, K1).indices
        truth = labels_of(x, exact)
        lines.append(f"| {name} | all | 1 | 1 | 1 | {int(truth.max()) + 1} | {int((truth < 0).sum())} |")
        cell, place = cell_order(x, int(rows**0.5))
        for probes in (1, 4, 8, 16, 32):
            candidates = candidates_of(cell, place, probes)
            found = ops.knn(x, K1, candidates=candidates)
            labels = labels_of(x, found.indices)
            recall = float((found.indices[:, :, None] == exact[:, None, :]).any(2).double().mean())
            index = adjusted_rand_score(truth.numpy(), labels.numpy())
            share = float((candidates >= 0).double().sum(1).mean()) / rows
            lines.append(
                f"| {name} | {probes} | {share:.3f} | {recall:.3f} | {index:.3f} | "
                f"{int(labels.max()) + 1} | {int((labels < 0).sum())} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.recall", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("rows", nargs="?", type=int, default=3000)
    parser.add_argument("width", nargs="?", type=int, default=64)
    options = parser.parse_args()
    print(table(options.rows, options.width))


if __name__ == "__main__":
    main()
