"""k-reciprocal encoding and Jaccard distance (Zhong et al., "Re-ranking Person Re-identification with k-reciprocal
Encoding", CVPR 2017, equations 1-11), in the variant that unsupervised re-ID uses: k1 neighbours, self included."""

from __future__ import annotations

import torch
from torch import Tensor

import ise_fast._library  # noqa: F401 - registers torch.ops.ise_fast
from ise_fast._checks import HALF_OR_SINGLE, check_int, check_number, check_tensor, warn_unless_unit_rows
from ise_fast._collapse import check_max_pairs, most_pairs, too_many_pairs
from ise_fast.ops._copies import leave_out_copies
from ise_fast.ops._csr import Csr
from ise_fast.ops._fake import register_fake
from ise_fast.ops.neighbors import knn
from ise_fast.reference.k_reciprocal import check_widths
from ise_fast.types import CSRGraph


def k_reciprocal_encoding(x: Tensor, k1: int = 30, k2: int = 6) -> CSRGraph:
    """V' of every row: softmax weights over its expanded k-reciprocal set, averaged over its k2 nearest rows.

        R(i)   = { j in nn[i] : i in nn[j] }, nn the k1 nearest rows by (distance, index)             (eq. 2)
        H(i)   = the same with the int(np.around(k1 / 2)) + 1 nearest, at most k1
        R*(i)  = R(i) united with every H(c), c in R(i), for which 3 |H(c) & R(i)| > 2 |H(c)|         (eq. 5)
        V(i,j) = softmax over j in R*(i) of -(2 - 2 x_i . x_j)                                        (eq. 7)
        V'(i)  = mean of V(nn[i][r]), r = 0 .. k2 - 1, added in that order, divided once              (eq. 11)

    x_i . x_j is a float64 sum in one fixed order, the weights are float32. The result does not depend on the number of
    threads, and CPU and CUDA give the same bits. A row whose R is empty (a crowd of duplicates crowds it out of its own
    list) has an empty row.

    Args:
        x: [N, d] float32 (float16 and bfloat16 are converted), meant to be unit rows: nothing normalises them here.
        k1: 1 <= k1 <= N.
        k2: 1 <= k2 <= k1; 1 means no averaging.

    Returns:
        CSRGraph of [N, N], indices int32 ascending in each row, values float32.

    Raises:
        TypeError, ValueError: on a wrong shape or dtype, NaN or infinity in x, k1 or k2 out of range.

    Example:
        >>> x = torch.nn.functional.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]]))
        >>> k_reciprocal_encoding(x, k1=2, k2=1).indices
        tensor([0, 1, 0, 1, 2], dtype=torch.int32)
    """
    return CSRGraph(*encode(x, k1, k2)[1])


def jaccard_distance(x: Tensor, k1: int = 30, k2: int = 6) -> Tensor:
    """The k-reciprocal Jaccard distance of every pair (eq. 10), as a dense matrix: for small N.

        s(i,j) = sum over f of min(V'(i,f), V'(j,f)), f ascending, in float32
        d(i,j) = 1 - s / (2 - s), at least 0

    d(i,i) is 0 up to 1e-6, and 1 for an empty row of V'.

    Args:
        x: [N, d] float32 (float16 and bfloat16 are converted), meant to be unit rows.
        k1: 1 <= k1 <= N.
        k2: 1 <= k2 <= k1.

    Returns:
        [N, N] float32, symmetric to the bit.

    Raises:
        TypeError, ValueError: as k_reciprocal_encoding.
    """
    distance: Tensor = torch.ops.ise_fast.jaccard_distance(*encode(x, k1, k2)[1])
    return distance


