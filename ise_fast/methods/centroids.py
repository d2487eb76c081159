"""A memory of one centroid a cluster, made anew every epoch: that of Cluster Contrast, ISE and most methods."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ise_fast.methods.interface import Memory
from ise_fast.methods.records import Batch, LossOutput, PseudoLabels
from ise_fast.nn import ClusterMemory


class Centroids(ClusterMemory, Memory):
    """`ise_fast.nn.ClusterMemory` as the memory of a method."""

    @property
    def reads_features(self) -> bool:
        return self.mode == "kalman"

    @property
    def capture_obstacle(self) -> str | None:
        return "--memory-mode kalman picks the centroids that move on the host" if self.mode == "kalman" else None

    def begin(self, features: Tensor, pseudo: PseudoLabels, cams: Tensor | None) -> None:
        labels, centroids = pseudo.labels.to(features.device), pseudo.centroids
        centroids = cluster_centroids(features, labels) if centroids is None else centroids.to(features.device)
        if self.mode != "kalman":
            self.reset(centroids)
            return
        kept = labels >= 0
        distances = 1 - (features[kept].double() * centroids[labels[kept]]).sum(1)
        # Clusters of one image, or of copies, leave no distance to tell the noise by.
        residual = max(float(distances.mean()), torch.finfo(torch.float32).eps)
        self.reset(centroids, counts=pseudo.sizes.to(features.device), residual=residual)

    def follow(self, features: Tensor, batch: Batch, output: LossOutput) -> None:
        self.update(features, batch.labels, output.supports)

    @property
    def classes(self) -> Tensor:
        return self.centroids


def cluster_centroids(features: Tensor, labels: Tensor) -> Tensor:
    """Unit-normalised mean feature of each cluster, outliers left out.

    Args:
        features: [N, d] float32.
        labels: [N] int64, -1 for outliers, same device.

    Returns:
        [K, d] float32. Each mean is summed in image order, in float64: the same bits for any number of threads.
    """
    order = torch.argsort(labels, stable=True)
    order = order[int((labels < 0).sum()) :]
    sizes = torch.bincount(labels[order])
    if sizes.numel() == 0:
        return features.new_zeros((0, features.shape[1]))
    rows = features[order].double()
    means = torch.segment_reduce(rows, "mean", lengths=sizes, axis=0)
    return F.normalize(means, dim=1).float()
