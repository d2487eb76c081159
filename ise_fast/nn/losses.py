"""The training losses as modules: plain numbers in the constructor, tensors and the memory in the call."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from ise_fast import ops
from ise_fast._checks import check_int, check_number, warn_unless_unit_rows
from ise_fast.nn.cluster_memory import ClusterMemory
from ise_fast.types import ISELossOutput


class HasCentroids(Protocol):
    """What the ISE loss needs of a memory, such as `ClusterMemory`."""

    @property
    def centroids(self) -> Tensor:
        """[K, d] unit rows."""

    @property
    def gram(self) -> Tensor | None:
        """[K, K] their inner products, or None."""


class ISELoss(nn.Module):
    """The ISE objective (Zhang et al., "Implicit Sample Extension", CVPR 2022): `ise_fast.ops.ise_loss` on a memory.

    Args:
        k: support samples a feature; the memory needs at least k + 1 centroids.
        base_degree: interpolation degree at the end of training, in [0, 1].
        temperature: of the contrastive term, > 0.
        lp_temperature: of the label-preserving term, > 0.
        lp_weight: weight of the label-preserving term, >= 0; published: 0.1 for Market-1501, 0.01 for MSMT17.
            At 0 the term is not computed.
        contrast_supports: whether supports enter the contrastive term and the memory. Without, the label-preserving
            term alone sees them: the row "label preserving" of the paper's ablation, for comparison only.

    Raises:
        TypeError, ValueError: naming the argument.

    Warns:
        NotUnitRowsWarning: once, on a CPU, where features are not of unit length.

    Example:
        >>> memory = ClusterMemory(num_features=4)
        >>> memory.reset(torch.eye(4))
        >>> features, labels = torch.eye(4)[:2].requires_grad_(), torch.tensor([0, 1])
        >>> criterion = ISELoss()
        >>> out = criterion(features, labels, memory, progress=0.5)
        >>> out.loss.backward()
        >>> memory.update(features, labels, supports=out.supports)
    """

    _warned = False

    def __init__(
        self,
        k: int = 1,
        base_degree: float = 0.25,
        temperature: float = 0.05,
        lp_temperature: float = 0.6,
        lp_weight: float = 0.1,
        contrast_supports: bool = True,
    ) -> None:
        super().__init__()
        self.k = check_int("k", k, 1)
        self.base_degree = check_number("base_degree", base_degree, 0, 1)
        self.temperature = check_number("temperature", temperature, 0, above=True)
        self.lp_temperature = check_number("lp_temperature", lp_temperature, 0, above=True)
        self.lp_weight = check_number("lp_weight", lp_weight, 0)
        self.contrast_supports = contrast_supports

    def forward(
        self,
        features: Tensor,
        labels: Tensor,
        memory: HasCentroids,
        progress: float,
        degree: Tensor | None = None,
    ) -> ISELossOutput:
        """The loss of one batch.

        Args:
            features: [B, d] floating, unit rows; takes the gradient.
            labels: [B] int64, 0 to K - 1.
            memory: the centroids, K >= k + 1.
            progress: t / T in [0, 1]: how far training is; the degree grows with it from 0 to `base_degree`.
            degree: float64 scalar in the place of the degree that follows from progress: a captured CUDA graph reads it
                at every replay.

        Returns:
            ISELossOutput(loss, contrastive, label_preserving, supports for `memory.update`: [B, k, d], or
            [B, 0, d] without `contrast_supports`).

        Raises:
            TypeError, ValueError: naming the argument.
        """
        output = ops.ise_loss(
            features,
            labels,
            memory.centroids,
            ops.interpolation_degree(progress, self.base_degree) if degree is None else degree,
            k=self.k,
            temperature=self.temperature,
            lp_temperature=self.lp_temperature,
            lp_weight=self.lp_weight,
            gram=memory.gram,
        )
        # Once, and on a CPU: a GPU would have to be waited for.
        if not self._warned and features.device.type == "cpu" and not torch.compiler.is_compiling():
            self._warned = warn_unless_unit_rows("features", features)
        if self.contrast_supports:
            return output
        contrastive = ops.cluster_nce_loss(features, labels, memory.centroids, self.temperature)
        loss = contrastive + self.lp_weight * output.label_preserving
        return ISELossOutput(loss, contrastive, output.label_preserving, output.supports[:, :0])

    def extra_repr(self) -> str:
        return (
            f"k={self.k}, base_degree={self.base_degree}, temperature={self.temperature}, "
            f"lp_temperature={self.lp_temperature}, lp_weight={self.lp_weight}, "
            f"contrast_supports={self.contrast_supports}"
        )


class ClusterNCELoss(nn.Module):
    """The loss of Cluster Contrast (Dai et al., 2021): `ise_fast.ops.cluster_nce_loss` on a memory.

    Args:
        temperature: > 0.

    Raises:
        TypeError, ValueError: naming the argument.
    """

    def __init__(self, temperature: float = 0.05) -> None:
        super().__init__()
        self.temperature = check_number("temperature", temperature, 0, above=True)

    def forward(self, features: Tensor, labels: Tensor, memory: ClusterMemory) -> Tensor:
        """The loss of one batch, a scalar.

        Args:
            features: [B, d] floating, unit rows; takes the gradient.
            labels: [B] int64, 0 to K - 1.
            memory: the centroids.

        Raises:
            TypeError, ValueError: naming the argument.
        """
        return ops.cluster_nce_loss(features, labels, memory.centroids, self.temperature)

    def extra_repr(self) -> str:
        return f"temperature={self.temperature}"
