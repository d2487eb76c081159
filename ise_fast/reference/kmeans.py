"""Lloyd's k-means with every tie decided, in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

from ise_fast._checks import check_columns, check_features, check_int
from ise_fast.types import KMeansResult, KMeansStep


def kmeans_step(x: Tensor, centres: Tensor) -> KMeansStep:
    """Assign every row to its nearest centre by (squared Euclidean distance, index) and add up the rows of each.

    Distances are float64; sums are float64 in row order.

    Arguments, result and errors are those of `ise_fast.ops.kmeans_step`.
    """
    rows, c = check_features("x", x), check_features("centres", centres)
    check_columns("centres", c, "x", rows)
    if c.shape[0] == 0:
        raise ValueError(f"centres: expected at least one row, got shape {tuple(c.shape)}")
    rows = rows.double()
    squared = torch.stack([(rows - centre).square().sum(1) for centre in c.double()], dim=1)
    distances = squared.min(dim=1).values
    labels = (squared == distances[:, None]).long().argmax(dim=1)  # the first
    sums = torch.zeros(c.shape, dtype=torch.float64, device=c.device)
    for row, label in zip(rows, labels.tolist(), strict=True):
        sums[label] += row
    counts = torch.bincount(labels, minlength=c.shape[0])
    return KMeansStep(labels, sums, counts, distances.sum(), distances)


def kmeans(x: Tensor, centres: Tensor, *, iterations: int = 300) -> KMeansResult:
    """Lloyd's iterations from given centres until no label changes, or labels come round.

    Arguments, result and errors are those of `ise_fast.ops.kmeans`.
    """
    rows, c = check_features("x", x), check_features("centres", centres)
    check_columns("centres", c, "x", rows)
    check_int("iterations", iterations, 1)
    if not 1 <= c.shape[0] <= rows.shape[0]:
        raise ValueError(f"centres: expected 1 to {rows.shape[0]} rows (rows of x), got shape {tuple(c.shape)}")
    before: Tensor | None = None
    kept: Tensor | None = None
    done = 0
    while done < iterations:
        done += 1
        step = kmeans_step(rows, c)
        filled = fill_empty(step.labels, step.counts, step.distances)
        if any(earlier is not None and filled.equal(earlier) for earlier in (before, kept)):
            break
        if done & (done - 1) == 0:  # fillings may take turns: Brent's way to see that they have come round
            kept = filled
        before = filled
        means = [rows[before == k].double() for k in range(c.shape[0])]
        c = torch.stack([_sum_in_order(m) / len(m) for m in means]).to(rows.dtype)
    labels, _, _, inertia, _ = kmeans_step(rows, c)
    return KMeansResult(labels, c, float(inertia), done)


def fill_empty(labels: Tensor, counts: Tensor, distances: Tensor) -> Tensor:
    """Labels with every empty cluster given the row farthest from its centre."""
    labels, counts, distances = labels.clone(), counts.clone(), distances.clone()
    for k in (counts == 0).nonzero()[:, 0].tolist():
        free = torch.where(counts[labels] > 1, distances, -1.0)
        row = int((free == free.max()).nonzero()[0])
        counts[labels[row]] -= 1
        counts[k] += 1
        labels[row] = k
        distances[row] = 0
    return labels


def _sum_in_order(rows: Tensor) -> Tensor:
    total = torch.zeros(rows.shape[1], dtype=torch.float64, device=rows.device)
    for row in rows:
        total += row
    return total


def kmeans_start(x: Tensor, clusters: int, generator: torch.Generator | None = None) -> Tensor:
    """Rows to start from, by k-means++: each drawn in proportion to its squared distance from those chosen.

    Arguments, result and errors are those of `ise_fast.ops.kmeans_start`.
    """
    rows = check_features("x", x).double()
    k = check_int("clusters", clusters, 1, rows.shape[0], f"x has {rows.shape[0]} rows")
    draws = torch.rand(k, generator=generator, dtype=torch.float64, device="cpu")
    chosen = [int(draws[0] * rows.shape[0])]
    for draw in draws[1:].tolist():
        distances = (rows[:, None] - rows[chosen]).square().sum(2).min(dim=1).values
        below = distances.cumsum(0)
        if below[-1] == 0:
            chosen.append(min(set(range(rows.shape[0])) - set(chosen)))
        else:
            chosen.append(int((below > draw * below[-1]).long().argmax()))
    return torch.tensor(chosen, device=x.device)
