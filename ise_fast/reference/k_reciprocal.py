"""k-reciprocal encoding and Jaccard distance (Zhong et al., "Re-ranking Person Re-identification with k-reciprocal
Encoding", CVPR 2017, equations 1-11), in the variant that unsupervised re-ID uses: k1 neighbours, self included.

Sets are rows of boolean N x N matrices here, which is the definition and good for a few thousand rows.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ise_fast._checks import HALF_OR_SINGLE, check_features, check_int, check_number, warn_unless_unit_rows
from ise_fast._collapse import check_max_pairs, most_pairs, too_many_pairs
from ise_fast.reference.neighbors import knn, pairs_to_graph
from ise_fast.types import CSRGraph


def k_reciprocal_encoding(x: Tensor, k1: int = 30, k2: int = 6) -> CSRGraph:
    """V' of every row: softmax weights over its expanded k-reciprocal set, averaged over its k2 nearest rows.

    The sets R, H, R*, arguments, result and errors are those of `ise_fast.ops.k_reciprocal_encoding`.
    """
    rows, k1, k2 = check_encoding(x, k1, k2)
    return encode(rows, knn(rows, k1).indices, k2)


def check_encoding(x: Tensor, k1: int, k2: int) -> tuple[Tensor, int, int]:
    """Arguments that the functions of this file have in common."""
    rows = check_features("x", x, HALF_OR_SINGLE)
    widths = check_widths(rows.shape[0], k1, k2)
    warn_unless_unit_rows("x", rows)
    return rows, *widths


def check_widths(rows: int, k1: int, k2: int) -> tuple[int, int]:
    """k1 and k2 as integers: 1 <= k2 <= k1 <= rows."""
    k1 = check_int("k1", k1, 1, rows, f"x has {rows} rows")
    return k1, check_int("k2", k2, 1, k1, "k1")


def half_width(k1: int) -> int:
    """Columns of the half sets; np.around rounds half to even: 5 -> 3, 7 -> 5, 25 -> 13, 30 -> 16."""
    return min(int(np.around(k1 / 2)) + 1, k1)


def encode(x: Tensor, nn: Tensor, k2: int) -> CSRGraph:
    """V' from the neighbours nn [N, k1]."""
    in_star = expanded_sets(nn, half_width(nn.shape[1]))
    product = x.double() @ x.double().T
    v = (2 * product - 2).masked_fill(~in_star, -torch.inf).softmax(dim=1).nan_to_num(0.0).float()
    v, entry = query_expansion(v, in_star, nn, k2)
    i, j = entry.nonzero(as_tuple=True)
    return pairs_to_graph([(i, j, v[i, j])], nn.shape[0], nn.device)


def expanded_sets(nn: Tensor, half: int) -> Tensor:
    """R* as [N, N] bool, from the neighbours and the number of columns of the half sets."""
    in_r = _reciprocal(nn)
    in_h = _reciprocal(nn[:, :half])
    # Set sizes as matrix products of 0 and 1: exact in float32 up to 2^24.
    r, h = in_r.float(), in_h.float()
    close = in_r & (3 * (r @ h.T) > 2 * h.sum(1))
    return in_r | (close.float() @ h > 0)


def query_expansion(v: Tensor, entry: Tensor, nn: Tensor, k2: int) -> tuple[Tensor, Tensor]:
    """V' and its pattern from V and its pattern, both [N, N]."""
    if k2 == 1:  # a row need not be its own first neighbour, so this is not the mean of one
        return v, entry
    mean, union = torch.zeros_like(v), torch.zeros_like(entry)
    for rank in range(k2):
        mean += v[nn[:, rank]]
        union |= entry[nn[:, rank]]
    return mean / k2, union


def _reciprocal(nn: Tensor) -> Tensor:
    """[N, N] bool: j in nn[i] and i in nn[j]."""
    forward = torch.zeros(nn.shape[0], nn.shape[0], dtype=torch.bool, device=nn.device)
    forward.scatter_(1, nn, True)
    return forward & forward.T


def jaccard_distance(x: Tensor, k1: int = 30, k2: int = 6) -> Tensor:
    """The k-reciprocal Jaccard distance of every pair (eq. 10): for small N.

    The formula, arguments, result and errors are those of `ise_fast.ops.jaccard_distance`.
    """
    v = k_reciprocal_encoding(x, k1, k2)
    return torch.from_numpy(np.stack(list(jaccard_rows(v)))).to(v.device)


def jaccard_graph(x: Tensor, k1: int = 30, k2: int = 6, *, eps: float, max_pairs: int | None = None) -> CSRGraph:
    """Every pair of rows with Jaccard distance <= eps, compared in float32; pairs at distance 0 are stored as zeros.

    Arguments, result and errors are those of `ise_fast.ops.jaccard_graph`.
    """
    rows, k1, k2 = check_encoding(x, k1, k2)
    most = most_pairs(check_max_pairs(max_pairs), rows.shape[0])
    bound = np.float32(check_number("eps", eps, 0))
    if bound >= 1:
        raise ValueError(f"eps: expected a number in [0, 1), got {eps}")
    found = []
    pairs = 0
    nn = knn(rows, k1).indices
    for i, d in enumerate(jaccard_rows(encode(rows, nn, k2))):
        inside = d <= bound
        inside[i] = True
        j = torch.from_numpy(np.flatnonzero(inside))
        pairs += j.numel()
        if pairs > most:
            raise too_many_pairs(nn, k2, eps, most)
        found.append((torch.full_like(j, i), j, torch.from_numpy(d[inside])))
    return pairs_to_graph(found, rows.shape[0], torch.device("cpu")).to(rows.device)


def jaccard_rows(v: CSRGraph, count: int | None = None) -> Iterator[NDArray[np.float32]]:
    """The first `count` rows (None: all) of the dense Jaccard distance, one after the other."""
    sparse = v.to_scipy()
    by_feature = np.ascontiguousarray(sparse.toarray().T)  # [f, i]
    for i in range(v.shape[0] if count is None else count):
        f = sparse.indices[sparse.indptr[i] : sparse.indptr[i + 1]]
        # NumPy adds along the first axis row by row, so this sum runs over ascending f.
        s = np.minimum(by_feature[f, i, None], by_feature[f]).sum(axis=0)
        yield np.maximum(1 - s / (2 - s), 0, dtype=np.float32)
