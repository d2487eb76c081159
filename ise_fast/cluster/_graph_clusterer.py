"""What the estimators have in common: input of several kinds, DBSCAN on a distance graph, labels of new rows."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import Any, Self

import torch
from scipy import sparse
from sklearn.base import BaseEstimator, ClusterMixin, clone
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor
from torch.distributed import ProcessGroup

from ise_fast import ops
from ise_fast._checks import check_features, check_number
from ise_fast.cluster._group_fit import fit_own_rows
from ise_fast.cluster._nearest_core import nearest_by_distances
from ise_fast.cluster._weights import check_weights, weighted_dbscan
from ise_fast.cluster.arrays import Restore, floats, from_foreign, from_numpy, is_foreign, learn_columns, same, to_numpy
from ise_fast.ops._csr import take_rows
from ise_fast.sharded import Peers
from ise_fast.types import CSRGraph, DBSCANResult


class GraphClusterer(ClusterMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no annotations
    """DBSCAN on a graph of distances that the subclass makes from the input, or on one that the user has made."""

    eps: float
    min_samples: int
    metric: str

    @abstractmethod
    def _distances(self, x: Tensor, eps: float) -> CSRGraph:
        """The pairs of rows within eps."""

    @abstractmethod
    def _nearest_core(self, x: Tensor) -> Tensor:
        """For each new row the nearest core sample within eps, as a place in `core_sample_indices_`; or -1."""

    @abstractmethod
    def _check_metric(self) -> None:
        """Raises ValueError for a metric that there is not."""

    def _distinct(self, x: Tensor, eps: float) -> tuple[CSRGraph, Tensor | None]:
        """The graph of samples that all weigh the same, and the row whose label each row takes, if not its own."""
        return self._distances(x, eps), None

    def _takes_sparse(self) -> bool:
        return self.metric == "precomputed"

    def _own_labels(self, x: Tensor, peers: Peers) -> DBSCANResult:
        """Labels and core flags of own rows, where the processes of a group have the others."""
        raise NotImplementedError

    def fit(self, X: Any, y: None = None, sample_weight: Any = None, *, group: ProcessGroup | None = None) -> Self:
        """Cluster X.

        Args:
            X: [n_samples, n_features] NumPy array, torch tensor, CuPy array or other array with DLPack, or anything
                NumPy takes. With metric="precomputed" [n_samples, n_samples] distances: dense, scipy sparse, or a
                `CSRGraph`.
            y: ignored, for scikit-learn's API.
            sample_weight: [n_samples] weight of each sample, 1 if not given: a core sample is one whose neighbours,
                with itself, have a total weight of at least min_samples.
            group: processes of torch.distributed (`torch.distributed.group.WORLD`: all) that all call `fit`, each with
                its own rows X, in the order of the processes; none is also welcome. No process ever has all rows. The
                attributes are those of the own rows, indices included; `predict` is refused then.

        Returns:
            The fitted estimator.

        Raises:
            TypeError, ValueError: naming the argument.
            ise_fast.sharded.PeerError: another process of the group failed, or is gone.
        """
        self._group = group is not None
        if group is not None:
            fit_own_rows(self, X, group, weighted=sample_weight is not None)
            return self
        source, x, restore = self._read(X)
        if sample_weight is None:
            graph, twin = self._graph(x, self.eps)
            labels, core_mask = ops.dbscan(graph, self.eps, self.min_samples)
            if twin is not None:
                labels, core_mask = labels[twin], core_mask[twin]
        else:
            weights = check_weights(sample_weight, source.shape[0])
            graph = x if self.metric == "precomputed" or isinstance(x, CSRGraph) else self._distances(x, self.eps)
            labels, core_mask = weighted_dbscan(graph, self.eps, self.min_samples, weights)

        core = core_mask.nonzero()[:, 0]
        self._core, self._core_labels = core, labels[core]
        self.labels_ = restore(labels)
        self.core_sample_indices_ = restore(core)
        if isinstance(source, CSRGraph):
            parts = take_rows((source.indptr, source.indices, source.values), core)
            self.components_: Any = CSRGraph(*parts, (len(core), source.shape[1]))
        else:
            rows = source[core if isinstance(source, Tensor) else core.numpy()]
            self.components_ = restore(rows) if isinstance(rows, Tensor) else rows
        self._keep(x)
        return self

    def eps_path(self, X: Any, eps: Iterable[float]) -> Any:
        """Labels for several eps from one graph, that of the largest.

        Args:
            X: as in `fit`; nothing of this estimator changes, and its own eps is not used.
            eps: the radii, in any order.

        Returns:
            [len(eps), n_samples] labels, of the kind of array that X is. Row i is what `fit_predict` with eps[i] gives;
            for features in DBSCAN, but for pairs whose distance is within a float32 rounding of eps[i].

        Raises:
            TypeError, ValueError: naming the argument.
        """
        try:
            values = list(eps)
        except TypeError:
            raise TypeError(f"eps: expected several numbers, got {eps!r}") from None
        radii = [check_number("eps", value, 0) for value in values]
        if not radii:
            raise ValueError("eps: expected at least one number, got none")
        _, x, restore = self._read(X, reset=False)
        graph, twin = self._graph(x, max(radii))
        labels = torch.stack([ops.dbscan(graph, radius, self.min_samples).labels for radius in radii])
        return restore(labels if twin is None else labels[:, twin])

    def predict(self, X: Any) -> Any:
        """Labels of new rows; the fitted samples and their clusters stay as they are.

        A new row gets the label of the nearest core sample within eps, the first of equals, or -1. See the class for
        what the distance to a new row is. Border samples of the fit may get another cluster here: `labels_` gives them
        to the first that reached them, `predict` to the nearest.

        Args:
            X: [n_new, n_features] rows; with metric="precomputed" [n_new, n_samples] distances to the fitted samples,
                of which a sparse matrix or `CSRGraph` needs only those within eps.

        Returns:
            [n_new] int64 labels, of the kind of array that X is.

        Raises:
            NotFittedError: before `fit`.
            TypeError, ValueError: naming the argument.
        """
        check_is_fitted(self, "labels_")  # not what a fit that failed has learned of the columns
        if self._group:
            raise ValueError("predict: expected an estimator fitted without a group, whose samples one process has")
        _, x, restore = self._read(X, reset=False, new=True)
        device = self._core.device
        if len(self._core) == 0:
            place = torch.full((x.shape[0],), -1, device=device)
        elif self.metric == "precomputed":
            place = nearest_by_distances(x.to(device), self._core, self.eps)
        else:
            assert isinstance(x, Tensor)  # _read gives graphs to "precomputed" alone
            place = self._nearest_core(x.to(device))
        labels = torch.cat([self._core_labels, self._core_labels.new_tensor([-1])])[place]
        return restore(labels.to(x.device))

    def _graph(self, x: Tensor | CSRGraph, eps: float) -> tuple[CSRGraph | Tensor, Tensor | None]:
        if self.metric == "precomputed" or isinstance(x, CSRGraph):
            return x, None
        return self._distinct(x, eps)

    def _read(self, X: Any, *, reset: bool = True, new: bool = False) -> tuple[Any, Tensor | CSRGraph, Restore]:
        """X as it is indexed by rows, as operators take it, and the way back to its kind of array.

        Args:
            X: of the user.
            reset: learn the number of columns from it.
            new: rows besides those of `fit`, which must have as many columns.
        """
        self._check_metric()
        if isinstance(X, CSRGraph):
            if self.metric != "precomputed":
                raise ValueError(f"X: a CSRGraph holds distances and needs metric='precomputed', got {self.metric!r}")
            self._check_columns(X.shape, reset, new)
            return X, X, same
        if is_foreign(X):
            source, restore = from_foreign("X", X)
            x = check_features("X", floats(source))
            if len(source) == 0:
                raise ValueError(f"X: expected at least one sample, got shape {tuple(source.shape)}")
            self._check_columns(source.shape, reset, new)
            return source, x, restore
        if reset or new:
            source = validate_data(self, X, reset=reset, accept_sparse="csr" if self._takes_sparse() else False)
        else:  # of other data than those of `fit`
            source = validate_data(clone(self), X, accept_sparse="csr" if self._takes_sparse() else False)
        return source, self._from_sparse(source) if sparse.issparse(source) else from_numpy(source), to_numpy

    def _check_columns(self, shape: tuple[int, ...], reset: bool, new: bool) -> None:
        if reset:
            learn_columns(self, shape[1])
        elif new and shape[1] != self.n_features_in_:
            raise ValueError(f"X: expected {self.n_features_in_} columns as in fit, got shape {tuple(shape)}")

    def _from_sparse(self, matrix: Any) -> Tensor | CSRGraph:
        return CSRGraph.from_scipy(matrix)

    def _keep(self, x: Tensor | CSRGraph) -> None:
        """What `_nearest_core` needs of the fitted samples."""

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.pairwise = self.metric == "precomputed"
        tags.input_tags.sparse = self._takes_sparse()
        return tags
