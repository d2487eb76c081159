"""The values that operators return: a sparse graph and small named tuples, shared by `ops` and `reference`; and the
error and the warning that have names of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from scipy.sparse import csr_array


class TooManyPairs(ValueError):
    """A graph of distances would hold more pairs than `max_pairs`: mostly because the features have collapsed."""


class NotUnitRowsWarning(UserWarning):
    """Features of some other length went into something that is meant for unit rows."""


class KNN(NamedTuple):
    """k nearest neighbours of M rows, each row ordered by (distance, index)."""

    distances: Tensor  # [M, k] float32
    indices: Tensor  # [M, k] int64


class CertifiedKNN(NamedTuple):
    """k nearest among candidates, each row ordered by (distance, index), and where they are surely those of all."""

    distances: Tensor  # [M, k] float32, infinity where there are fewer candidates
    indices: Tensor  # [M, k] int64, -1 where there are fewer candidates
    certified: Tensor  # [M] bool


class DBSCANResult(NamedTuple):
    """Cluster of each point (-1: noise) and whether the point is a core point."""

    labels: Tensor  # [N] int64
    core_mask: Tensor  # [N] bool


class Nearest(NamedTuple):
    """The k centroids nearest to each feature, own centroid left out, by falling similarity."""

    similarity: Tensor  # [B, k] float32
    indices: Tensor  # [B, k] int64


class ISELossOutput(NamedTuple):
    """The ISE objective, its two parts, and the support samples that the memory update takes."""

    loss: Tensor  # scalar float32
    contrastive: Tensor  # scalar float32
    label_preserving: Tensor  # scalar float32
    supports: Tensor  # [B, k, d], detached


class RankMetrics(NamedTuple):
    """Retrieval quality over the queries that have a match."""

    mAP: float
    cmc: Tensor  # [max_rank] float32, cmc[r - 1] = rank-r accuracy
    mINP: float
    ap: Tensor  # [Q] float32, NaN for a query without a match


class ReliableLabels(NamedTuple):
    """Clusters that a stricter and a looser clustering confirm; other images stand alone."""

    labels: Tensor  # [N] int64, no noise
    threshold: float  # theta: keep it after the first epoch
    completeness: Tensor  # [N] float32, 1 - IoU with the stricter clustering
    independence: Tensor  # [N] float32, 1 - IoU with the looser one


class Groups(NamedTuple):
    """The rows of each group: group g owns rows[indptr[g]:indptr[g + 1]], ascending."""

    indptr: Tensor  # [K + 1] int64
    rows: Tensor  # [N or fewer] int64


class KMeansStep(NamedTuple):
    """Assignment of rows to centres, and what the next centres are made of."""

    labels: Tensor  # [N] int64, the nearest centre
    sums: Tensor  # [K, d] float64, in row order
    counts: Tensor  # [K] int64
    inertia: Tensor  # scalar float64, sum of the squared distances
    distances: Tensor  # [N] float64, squared distance to the nearest centre


class KMeansResult(NamedTuple):
    """Clusters after Lloyd's iterations."""

    labels: Tensor  # [N] int64
    centres: Tensor  # [K, d], the means
    inertia: float  # sum of the squared distances to `centres`
    iterations: int


class Merges(NamedTuple):
    """One step of bottom-up clustering."""

    labels: Tensor  # [N] int64, numbered from 0 by rising old label
    pairs: Tensor  # [M, 2] int64, the two rows that joined two clusters, in the order of merging, lower row first
    dissimilarity: Tensor  # [M] float64


class CSRGraph:
    """A sparse matrix of distances or weights in compressed rows; immutable.

    Row i holds columns ``indices[indptr[i]:indptr[i + 1]]``, ascending, with their ``values``. A stored zero is an
    entry (DBSCAN tells "distance 0" from "no neighbour"), so nothing here drops zeros.

    Args:
        indptr: [N + 1] int64, from 0, never falling.
        indices: [nnz] int32 or int64.
        values: [nnz] float32 (float64 is accepted by the operators that say so).
        shape: (rows, columns); square of the number of rows when left out.
    """

    __slots__ = ("indices", "indptr", "shape", "values")

    indptr: Tensor
    indices: Tensor
    values: Tensor
    shape: tuple[int, int]

    def __init__(self, indptr: Tensor, indices: Tensor, values: Tensor, shape: tuple[int, int] | None = None) -> None:
        for name, part in (("indptr", indptr), ("indices", indices), ("values", values)):
            if not isinstance(part, Tensor):
                raise TypeError(f"{name}: expected a torch tensor, got {type(part).__name__}")
        rows = indptr.numel() - 1
        object.__setattr__(self, "indptr", indptr)
        object.__setattr__(self, "indices", indices)
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "shape", shape if shape is not None else (rows, rows))

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"CSRGraph is immutable: cannot set {name}")

    def __reduce__(self) -> tuple[Any, ...]:
        """For pickle and copy, which would set the parts one by one."""
        return type(self), (self.indptr, self.indices, self.values, self.shape)

    def __repr__(self) -> str:
        return f"CSRGraph(shape={self.shape}, nnz={self.nnz}, device={self.device})"

    @property
    def nnz(self) -> int:
        """Stored entries, explicit zeros included."""
        return self.values.numel()

    @property
    def device(self) -> torch.device:
        return self.values.device

    def to(self, device: torch.device | str) -> CSRGraph:
        """The same graph with its three tensors on `device`."""
        return CSRGraph(self.indptr.to(device), self.indices.to(device), self.values.to(device), self.shape)

    def to_scipy(self) -> csr_array:
        """A scipy.sparse.csr_array that shares memory with a CPU graph: what sorts it in place sorts the graph.

        Indices are int32 where they fit, as scipy itself does it: compiled code of others takes no int64.
        """
        from scipy.sparse import csr_array

        narrow = max(self.nnz, *self.shape) <= torch.iinfo(torch.int32).max
        kind = torch.int32 if narrow else torch.int64
        values = self.values.detach().cpu().numpy()
        indices, indptr = (part.detach().cpu().to(kind).numpy() for part in (self.indices, self.indptr))
        return csr_array((values, indices, indptr), shape=self.shape)

    @classmethod
    def from_scipy(cls, matrix: Any) -> CSRGraph:
        """From any scipy sparse matrix: rows compressed, columns sorted, explicit zeros kept.

        float32 stays, everything else becomes float64, as in scikit-learn.

        Raises:
            ValueError: if the matrix stores an entry twice.
        """
        import numpy as np

        csr = matrix.tocsr(copy=True)
        if csr.dtype != np.float32:
            csr = csr.astype(np.float64, copy=False)
        if not csr.has_sorted_indices:
            csr.sort_indices()
        if not csr.has_canonical_format:
            raise ValueError("matrix: expected each entry once, got duplicate entries")
        indptr = torch.from_numpy(csr.indptr.astype(np.int64))
        return cls(indptr, torch.from_numpy(csr.indices), torch.from_numpy(csr.data), tuple(csr.shape))
