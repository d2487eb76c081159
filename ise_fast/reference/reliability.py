"""Which images keep their cluster (SpCL: Ge et al., "Self-paced Contrastive Learning with Hybrid Memory", NeurIPS 2020,
section 3.3), by comparing the sets of images directly: N x N masks, as the paper defines them."""

from __future__ import annotations

import torch
from torch import Tensor

from ise_fast._checks import check_device, check_label_vector, check_number, check_tensor
from ise_fast.types import ReliableLabels


def check_clusterings(tight: Tensor, normal: Tensor, loose: Tensor, theta: float | None) -> float | None:
    """Three labellings of the same images: int64, -1 or a cluster.

    Raises:
        TypeError, ValueError: naming the argument.
    """
    rows = check_tensor("normal", normal, 1, (torch.int64,)).shape[0]
    for name, labels in (("tight", tight), ("normal", normal), ("loose", loose)):
        check_label_vector(name, labels, rows, "normal")
        check_device(name, labels, "normal", normal)
        if rows and int(labels.min()) < -1:
            raise ValueError(f"{name}: expected labels of at least -1, got {int(labels.min())}")
        if rows and int(labels.max()) >= 1 << 62:  # others are numbered after the largest
            raise ValueError(f"{name}: expected labels below 2^62, got {int(labels.max())}")
    return None if theta is None else check_number("theta", theta, 0)


def singles_apart(labels: Tensor) -> Tensor:
    """Noise as clusters of one image each: K, K + 1, ... in image order."""
    noise = labels < 0
    clusters = int(labels.max()) + 1 if len(labels) else 0
    return torch.where(noise, clusters + noise.cumsum(0) - 1, labels)


def reliable_labels(tight: Tensor, normal: Tensor, loose: Tensor, theta: float | None = None) -> ReliableLabels:
    """Clusters of the middle clustering that a stricter and a looser one confirm; every other image stands alone.

    Rcomp, Rindep, arguments, result and errors are those of `ise_fast.ops.reliable_labels`.
    """
    theta = check_clusterings(tight, normal, loose, theta)
    n = normal.shape[0]
    t, a, o = (singles_apart(labels) for labels in (tight, normal, loose))
    r_comp, r_indep = _disagreement(a, t), _disagreement(a, o)
    clusters = int(a.max()) + 1 if n else 0
    members = {c: (a == c).nonzero()[:, 0] for c in set(a.tolist())}
    comp = {c: float(r_comp[m].min()) for c, m in members.items()}
    indep = {c: float(r_indep[m].min()) for c, m in members.items()}
    if theta is None:
        several = sorted(indep[c] for c, m in members.items() if len(m) > 1)
        theta = several[min(len(several) - 1, round(0.9 * len(several)))] if several else 1.0

    labels, left = a.tolist(), {c: len(m) for c, m in members.items()}
    following = clusters
    for i in range(n):
        c = labels[i]
        if (indep[c] <= theta and float(r_comp[i]) <= comp[c]) or left[c] == 1:
            continue
        left[c] -= 1
        labels[i] = following
        following += 1
    return ReliableLabels(torch.tensor(labels, dtype=torch.int64, device=normal.device), theta, r_comp, r_indep)


def _disagreement(a: Tensor, b: Tensor) -> Tensor:
    """[N] 1 - |A & B| / |A u B| of the sets of images that share i's label."""
    in_a, in_b = a[:, None] == a[None, :], b[:, None] == b[None, :]
    both, either = (in_a & in_b).sum(1), (in_a | in_b).sum(1)
    return 1 - both.float() / either.float()
