"""The self-paced pseudo labels of SpCL as an estimator."""

from __future__ import annotations

from torch import Tensor

from ise_fast import ops
from ise_fast._checks import check_int, check_number
from ise_fast.cluster._clusterer import Clusterer, clusters_of_several
from ise_fast.cluster.arrays import Restore


class SelfPacedDBSCAN(Clusterer):
    """Clusters that DBSCAN finds at eps and that survive at a slightly smaller and a slightly larger one.

    One k-reciprocal Jaccard graph serves all three clusterings.

    Args:
        eps: largest Jaccard distance of neighbours; eps + eps_gap below 1.
        eps_gap: how far the stricter and the looser clustering are from it, in [0, eps].
        min_samples: neighbours, self included, that make a core sample, >= 1.
        k1: neighbours of the k-reciprocal encoding, >= 1; all samples where there are fewer.
        k2: neighbours of the query expansion, 1 (none) or more; at most k1.
        threshold: least independence, as distance; None takes it from these samples (see `ops.reliable_labels`). A
            training run takes it in its first epoch and keeps it: `SelfPacedDBSCAN(threshold=first.threshold_)`.

    The features are meant to be unit rows; nothing normalises them here.

    Attributes:
        labels_: [n_samples] cluster of each sample; -1: the sample stands alone.
        groups_: [n_samples] the same with a number of its own for each sample that stands alone.
        threshold_: what was used.
        n_features_in_: number of columns seen by `fit`.

    Source: Ge et al., Self-paced Contrastive Learning with Hybrid Memory, NeurIPS 2020.
    """

    def __init__(
        self,
        eps: float = 0.6,
        eps_gap: float = 0.02,
        min_samples: int = 4,
        k1: int = 30,
        k2: int = 6,
        *,
        threshold: float | None = None,
    ) -> None:
        self.eps = eps
        self.eps_gap = eps_gap
        self.min_samples = min_samples
        self.k1 = k1
        self.k2 = k2
        self.threshold = threshold

    def _fit(self, x: Tensor, restore: Restore) -> None:
        eps = check_number("eps", self.eps, 0)
        gap = check_number("eps_gap", self.eps_gap, 0, eps)
        k1 = min(check_int("k1", self.k1, 1), len(x))
        k2 = min(check_int("k2", self.k2, 1, self.k1, "k1"), k1)
        graph = ops.jaccard_graph(x.float(), k1, k2, eps=eps + gap)
        tight, normal, loose = (ops.dbscan(graph, e, self.min_samples).labels for e in (eps - gap, eps, eps + gap))
        out = ops.reliable_labels(tight, normal, loose, self.threshold)
        self.groups_, self.labels_ = restore(out.labels), restore(clusters_of_several(out.labels))
        self.threshold_ = out.threshold