def jaccard_graph(x: Tensor, k1: int = 30, k2: int = 6, *, eps: float, max_pairs: int | None = None) -> CSRGraph:
    """Every pair of rows with Jaccard distance <= eps, compared in float32, without an N x N matrix.

    The values have the bits of `jaccard_distance`. Pairs at distance 0 are stored as zeros. The diagonal is stored in
    every row with its value, even one above eps (an empty row of V' has d(i,i) = 1), so that `dbscan` on this graph and
    on the dense matrix agree.

    Args:
        x: [N, d] float32 (float16 and bfloat16 are converted), meant to be unit rows.
        k1: 1 <= k1 <= N.
        k2: 1 <= k2 <= k1.
        eps: in [0, 1): unrelated rows are at distance 1, so a larger one would mean all N^2 pairs.
        max_pairs: the most pairs that the graph may hold, at 10 to 16 bytes each while it is made; None: 100 million,
            or 500 a row if that is more. Where features have collapsed, a few rows are near to all others, and all N^2
            pairs come within eps.

    Returns:
        CSRGraph of [N, N], indices int32 ascending in each row, values float32.

    Raises:
        TypeError, ValueError: as k_reciprocal_encoding, and on eps or max_pairs out of range.
        TooManyPairs: (a ValueError) more than max_pairs pairs are within eps; it names the rows that are near to most.
    """
    eps, max_pairs = check_number("eps", eps, 0), check_max_pairs(max_pairs)
    nn, v = encode(x, k1, k2)
    return pairs_within(nn, v, k2, eps, most_pairs(max_pairs, nn.shape[0]))


def distinct_jaccard_graph(
    x: Tensor, k1: int, k2: int, *, eps: float, min_samples: int, max_pairs: int | None
) -> tuple[CSRGraph, Tensor | None]:
    """A graph that clusters as `jaccard_graph` does, but without most copies: N equal rows have N^2 pairs.

    Returns:
        The graph, and for every row the one whose label and core flag it takes (see `leave_out_copies`).
    """
    eps, max_pairs = check_number("eps", eps, 0), check_max_pairs(max_pairs)
    copies = check_int("min_samples", min_samples, 1)
    nn, v = encode(x, k1, k2)
    v, twin = leave_out_copies(v, copies)
    return pairs_within(nn, v, k2, eps, most_pairs(max_pairs, nn.shape[0])), twin


def encode(x: Tensor, k1: int, k2: int) -> tuple[Tensor, Csr]:
    """The k1 nearest neighbours [N, k1] and V'."""
    rows = check_tensor("x", x, 2, HALF_OR_SINGLE).float()  # knn checks the values
    k1, k2 = check_widths(rows.shape[0], k1, k2)
    nn = knn(rows, k1).indices
    warn_unless_unit_rows("x", rows)
    v: Csr = torch.ops.ise_fast.k_reciprocal_encoding(rows, nn, k2)
    return nn, v


def pairs_within(nn: Tensor, v: Csr, k2: int, eps: float, max_pairs: int) -> CSRGraph:
    """The graph of an encoding; the neighbours say what is wrong where it has too many pairs."""
    try:
        return CSRGraph(*torch.ops.ise_fast.jaccard_graph(*v, eps, 0, nn.shape[0], max_pairs))
    except ValueError as error:
        if not str(error).startswith("max_pairs: expected at most"):
            raise
        raise too_many_pairs(nn, k2, eps, max_pairs) from None


def _fake_csr(rows: int, indptr: Tensor, values: Tensor) -> Csr:
    nnz = torch.library.get_ctx().new_dynamic_size()
    return (
        indptr.new_empty(rows + 1, dtype=torch.int64),
        indptr.new_empty(nnz, dtype=torch.int32),
        values.new_empty(nnz, dtype=torch.float32),
    )


@register_fake("k_reciprocal_encoding")
def _(x: Tensor, nn: Tensor, k2: int) -> Csr:
    return _fake_csr(x.shape[0], nn, x)


@register_fake("jaccard_distance")
def _(indptr: Tensor, indices: Tensor, values: Tensor) -> Tensor:
    rows = indptr.shape[0] - 1
    return values.new_empty(rows, rows)


@register_fake("jaccard_graph")
def _(indptr: Tensor, indices: Tensor, values: Tensor, eps: float, begin: int, end: int, max_pairs: int = 0) -> Csr:
    return _fake_csr(end - begin, indptr, values)
