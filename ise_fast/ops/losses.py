"""The ISE objective and the Cluster-Contrast loss: one operator forward, one backward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import ise_fast._library  # noqa: F401 - registers torch.ops.ise_fast
from ise_fast._checks import check_all_dense, check_dense, check_int, check_number, check_tensor
from ise_fast.ops._fake import register_fake
from ise_fast.ops._inputs import differentiable, floating, refuse_second_derivative, working_dtype
from ise_fast.types import ISELossOutput


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

        contrastive      = mean over the B (1 + k) rows of cross_entropy(row . C^T / temperature, y)
        label preserving = mean over i of -log(e_p / (e_p + sum_g e_g + 1e-6) + 1e-6)
        loss             = contrastive + lp_weight * label preserving

    where e_p = exp of the smallest f_i . s / lp_temperature among the supports of the same label, and e_g = exp of the
    largest among those of each other label g in the batch (ties: the first support takes the gradient). The rows of
    the contrastive term are f_i / ||f_i|| and the supports; `ise_fast.reference.ise_loss` is the direct form.

    Nothing of size B (1 + k) x K is formed, and scratch stays below about 400 MB on a CPU and 1 GB on CUDA, up to a
    million centroids. The gradient is computed in the forward pass where `features` asks for one; the backward pass
    scales it. All three losses are differentiable in `features`; second and forward-mode derivatives are refused. A
    batch of one label, one row or two centroids is fine.

    Mixed precision follows the features: where they are float16 or bfloat16, each matrix product on CUDA is one of
    numbers of that type, with centroids, supports and weights rounded to it (so centroids must lie in its range). Sums,
    exponentials, losses and supports are float32, and each feature's nearest centroids are those of the numbers given.
    A CPU computes all of it in float32. Float32 features keep float32 accuracy, whatever the centroids are and whatever
    autocast says.

    Args:
        features: [B, d] float32, float16 or bfloat16 (float64 on a CPU), unit rows, B >= 1; the gradient is of the
            same dtype.
        labels: [B] int64, 0 to K - 1.
        centroids: [K, d] float32, float16 or bfloat16 (float64 with float64 features), unit rows; a constant.
        degree: interpolation degree lambda in [0, 1]; or a float64 scalar tensor of it, which a captured CUDA graph
            reads anew at every replay (its range is then not checked on CUDA).
        k: supports a feature, 1 to K - 1.
        temperature: tau > 0.
        lp_temperature: tau of the label-preserving term, > 0.
        lp_weight: its weight, >= 0. At 0 the term is not computed: label_preserving is 0 and has no gradient.
        gram: [K, K] centroids @ centroids.T, as `ise_fast.nn.ClusterMemory` keeps it: saves products.

    Returns:
        ISELossOutput(loss, contrastive, label_preserving: float32 scalars; supports [B, k, d] detached).

    Raises:
        TypeError: if features or centroids are not floating.
        ValueError: on a wrong shape, dtype or device, k or a number out of range, or (CPU) a label without a centroid,
            NaN or infinity. On CUDA, which would have to wait to see them, the loss is then NaN.

    Source: Zhang et al., Implicit Sample Extension, CVPR 2022, sections 3.2 and 3.3.

    Example:
        >>> f = torch.nn.functional.normalize(torch.randn(4, 8), dim=1).requires_grad_()
        >>> c = torch.nn.functional.normalize(torch.randn(3, 8), dim=1)
        >>> out = ise_loss(f, torch.tensor([0, 0, 2, 2]), c, degree=0.25)
        >>> out.loss.backward()
    """
    f, c = differentiable("ise_loss", features), floating("centroids", centroids)
    check_dense("labels", labels)
    check_all_dense(gram=gram)
    given = check_tensor("degree", degree, 0, (torch.float64,)) if isinstance(degree, Tensor) else None
    number = 0.0 if given is not None else check_number("degree", degree, 0, 1)
    if not torch.compiler.is_compiling():  # a traced number has no type to look at; the operator checks its range
        k = check_int("k", k, 1)
    loss, contrastive, preserving, supports, _, _ = torch.ops.ise_fast.ise_loss(
        f,
        labels,
        c.detach(),
        number,
        k,
        check_number("temperature", temperature, 0, above=True),
        check_number("lp_temperature", lp_temperature, 0, above=True),
        check_number("lp_weight", lp_weight, 0),
        gram,
        f.requires_grad and torch.is_grad_enabled(),
        given,
    )
    return ISELossOutput(loss, contrastive, preserving, supports.detach())


