"""Bottom-up clustering of BUC as an estimator."""

from __future__ import annotations

import torch
from torch import Tensor

from ise_fast import ops
from ise_fast._checks import check_int, check_number
from ise_fast.cluster._clusterer import Clusterer
from ise_fast.cluster.arrays import Restore


class BottomUp(Clusterer):
    """Every sample starts as a cluster; in each step the nearest ones merge, small clusters first.

    The dissimilarity of two samples is their squared Euclidean distance plus `penalty` times the sizes of their
    clusters as they were before the step; clusters are as near as their nearest samples. No N x N matrix is formed: a
    radius graph holds the pairs in question, and a certificate says that no other pair matters.

    Args:
        n_clusters: how many to leave, >= 1; at most the number of samples.
        penalty: lambda, >= 0.
        merge_share: merges of a step as a share of the samples, in (0, 1]; sizes are counted anew after each step.

    Attributes:
        labels_: [n_samples] cluster of each sample, numbered by lowest sample.
        n_steps_: how many steps it took.
        n_features_in_: number of columns seen by `fit`.

    The attributes are of the kind and on the device of the input: NumPy, torch, or CuPy.

    Source: Lin et al., A Bottom-Up Clustering Approach to Unsupervised Person Re-identification, AAAI 2019.
    """

    def __init__(self, n_clusters: int = 8, penalty: float = 0.003, merge_share: float = 0.05) -> None:
        self.n_clusters = n_clusters
        self.penalty = penalty
        self.merge_share = merge_share

    def _fit(self, x: Tensor, restore: Restore) -> None:
        left = check_int("n_clusters", self.n_clusters, 1)
        if left > len(x):
            raise ValueError(f"n_clusters: n_samples={len(x)} should be >= n_clusters={left}")
        share = check_number("merge_share", self.merge_share, 0, 1, above=True)
        labels, clusters, steps = torch.arange(len(x), device=x.device), len(x), 0
        while clusters > left:
            merges = min(max(1, int(share * len(x))), clusters - left)
            labels = ops.merge_rows(x, labels, self.penalty, merges).labels
            clusters -= merges
            steps += 1
        self.labels_, self.n_steps_ = restore(labels), steps
