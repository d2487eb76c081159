"""`fit` of an estimator where each process of a group has some of the rows."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor
from torch.distributed import ProcessGroup

from ise_fast._checks import FLOATING, check_tensor
from ise_fast.cluster.arrays import Restore, floats, from_foreign, from_numpy, is_foreign, learn_columns, to_numpy
from ise_fast.sharded import Peers


def fit_own_rows(estimator: Any, X: Any, group: ProcessGroup, *, weighted: bool) -> None:
    """Fit the attributes of own rows.

    Args:
        estimator: a `GraphClusterer`.
        X: [n, n_features] rows of this process, as in `fit`; n may be 0.
        group: the processes, all of which call this.
        weighted: whether there are weights of samples.

    Raises:
        TypeError, ValueError: naming the argument, on the process that was given something else.
        PeerError: on the others.
    """
    peers = Peers(group)
    x, restore = peers.together(lambda: _shareable_rows(estimator, X, weighted))
    labels, core_mask = estimator._own_labels(x, peers)
    labels, core = labels.to(x.device), core_mask.nonzero()[:, 0].to(x.device)
    estimator._core, estimator._core_labels = core, labels[core]
    estimator.labels_, estimator.core_sample_indices_ = restore(labels), restore(core)
    estimator.components_ = restore(x[core])
    learn_columns(estimator, x.shape[1])


def _shareable_rows(estimator: Any, X: Any, weighted: bool) -> tuple[Tensor, Restore]:
    estimator._check_metric()
    if estimator.metric == "precomputed":
        raise ValueError("group: expected features, which processes can share, got metric='precomputed'")
    if weighted:
        raise ValueError("sample_weight: expected none where a group of processes shares the samples")
    return own_rows(X)


def own_rows(X: Any) -> tuple[Tensor, Restore]:
    """The rows of this process, any number, as a floating matrix; and the way back to their kind of array.

    Raises:
        TypeError, ValueError: naming the argument.
    """
    if is_foreign(X):
        x, restore = from_foreign("X", X)
        return check_tensor("X", floats(x), 2, FLOATING), restore
    return check_tensor("X", from_numpy(np.asarray(X)), 2, FLOATING), to_numpy
