"""Nearest centroids and support samples (ISE, section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor

import ise_fast._library  # noqa: F401 - registers torch.ops.ise_fast
from ise_fast.types import Nearest


def nearest_centroids(features: Tensor, centroids: Tensor, labels: Tensor, k: int = 1) -> Nearest:
    """The k centroids most similar to each feature, its own centroid excluded.

    Similarity is the inner product, taken in float64 in one fixed order and rounded to float32; ties go to the lowest
    index. CPU and CUDA give the same bits.

    Args:
        features: [B, d] float32 (float16 and bfloat16 are converted), usually unit rows.
        centroids: [K, d], usually unit rows.
        labels: [B] int64, the own centroid of each feature, 0 to K - 1.
        k: how many, 1 to K - 1.

    Returns:
        Nearest(similarity [B, k] float32, indices [B, k] int64), by falling similarity.

    Raises:
        ValueError: on a wrong shape, dtype or device, k out of range, or (CPU) a label without a centroid.

    Source: Zhang et al., Implicit Sample Extension, CVPR 2022, section 3.2.

    Example:
        >>> c = torch.eye(3)
        >>> nearest_centroids(torch.tensor([[0.6, 0.8, 0.0]]), c, torch.tensor([1])).indices
        tensor([[0]])
    """
    return Nearest(*torch.ops.ise_fast.nearest_centroids(features.float(), centroids.float(), labels, k))


@torch.library.register_fake("ise_fast::nearest_centroids")
def _(features: Tensor, centroids: Tensor, labels: Tensor, k: int) -> tuple[Tensor, Tensor]:
    shape = (features.shape[0], k)
    return features.new_empty(shape), labels.new_empty(shape)
