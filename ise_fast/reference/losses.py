"""The ISE objective (Zhang et al., CVPR 2022, sections 3.2 and 3.3) and the Cluster-Contrast loss (Dai et al., 2021),
written directly from the formulas; autograd differentiates them, in float64 too.

In float32 PyTorch's own cross_entropy loses the gradient of a row whose probability is within 1e-6 of 1: take float64
input where that matters.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from ise_fast._checks import check_device, check_number, check_tensor
from ise_fast.reference.supports import _check_head, nearest_centroids, support_samples
from ise_fast.types import ISELossOutput

EPSILON = 1e-6  # both constants of the published label-preserving loss


def ise_loss(
    features: Tensor,
    labels: Tensor,
    centroids: Tensor,
    degree: float | Tensor,
    *,
    k: int = 1,
    temperature: float = 0.05,
    lp_temperature: float = 0.6,
    lp_weight: float = 0.1,
    gram: Tensor | None = None,
) -> ISELossOutput:
    """Contrast features and their support samples with the centroids, and keep supports near their label.

    The published memory normalises its input, so the contrastive term has no gradient along f_i even for unit rows.
    Supports and the label-preserving term take f_i as it is. The published gradients show it.

    The formulas, arguments, result and errors are those of `ise_fast.ops.ise_loss`.
    """
    f, c, y = _check_head(features, centroids, labels)
    if f.shape[0] == 0:
        raise ValueError(f"features: expected at least one row, got shape {tuple(f.shape)}")
    tau = check_number("temperature", temperature, 0, above=True)
    tau_lp = check_number("lp_temperature", lp_temperature, 0, above=True)
    weight = check_number("lp_weight", lp_weight, 0)
    if isinstance(degree, Tensor):
        degree = float(check_tensor("degree", degree, 0, (torch.float64,)))
    if gram is not None:
        check_tensor("gram", gram, 2, (c.dtype,))
        check_device("gram", gram, "centroids", c)
        if gram.shape != (c.shape[0], c.shape[0]):
            raise ValueError(f"gram: expected [{c.shape[0]}, {c.shape[0]}], got shape {tuple(gram.shape)}")

    nearest = nearest_centroids(f, c, y, k).indices
    supports = support_samples(f, c, y, nearest, degree)  # [B, k, d]
    s = supports.flatten(0, 1)
    rows = torch.cat([normalize(f, dim=1), s])
    rows_y = torch.cat([y, y.repeat_interleave(supports.shape[1])])
    contrastive = cross_entropy(rows @ c.T / tau, rows_y)
    preserving = contrastive.new_zeros(())
    if weight > 0:
        preserving = _label_preserving(f @ s.T / tau_lp, y, rows_y[len(y) :])
    return ISELossOutput(contrastive + weight * preserving, contrastive, preserving, supports.detach())


def _label_preserving(similarity: Tensor, y: Tensor, support_y: Tensor) -> Tensor:
    """`similarity` [B, B k] of features and supports; y and support_y their labels."""
    same = y[:, None] == support_y[None, :]
    e_p = similarity.masked_fill(~same, torch.inf).min(dim=1).values.exp()
    others = torch.zeros_like(e_p)
    for g in sorted(set(y.tolist())):
        e_g = similarity[:, support_y == g].max(dim=1).values.exp()
        others = others + torch.where(y == g, 0.0, e_g)
    return -torch.log(e_p / (e_p + others + EPSILON) + EPSILON).mean()


def cluster_nce_loss(features: Tensor, labels: Tensor, centroids: Tensor, temperature: float = 0.05) -> Tensor:
    """Mean over the batch of cross_entropy(f . C^T / (||f|| temperature), y): the contrastive loss of Cluster Contrast.

    Its memory normalises the features, as in `ise_loss`: no gradient along f.

    Arguments, result and errors are those of `ise_fast.ops.cluster_nce_loss`.
    """
    f, c, y = _check_head(features, centroids, labels)
    if f.shape[0] == 0:
        raise ValueError(f"features: expected at least one row, got shape {tuple(f.shape)}")
    tau = check_number("temperature", temperature, 0, above=True)
    return cross_entropy(normalize(f, dim=1) @ c.T / tau, y)
