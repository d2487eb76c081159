"""Which images keep their cluster (SpCL: Ge et al., NeurIPS 2020, section 3.3), from tables of counts: O(N)."""

from __future__ import annotations

import torch
from torch import Tensor

from ise_fast.reference.reliability import check_clusterings, singles_apart
from ise_fast.types import ReliableLabels


def reliable_labels(tight: Tensor, normal: Tensor, loose: Tensor, theta: float | None = None) -> ReliableLabels:
    """Clusters of the middle clustering that a stricter and a looser one confirm; every other image stands alone.

    With A, T, L the images that share i's label in the three clusterings (an image of noise is alone in each),

        Rcomp_i = 1 - |A & T| / |A u T|,   Rindep_i = 1 - |A & L| / |A u L|                 (float32)
        comp_c = smallest Rcomp, indep_c = smallest Rindep over the images of cluster c
        i stays iff indep_c <= theta and Rcomp_i <= comp_c

    |A & T| comes from counting pairs of labels, so no N x N mask is formed; integers decide everything, on any device.

    Args:
        tight: [N] int64, labels of the stricter clustering (smaller eps), -1 noise.
        normal: [N] int64, the clustering to refine; its clusters are numbered from 0.
        loose: [N] int64, labels of the looser clustering.
        theta: threshold; None (first epoch): the value at place min(M - 1, round(0.9 M)) of the indep_c of the M
            clusters with more than one image, ascending; 1 if there is no such cluster.

    Returns:
        ReliableLabels(labels [N] int64 without noise, threshold, completeness [N] float32 = Rcomp, independence [N]
        float32 = Rindep). Clusters keep their number, singles of `normal` come next in image order, then images that
        had to leave, in image order; the last image of a cluster that all others left keeps the cluster's number.

    Raises:
        TypeError, ValueError: naming the argument.

    Source: Ge et al., Self-paced Contrastive Learning with Hybrid Memory, NeurIPS 2020.

    Example:
        >>> labels = torch.tensor([0, 0, 0, -1])
        >>> reliable_labels(torch.tensor([0, 0, -1, -1]), labels, labels).labels
        tensor([0, 0, 2, 1])
    """
    theta = check_clusterings(tight, normal, loose, theta)
    n = normal.shape[0]
    if n == 0:
        none = torch.empty(0, device=normal.device)
        return ReliableLabels(normal.clone(), 1.0 if theta is None else theta, none, none.clone())
    number = singles_apart(normal)
    # Without gaps: tables are as long as there are clusters, however these are numbered.
    t, a, o = (x.unique(return_inverse=True)[1] for x in (singles_apart(tight), number, singles_apart(loose)))
    r_comp, r_indep = _disagreement(a, t), _disagreement(a, o)
    size = a.bincount()
    worst = r_comp.new_full(size.shape, torch.inf)
    comp = worst.scatter_reduce(0, a, r_comp, "amin")
    indep = worst.scatter_reduce(0, a, r_indep, "amin")
    if theta is None:
        several = indep[size > 1].sort().values
        m = several.shape[0]
        theta = float(several[min(m - 1, round(0.9 * m))]) if m else 1.0

    stays = (indep[a].double() <= theta) & (r_comp <= comp[a])
    image = torch.arange(n, device=a.device)
    # The image that keeps the number of a cluster nobody stays in: its last.
    last = torch.zeros_like(size).scatter_reduce(0, a, image, "amax")
    nobody = torch.zeros_like(size).index_add_(0, a, stays.long()) == 0
    moves = ~stays & ~(nobody[a] & (last[a] == image))
    following = int(number.max()) + moves.cumsum(0)
    return ReliableLabels(torch.where(moves, following, number), theta, r_comp, r_indep)


def _disagreement(a: Tensor, b: Tensor) -> Tensor:
    """[N] 1 - |A & B| / |A u B| of the sets of images that share i's label."""
    _, pair, common = torch.unique(a * (int(b.max()) + 1) + b, return_inverse=True, return_counts=True)
    both = common[pair]
    iou: Tensor = both.float() / (a.bincount()[a] + b.bincount()[b] - both).float()
    return 1 - iou
