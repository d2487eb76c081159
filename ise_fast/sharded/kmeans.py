"""Lloyd's k-means over processes, each with its own rows: labels, centres and inertia of `ops.kmeans` on all of them.

Every process holds all centres and assigns its own rows. Only clusters that gained or lost a row have their mean
computed again, from sums that go from process to process in the order of the rows.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ise_fast import ops
from ise_fast.ops.shards import LANES
from ise_fast.sharded.centroids import shared_means
from ise_fast.sharded.features import HeldRows
from ise_fast.types import KMeansResult, KMeansStep

SUM_LANES = LANES * LANES  # csrc/math/row_sum.h


def shared_kmeans(features: HeldRows, centres: Tensor, iterations: int = 300) -> KMeansResult:
    """`ops.kmeans` of all rows together.

    Args:
        features: the rows.
        centres: [K, d] where to start, on every process; at most as many as rows of all.
        iterations: most assignments, >= 1.

    Returns:
        KMeansResult: the labels [n] of own rows; centres [K, d], inertia and iterations of all.

    Raises:
        PeerError: another process failed, or is gone.
    """
    peers = features.peers
    step = _assign(features, centres)
    before: Tensor | None = None
    kept: Tensor | None = None
    done = 1
    while True:
        labels, counts = _filled(features, step)
        differ = peers.numbers(*(earlier is None or not labels.equal(earlier) for earlier in (before, kept)))
        if not all(any(processes) for processes in zip(*differ, strict=True)):
            break
        if done & (done - 1) == 0:  # fillings may take turns: Brent's way to see that they have come round
            kept = labels
        centres = _moved(features, centres, labels, before, len(counts))
        before = labels
        step = _assign(features, centres)
        if done == iterations:
            break
        done += 1
    return KMeansResult(step.labels, centres, _inertia(features, step.distances), done)


def _assign(features: HeldRows, centres: Tensor) -> KMeansStep:
    """Own rows to centres; the counts are those of all."""
    step = features.peers.together(lambda: ops.kmeans_step(features.x, centres))
    features.peers.sum_(step.counts)
    return step


def _filled(features: HeldRows, step: KMeansStep) -> tuple[Tensor, Tensor]:
    """Labels of own rows and counts of all when each empty cluster, lowest first, has taken the farthest row."""
    peers, first = features.peers, features.first
    labels, counts = step.labels, step.counts
    empty = (counts == 0).nonzero()[:, 0].tolist()
    if not empty:
        return labels, counts
    labels, counts, distances = labels.clone(), counts.clone(), step.distances.clone()
    for cluster in empty:
        # Bits of float64 that is not negative have its order; -1 is below them all.
        far, row, left = torch.iinfo(torch.int64).min, 0, 0
        if len(labels):
            free = torch.where(counts[labels] > 1, distances, -1.0)
            row = int((free == free.max()).nonzero()[0])
            far, left = int(free[row].view(torch.int64)), int(labels[row])
        # Processes are in the order of the rows, and max finds the first.
        _, taken, loser = max(peers.numbers(far, first + row, left), key=lambda found: found[0])
        counts[loser] -= 1
        counts[cluster] += 1
        if first <= taken < first + len(labels):
            labels[taken - first] = cluster
            distances[taken - first] = 0
    return labels, counts


def _moved(features: HeldRows, centres: Tensor, labels: Tensor, before: Tensor | None, clusters: int) -> Tensor:
    """Centres in which the means of the clusters that gained or lost a row are new."""
    changed = torch.full((clusters,), int(before is None), device=centres.device)
    if before is not None:
        differ = labels != before
        changed[labels[differ]] = 1
        changed[before[differ]] = 1
        features.peers.sum_(changed)
    rows = (changed > 0).nonzero()[:, 0]
    place = torch.full((clusters,), -1, device=centres.device)
    place[rows] = torch.arange(len(rows), device=centres.device)
    means = shared_means(features, place[labels], len(rows), lambda sums, sizes: (sums / sizes[:, None]).to(centres))
    centres = centres.clone()
    centres[rows] = means
    return centres


def _inertia(features: HeldRows, distances: Tensor) -> float:
    """The sum of the distances of all rows, in the lanes of csrc/math/row_sum.h."""
    shift = features.first % SUM_LANES
    length = -(-(shift + len(distances)) // SUM_LANES) * SUM_LANES
    numbers = torch.zeros(length, dtype=torch.float64, device="cpu")  # 0 where others have their rows
    numbers[shift : shift + len(distances)] = distances.cpu()

    def add(_: int, lanes: Tensor) -> Tensor:
        for row in numbers.view(-1, SUM_LANES):
            lanes = lanes + row
        return lanes

    def begin(_: int) -> Tensor:
        return torch.zeros(SUM_LANES, dtype=torch.float64, device="cpu")

    sums = features.peers.pass_along(1, begin, add)
    lanes = features.peers.from_last(sums[0] if sums else begin(0)).view(LANES, LANES)
    return float(_folded(_folded(lanes)))


def _folded(lanes: Tensor) -> Tensor:
    """[..., 32] -> [...]: halves added until one number is left (csrc/math/dot.h)."""
    while lanes.shape[-1] > 1:
        half = lanes.shape[-1] // 2
        lanes = lanes[..., :half] + lanes[..., half:]
    return lanes[..., 0]
