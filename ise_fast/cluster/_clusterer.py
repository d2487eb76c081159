"""What the estimators without a distance graph of their own have in common: input of several kinds."""

from __future__ import annotations

from typing import Any, Self

import torch
from sklearn.base import BaseEstimator, ClusterMixin
from sklearn.utils.validation import validate_data
from torch import Tensor

from ise_fast._checks import check_features
from ise_fast.cluster.arrays import Restore, floats, from_foreign, from_numpy, is_foreign, learn_columns, to_numpy


class Clusterer(ClusterMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no annotations
    """Reads NumPy arrays, torch tensors and other DLPack arrays. A subclass says in `_fit` what it finds in them."""

    def fit(self, X: Any, y: None = None) -> Self:
        """Cluster X.

        Args:
            X: [n_samples, n_features] NumPy array, torch tensor, CuPy array or anything that NumPy takes.
            y: ignored, for scikit-learn's API.

        Returns:
            The fitted estimator.

        Raises:
            TypeError, ValueError: naming the argument.
        """
        self._fit(*self._read(X))
        return self

    def _fit(self, x: Tensor, restore: Restore) -> None:
        """Set the attributes.

        Args:
            x: [n_samples, n_features] floating, finite, at least one row.
            restore: tensors of `x`'s device to arrays of the caller's kind.
        """
        raise NotImplementedError

    def _read(self, X: Any, *, reset: bool = True) -> tuple[Tensor, Restore]:
        """X as a finite floating matrix with at least one row, and the way back to its kind of array.

        Raises:
            TypeError, ValueError: naming the argument.
        """
        if not is_foreign(X):
            return from_numpy(validate_data(self, X, reset=reset)), to_numpy
        source, restore = from_foreign("X", X)
        x = check_features("X", floats(source))
        if len(x) == 0:
            raise ValueError(f"X: expected at least one sample, got shape {tuple(x.shape)}")
        if reset:
            learn_columns(self, x.shape[1])
        elif x.shape[1] != self.n_features_in_:
            raise ValueError(f"X: expected {self.n_features_in_} features as in fit, got shape {tuple(x.shape)}")
        return x, restore


def clusters_of_several(groups: Tensor) -> Tensor:
    """[N] groups as clusters: numbered from 0 by rising number, a group of one is noise, -1."""
    _, inverse, counts = torch.unique(groups, return_inverse=True, return_counts=True)
    number = torch.where(counts > 1, (counts > 1).cumsum(0) - 1, -1)
    return number[inverse]