def cluster_nce_loss(features: Tensor, labels: Tensor, centroids: Tensor, temperature: float = 0.05) -> Tensor:
    """Mean over the batch of cross_entropy(f . C^T / (||f|| temperature), y): the contrastive loss of Cluster Contrast.

    Gradient, mixed precision and memory as in `ise_loss`.

    Args:
        features: [B, d] float32, float16 or bfloat16 (float64 on a CPU), unit rows, B >= 1.
        labels: [B] int64, 0 to K - 1.
        centroids: [K, d] float32, float16 or bfloat16 (float64 with float64 features), unit rows; a constant.
        temperature: tau > 0.

    Returns:
        A float32 scalar.

    Raises:
        TypeError, ValueError: as `ise_loss`.

    Source: Dai et al., Cluster Contrast for Unsupervised Person Re-Identification, 2021.
    """
    f, c = differentiable("cluster_nce_loss", features), floating("centroids", centroids)
    check_dense("labels", labels)
    tau = check_number("temperature", temperature, 0, above=True)
    needs_gradient = f.requires_grad and torch.is_grad_enabled()
    loss: Tensor = torch.ops.ise_fast.cluster_nce_loss(f, labels, c.detach(), tau, needs_gradient)[0]
    return loss


@register_fake("ise_loss")
def _(
    features: Tensor,
    labels: Tensor,
    centroids: Tensor,
    degree: float,
    k: int,
    temperature: float,
    lp_temperature: float,
    lp_weight: float,
    gram: Tensor | None,
    needs_gradient: bool,
    degree_tensor: Tensor | None = None,
) -> tuple[Tensor, ...]:
    rows, d = features.shape
    gradient = (rows if needs_gradient else 0, d)
    lp_gradient = gradient if lp_weight > 0 else (0, d)
    shapes = ((), (), (), (rows, k, d), gradient, lp_gradient)
    return tuple(features.new_empty(shape, dtype=working_dtype(features)) for shape in shapes)


@register_fake("cluster_nce_loss")
def _(
    features: Tensor, labels: Tensor, centroids: Tensor, temperature: float, needs_gradient: bool
) -> tuple[Tensor, Tensor]:
    rows, d = features.shape
    dtype = working_dtype(features)
    return features.new_empty((), dtype=dtype), features.new_empty((rows if needs_gradient else 0, d), dtype=dtype)


@register_fake("ise_loss_backward")
def _(
    grad_loss: Tensor,
    grad_contrastive: Tensor,
    grad_label_preserving: Tensor,
    features: Tensor,
    contrastive_gradient: Tensor,
    lp_gradient: Tensor,
    lp_weight: float,
) -> Tensor:
    return torch.empty_like(contrastive_gradient, dtype=features.dtype)


@register_fake("cluster_nce_loss_backward")
def _(grad: Tensor, features: Tensor, gradient: Tensor) -> Tensor:
    return torch.empty_like(gradient, dtype=features.dtype)


# The features go into the backward operators for one reason: it makes a second derivative reach its refusal instead of
# finding a constant.
def _ise_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *_, contrastive_gradient, lp_gradient = output
    ctx.set_materialize_grads(False)  # zeros of the size of the supports, which nobody reads
    ctx.save_for_backward(inputs[0], contrastive_gradient, lp_gradient)
    ctx.lp_weight = inputs[7]


def _ise_backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
    features, *gradients = ctx.saved_tensors
    losses = [gradients[0].new_zeros(()) if grad is None else grad for grad in grads[:3]]
    return torch.ops.ise_fast.ise_loss_backward(*losses, features, *gradients, ctx.lp_weight), *[None] * 10


def _ise_second(ctx: Any, grad: Tensor) -> None:
    refuse_second_derivative("ise_loss")


def _nce_setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(inputs[0], output[1])


def _nce_backward(ctx: Any, grad: Tensor | None, _: Tensor | None) -> tuple[Any, ...]:
    if grad is None:
        return (None,) * 5
    return torch.ops.ise_fast.cluster_nce_loss_backward(grad, *ctx.saved_tensors), *[None] * 4


def _nce_second(ctx: Any, grad: Tensor) -> None:
    refuse_second_derivative("cluster_nce_loss")


torch.library.register_autograd("ise_fast::ise_loss", _ise_backward, setup_context=_ise_setup)
torch.library.register_autograd("ise_fast::ise_loss_backward", _ise_second)
torch.library.register_autograd("ise_fast::cluster_nce_loss", _nce_backward, setup_context=_nce_setup)
torch.library.register_autograd("ise_fast::cluster_nce_loss_backward", _nce_second)
