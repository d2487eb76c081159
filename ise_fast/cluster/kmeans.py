"""k-means as an estimator."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Self

import numpy as np
import torch
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted
from torch import Tensor
from torch.distributed import ProcessGroup

from ise_fast import ops
from ise_fast._checks import check_int
from ise_fast.cluster._clusterer import Clusterer
from ise_fast.cluster._group_fit import own_rows
from ise_fast.cluster.arrays import Restore, from_foreign, from_numpy, is_foreign
from ise_fast.sharded import HeldRows, Peers
from ise_fast.sharded.kmeans import shared_kmeans
from ise_fast.sharded.kmeans_start import shared_kmeans_start
from ise_fast.types import KMeansResult


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

    def fit(self, X: Any, y: None = None, *, group: ProcessGroup | None = None) -> Self:
        """Cluster X.

        Args:
            X: [n_samples, n_features] NumPy array, torch tensor, CuPy array or anything that NumPy takes.
            y: ignored, for scikit-learn's API.
            group: processes of torch.distributed (`torch.distributed.group.WORLD`: all) that all call `fit`, each with
                its own rows X, in the order of the processes; none is also welcome. `labels_` are those of the own
                rows, the other attributes those of all, with the bits of one process. The draws of the start, and an
                array `init`, are those of process 0.

        Returns:
            The fitted estimator.

        Raises:
            TypeError, ValueError: naming the argument.
            ise_fast.sharded.PeerError: another process of the group failed, or is gone.
        """
        if group is None:
            return super().fit(X)
        peers = Peers(group)
        x, restore = peers.together(lambda: own_rows(X))
        features = HeldRows("X", x, peers, keep_double=True, unit=False)
        k, runs, steps = peers.together(lambda: self._counts(features.rows))
        peers.same(n_clusters=k, n_init=runs, max_iter=steps, init=self.init if isinstance(self.init, str) else "array")
        starts = peers.together(lambda: self._starts(features.x, k, runs))
        self._keep_best(
            (shared_kmeans(features, self._shared_start(features, k, start), steps) for start in starts), restore
        )
        self.n_features_in_ = features.width
        return self

    def _fit(self, x: Tensor, restore: Restore) -> None:
        k, runs, steps = self._counts(len(x))

        def centres(start: int | Tensor) -> Tensor:
            return start if isinstance(start, Tensor) else x[ops.kmeans_start(x, k, _generator(start))]

        self._keep_best(
            (ops.kmeans(x, centres(start), iterations=steps) for start in self._starts(x, k, runs)), restore
        )

    def _counts(self, samples: int) -> tuple[int, int, int]:
        """Clusters, runs and most assignments."""
        k = check_int("n_clusters", self.n_clusters, 1)
        if k > samples:
            raise ValueError(f"n_clusters: n_samples={samples} should be >= n_clusters={k}")
        return k, check_int("n_init", self.n_init, 1), check_int("max_iter", self.max_iter, 1)

    def _keep_best(self, results: Iterator[KMeansResult], restore: Restore) -> None:
        best = min(results, key=lambda result: result.inertia)  # the first of equals
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

    def _starts(self, x: Tensor, k: int, runs: int) -> list[int] | list[Tensor]:
        """For each run the seed of its start, or the one start that was given."""
        if isinstance(self.init, str):
            if self.init != "k-means++":
                raise ValueError(f"init: expected k-means++ or an array of centres, got {self.init!r}")
            random = check_random_state(self.random_state)
            return [int(random.randint(2**31 - 1)) for _ in range(runs)]
        centres = self._tensor(self.init).to(x)
        if centres.shape != (k, x.shape[1]):
            raise ValueError(f"init: expected shape {(k, x.shape[1])}, got {tuple(centres.shape)}")
        return [centres]

    @staticmethod
    def _shared_start(features: HeldRows, k: int, start: int | Tensor) -> Tensor:
        peers = features.peers
        if isinstance(start, Tensor):
            counts = [k] + [0] * (peers.size - 1)
            return peers.gather(start[: counts[peers.rank]], counts)
        return shared_kmeans_start(features, k, _generator(peers.objects(start)[0]))

    @staticmethod
    def _tensor(array: Any) -> Tensor:
        return from_foreign("init", array)[0] if is_foreign(array) else from_numpy(np.asarray(array))


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
