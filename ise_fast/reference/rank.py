"""Evaluation of a retrieval: CMC, mAP and mINP, and k-reciprocal re-ranking (Zhong et al., CVPR 2017)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ise_fast._checks import (
    HALF_OR_SINGLE,
    check_columns,
    check_device,
    check_features,
    check_finite,
    check_int,
    check_label_vector,
    check_number,
    check_tensor,
)
from ise_fast.reference.k_reciprocal import expanded_sets, half_width, jaccard_rows, query_expansion
from ise_fast.reference.neighbors import all_distances, knn, pairs_to_graph
from ise_fast.types import RankMetrics


def re_ranking(query: Tensor, gallery: Tensor, k1: int = 20, k2: int = 6, lambda_value: float = 0.3) -> Tensor:
    """Distances of queries and gallery after k-reciprocal re-ranking, over the N = Q + G rows of both together.

    d, V, arguments, result and errors are those of `ise_fast.ops.re_ranking`.
    """
    x, queries, k1, k2, weight = check_re_ranking(query, gallery, k1, k2, lambda_value)
    nn = knn(x, k1 + 1).indices
    squared = all_distances(x)
    d = (squared / squared.amax(1, keepdim=True)).nan_to_num(0.0)
    in_star = expanded_sets(nn, half_width(k1))
    v = torch.exp(-d).masked_fill(~in_star, 0.0)
    v = (v / v.sum(1, keepdim=True)).nan_to_num(0.0).float()
    v, entry = query_expansion(v, in_star, nn, k2)
    i, j = entry.nonzero(as_tuple=True)
    rows = jaccard_rows(pairs_to_graph([(i, j, v[i, j])], len(x), x.device), queries)
    jaccard = torch.from_numpy(np.stack(list(rows))) if queries else torch.zeros(0, len(x), device="cpu")
    return (1 - weight) * jaccard[:, queries:].to(x.device) + weight * d[:queries, queries:].float()


def check_re_ranking(
    query: Tensor, gallery: Tensor, k1: int, k2: int, lambda_value: float
) -> tuple[Tensor, int, int, int, float]:
    """Both sets of rows in one matrix, the number of queries, and the checked k1, k2 and lambda_value."""
    q = check_features("query", query, HALF_OR_SINGLE)
    g = check_features("gallery", gallery, HALF_OR_SINGLE)
    check_columns("gallery", g, "query", q)
    n = q.shape[0] + g.shape[0]
    k1 = check_int("k1", k1, 1, n - 1, f"one less than the {n} rows of query and gallery")
    k2 = check_int("k2", k2, 1, k1, "k1")
    return torch.cat([q, g]).detach(), q.shape[0], k1, k2, check_number("lambda_value", lambda_value, 0, 1)


def rank_metrics(
    distance: Tensor,
    query_ids: Tensor,
    gallery_ids: Tensor,
    query_cams: Tensor | None = None,
    gallery_cams: Tensor | None = None,
    max_rank: int = 50,
) -> RankMetrics:
    """CMC, mAP and mINP of a distance matrix.

    What these are, arguments, result and errors are those of `ise_fast.ops.rank_metrics`.
    """
    d = check_tensor("distance", distance, 2, (torch.float32, torch.float64))
    check_finite("distance", d)
    queries, entries = d.shape
    max_rank = check_int("max_rank", max_rank, 1, 2**20)
    if (query_cams is None) != (gallery_cams is None):
        missing = "query_cams" if query_cams is None else "gallery_cams"
        raise ValueError(f"{missing}: expected cameras for query and gallery or for neither, got None")
    columns = [("query_ids", query_ids, queries, "distance"), ("gallery_ids", gallery_ids, entries, "distance.T")]
    if query_cams is not None and gallery_cams is not None:
        columns += [
            ("query_cams", query_cams, queries, "distance"),
            ("gallery_cams", gallery_cams, entries, "distance.T"),
        ]
    for name, vector, rows, of in columns:
        check_device(name, check_label_vector(name, vector, rows, of), "distance", d)

    match = query_ids[:, None] == gallery_ids
    junk = torch.zeros_like(match)
    if query_cams is not None and gallery_cams is not None:
        junk = match & (query_cams[:, None] == gallery_cams)
    ap, inp = np.full(queries, np.nan), np.full(queries, np.nan)
    first = np.full(queries, entries)
    for i, (row, hit, drop) in enumerate(zip(d.cpu().numpy(), match.cpu().numpy(), junk.cpu().numpy(), strict=True)):
        row, hit = row[~drop], hit[~drop]
        order = row.argsort(kind="stable")
        row, hit = row[order], hit[order]
        ranks = np.flatnonzero(hit) + 1
        if len(ranks) == 0:
            continue
        first[i], inp[i] = ranks[0], len(ranks) / ranks[-1]
        last = np.flatnonzero(np.append(row[1:] != row[:-1], True))  # the last of each run of equal distances
        found = hit.cumsum()[last]
        ap[i] = (np.diff(found, prepend=0) * found / (last + 1)).sum() / len(ranks)
    valid = ~np.isnan(ap)
    if not valid.any():
        raise ValueError("query_ids: expected at least one query with a match in the gallery, got none")
    cmc = [(first[valid] <= rank).mean() for rank in range(1, max_rank + 1)]
    return RankMetrics(
        float(ap[valid].mean()),
        torch.tensor(cmc, dtype=torch.float32, device=d.device),
        float(inp[valid].mean()),
        torch.tensor(ap, dtype=torch.float32, device=d.device),
    )
