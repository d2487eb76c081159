"""Nearest centroids and support samples (ISE, section 3.2)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import ise_fast._library  # noqa: F401 - registers torch.ops.ise_fast
from ise_fast._checks import check_dense, check_int, check_number
from ise_fast.ops._fake import register_fake
from ise_fast.ops._inputs import differentiable, in_working_precision, refuse_second_derivative
from ise_fast.types import Nearest


def nearest_centroids(features: Tensor, centroids: Tensor, labels: Tensor, k: int = 1) -> Nearest:
    """The k centroids most similar to each feature, its own centroid excluded.

    Similarity is the inner product, taken in float64 in one fixed order and rounded to float32; ties go to the lowest
    index. CPU and CUDA give the same bits.

    Args:
        features: [B, d] float32 (float16 and bfloat16 are converted; float64 on a CPU), usually unit rows.
        centroids: [K, d], usually unit rows.
        labels: [B] int64, the own centroid of each feature, 0 to K - 1.
        k: how many, 1 to K - 1.

    Returns:
        Nearest(similarity [B, k] float32, indices [B, k] int64), by falling similarity.

    Raises:
        TypeError: if features or centroids are not floating, or k is no integer.
        ValueError: on a wrong shape, dtype or device, k out of range, or (CPU) a label without a centroid, NaN or
            infinity.

    Source: Zhang et al., Implicit Sample Extension, CVPR 2022, section 3.2.

    Example:
        >>> c = torch.eye(3)
        >>> nearest_centroids(torch.tensor([[0.6, 0.8, 0.0]]), c, torch.tensor([1])).indices
        tensor([[0]])
    """
    f, c = in_working_precision("features", features), in_working_precision("centroids", centroids)
    check_dense("labels", labels)
    if not torch.compiler.is_compiling():  # a traced number has no type to look at; the operator checks its range
        k = check_int("k", k, 1)
    return Nearest(*torch.ops.ise_fast.nearest_centroids(f.detach(), c.detach(), labels, k))


def support_samples(features: Tensor, centroids: Tensor, labels: Tensor, nearest: Tensor, degree: float) -> Tensor:
    """s_j = u_j / ||u_j|| with u_j = f + degree (m_j - o): a step from the own centroid o towards the nearest others.

    Differentiable in `features`, where second and forward-mode derivatives are refused; centroids and degree are
    constants. A zero u_j stays zero.

    Args:
        features: [B, d] float32 (float16 and bfloat16 are converted; float64 on a CPU), unit rows.
        centroids: [K, d], unit rows.
        labels: [B] int64, 0 to K - 1.
        nearest: [B, k] int64, rows of `centroids`: `nearest_centroids(...).indices`.
        degree: in [0, 1].

    Returns:
        [B, k, d] float32, unit rows.

    Raises:
        TypeError: if features or centroids are not floating.
        ValueError: on a wrong shape, dtype or device, degree outside [0, 1], or (CPU) a label or index without a
            centroid, NaN or infinity.

    Source: Zhang et al., Implicit Sample Extension, CVPR 2022, equation 2.
    """
    f = in_working_precision("features", differentiable("support_samples", features))
    c = in_working_precision("centroids", centroids)
    check_dense("labels", labels)
    check_dense("nearest", nearest)
    degree = check_number("degree", degree, 0, 1)
    supports: Tensor = torch.ops.ise_fast.support_samples(f, c.detach(), labels, nearest, degree)[0]
    return supports


@register_fake("nearest_centroids")
def _(features: Tensor, centroids: Tensor, labels: Tensor, k: int) -> tuple[Tensor, Tensor]:
    check_int("k", k, 1)
    shape = (features.shape[0], k)
    return features.new_empty(shape), labels.new_empty(shape)


@register_fake("support_samples")
def _(features: Tensor, centroids: Tensor, labels: Tensor, nearest: Tensor, degree: float) -> tuple[Tensor, Tensor]:
    return features.new_empty((*nearest.shape, features.shape[1])), features.new_empty(nearest.shape)


@register_fake("support_samples_backward")
def _(grad: Tensor, features: Tensor, supports: Tensor, norm: Tensor) -> Tensor:
    return torch.empty_like(features, memory_format=torch.contiguous_format)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(inputs[0], *output)


def _backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    return torch.ops.ise_fast.support_samples_backward(grad, *ctx.saved_tensors), None, None, None, None


def _second(ctx: Any, grad: Tensor) -> None:
    refuse_second_derivative("support_samples")


torch.library.register_autograd("ise_fast::support_samples", _backward, setup_context=_setup)
torch.library.register_autograd("ise_fast::support_samples_backward", _second)
