"""k-means as an estimator."""

from __future__ import annotations

from typing import Any

import torch
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from ise_fast import ops
from ise_fast._checks import check_int
from ise_fast.cluster._clusterer import Clusterer
from ise_fast.cluster.arrays import Restore, from_foreign, is_foreign


class KMeans(Clusterer):
    """Lloyd's k-means with every tie decided: the same labels for any number of threads, on a CPU and on a GPU.

    Args:
        n_clusters: K, at most the number of samples.
        init: "k-means++", or [n_clusters, n_features] centres to start from.
        n_init: runs from different starts, of which the one with the lowest inertia is kept; >= 1.
        max_iter: most assignments of a run, >= 1. A run stops before when no label changes.
        random_state: int, numpy RandomState or None, as in scikit-learn.

    Attributes:
        cluster_centers_: [n_clusters, n_features] means.
        labels_: [n_samples] the nearest centre.
        inertia_: sum of the squared distances to it.
        n_iter_: assignments of the run that was kept.
        n_features_in_: number of columns seen by `fit`.

    The attributes are of the kind and on the device of the input: NumPy, torch, or CuPy.

    Example:
        >>> import numpy as np
        >>> KMeans(n_clusters=2, random_state=0).fit(np.array([[0.0], [1.0], [9.0]])).inertia_
        0.5

    Source: Lloyd, 1982; Arthur & Vassilvitskii, k-means++, SODA 2007.
    """

    def __init__(
        self,
        n_clusters: int = 8,
        *,
        init: Any = "k-means++",
        n_init: int = 1,
        max_iter: int = 300,
        random_state: Any = None,
    ) -> None:
        self.n_clusters = n_clusters
        self.init = init
        self.n_init = n_init
        self.max_iter = max_iter
        self.random_state = random_state

    def _fit(self, x: Tensor, restore: Restore) -> None:
        k = check_int("n_clusters", self.n_clusters, 1)
        if k > len(x):
            raise ValueError(f"n_clusters: n_samples={len(x)} should be >= n_clusters={k}")
        runs, steps = check_int("n_init", self.n_init, 1), check_int("max_iter", self.max_iter, 1)
        best = None
        for centres in self._starts(x, k, runs):
            result = ops.kmeans(x, centres, iterations=steps)
            if best is None or result.inertia < best.inertia:
                best = result
        assert best is not None
        self.cluster_centers_, self.labels_ = restore(best.centres), restore(best.labels)
        self.inertia_, self.n_iter_ = best.inertia, best.iterations

    def predict(self, X: Any) -> Any:
        """The nearest centre of each sample.

        Raises:
            TypeError, ValueError: naming the argument; if not fitted.
        """
        check_is_fitted(self)
        x, restore = self._read(X, reset=False)
        return restore(ops.kmeans_step(x, self._tensor(self.cluster_centers_).to(x)).labels)

    def _starts(self, x: torch.Tensor, k: int, runs: int) -> Any:
        if isinstance(self.init, str):
            if self.init != "k-means++":
                raise ValueError(f"init: expected k-means++ or an array of centres, got {self.init!r}")
            random = check_random_state(self.random_state)
            for _ in range(runs):
                generator = torch.Generator().manual_seed(int(random.randint(2**31 - 1)))
                yield x[ops.kmeans_start(x, k, generator)]
            return
        centres = self._tensor(self.init).to(x)
        if centres.shape != (k, x.shape[1]):
            raise ValueError(f"init: expected shape {(k, x.shape[1])}, got {tuple(centres.shape)}")
        yield centres

    @staticmethod
    def _tensor(array: Any) -> torch.Tensor:
        return from_foreign("init", array)[0] if is_foreign(array) else torch.as_tensor(array)
