"""Support samples by progressive linear interpolation (Zhang et al., "Implicit Sample Extension for Unsupervised
Person Re-Identification", CVPR 2022, section 3.2): f the features, o the own centroid, m_1..m_k the nearest others.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ise_fast._checks import (
    check_columns,
    check_device,
    check_features,
    check_int,
    check_label_range,
    check_label_vector,
    check_number,
    check_tensor,
)
from ise_fast.types import Nearest


def _check_head(features: Tensor, centroids: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    f = check_features("features", features)
    c = check_features("centroids", centroids)
    check_columns("centroids", c, "features", f)
    y = check_label_vector("labels", labels, f.shape[0], "features")
    check_device("labels", y, "features", f)
    check_label_range("labels", y, c.shape[0])
    return f, c.detach(), y


def nearest_centroids(features: Tensor, centroids: Tensor, labels: Tensor, k: int = 1) -> Nearest:
    """The k centroids with the largest inner product f . c, the feature's own one excluded.

    The order of equal products, arguments, result and errors are those of `ise_fast.ops.nearest_centroids`.
    """
    f, c, y = _check_head(features, centroids, labels)
    k = check_int("k", k, 1, c.shape[0] - 1, f"one less than the {c.shape[0]} centroids")
    similarity = (f.detach().double() @ c.double().T).to(f.dtype)
    similarity.scatter_(1, y[:, None], -math.inf)
    ordered, indices = similarity.sort(dim=1, descending=True, stable=True)
    return Nearest(ordered[:, :k], indices[:, :k])


def support_samples(features: Tensor, centroids: Tensor, labels: Tensor, nearest: Tensor, degree: float) -> Tensor:
    """s_j = u_j / ||u_j|| with u_j = f + degree (m_j - o): a step from the own centroid towards the j-th nearest one.

    Arguments, result and errors are those of `ise_fast.ops.support_samples`.
    """
    f, c, y = _check_head(features, centroids, labels)
    m = check_tensor("nearest", nearest, 2, (torch.int64,))
    if m.shape[0] != f.shape[0]:
        raise ValueError(f"nearest: expected {f.shape[0]} rows as in features, got shape {tuple(m.shape)}")
    check_device("nearest", m, "features", f)
    check_label_range("nearest", m, c.shape[0])
    degree = check_number("degree", degree, 0, 1)
    u = f[:, None, :] + degree * (c[m] - c[y][:, None, :])
    return torch.nn.functional.normalize(u, dim=2)


def interpolation_degree(progress: float, base: float = 0.25) -> float:
    """lambda = base * log((e - 1) * progress + 1): 0 at the start of training, `base` at its end.

    The published code halves a base of 1 twice, which makes 0.25.

    Args:
        progress: t / T in [0, 1].
        base: the degree at the end, in [0, 1].

    Raises:
        TypeError, ValueError: naming the argument that is outside [0, 1].
    """
    progress = check_number("progress", progress, 0, 1)
    base = check_number("base", base, 0, 1)
    return base * math.log((math.e - 1) * progress + 1)
