"""Evaluation of a retrieval: CMC, mAP and mINP, and k-reciprocal re-ranking."""

from __future__ import annotations

import torch
from torch import Tensor

import ise_fast._library  # noqa: F401 - registers torch.ops.ise_fast
from ise_fast._checks import check_all_dense, check_int
from ise_fast.ops._fake import register_fake
from ise_fast.ops.neighbors import knn
from ise_fast.reference.rank import check_re_ranking
from ise_fast.types import RankMetrics


def re_ranking(query: Tensor, gallery: Tensor, k1: int = 20, k2: int = 6, lambda_value: float = 0.3) -> Tensor:
    """Distances of queries and gallery after k-reciprocal re-ranking, over the N = Q + G rows of both together.

        nn     = the k1 + 1 nearest rows by (distance, index): here k1 does not count self
        d(i,j) = |x_i - x_j|^2 / max over j of |x_i - x_j|^2                                    (0 where that is 0)
        V(i,j) = exp(-d(i,j)) / sum over R*(i), j in R*(i): sets and query expansion as in `k_reciprocal_encoding`
        result = (1 - lambda_value) * Jaccard distance of V' + lambda_value * d                           (eq. 12)

    Distances are float64 in one fixed order, the rest is float32: the result depends neither on the number of threads
    nor on the device. Nothing larger than the result is dense.

    Args:
        query: [Q, d] float32 (float16 and bfloat16 are converted).
        gallery: [G, d].
        k1: 1 <= k1 <= Q + G - 1.
        k2: 1 <= k2 <= k1; 1 means no averaging.
        lambda_value: in [0, 1].

    Returns:
        [Q, G] float32, not differentiable.

    Raises:
        TypeError, ValueError: naming the argument.

    Source: Zhong et al., Re-ranking Person Re-identification with k-reciprocal Encoding, CVPR 2017.

    Example:
        >>> gallery = torch.nn.functional.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.2], [0.0, 1.0], [0.1, 1.0]]))
        >>> re_ranking(gallery[:1], gallery[1:], k1=2, k2=1).argsort()
        tensor([[0, 2, 1]])
    """
    rows, queries, k1, k2, weight = check_re_ranking(query, gallery, k1, k2, lambda_value)
    distance: Tensor = torch.ops.ise_fast.re_ranking(rows, knn(rows, k1 + 1).indices, queries, k2, weight)
    return distance


def rank_metrics(
    distance: Tensor,
    query_ids: Tensor,
    gallery_ids: Tensor,
    query_cams: Tensor | None = None,
    gallery_cams: Tensor | None = None,
    max_rank: int = 50,
) -> RankMetrics:
    """CMC, mAP and mINP of a distance matrix.

    Gallery entries with both the identity and the camera of the query are left out (none without cameras), and so are
    queries without a match. The gallery is ranked by (distance, index).

    * cmc[r - 1]: share of the queries whose first match has rank r or better.
    * AP: sum over the distinct distances of (recall gained there) * precision, as scikit-learn's
      average_precision_score: equal distances count as one step. mAP is its mean.
    * INP: number of matches / rank of the last one. mINP is its mean.

    Args:
        distance: [Q, G] float32 or float64, finite.
        query_ids: [Q] int64.
        gallery_ids: [G] int64.
        query_cams: [Q] int64; given together with `gallery_cams`, or not.
        gallery_cams: [G] int64.
        max_rank: length of the CMC, 1 to 2^20.

    Returns:
        RankMetrics(mAP, cmc [max_rank] float32, mINP, ap [Q] float32 with NaN for a query without a match).

    Raises:
        ValueError: on a wrong shape, dtype or device, NaN or infinity in `distance`, cameras on one side only, or if
            no query has a match.

    Source: Zheng et al., Scalable Person Re-identification, ICCV 2015 (protocol); Ye et al., TPAMI 2021 (INP).

    Example:
        >>> distance = torch.tensor([[0.1, 0.2, 0.3]])
        >>> rank_metrics(distance, torch.tensor([7]), torch.tensor([7, 5, 7])).mAP
        0.8333333333333333
    """
    check_all_dense(distance=distance, query_ids=query_ids, gallery_ids=gallery_ids)
    check_all_dense(query_cams=query_cams, gallery_cams=gallery_cams)
    max_rank = check_int("max_rank", max_rank, 1, 1 << 20)
    mean_ap, cmc, mean_inp, ap = torch.ops.ise_fast.rank_metrics(
        distance, query_ids, gallery_ids, query_cams, gallery_cams, max_rank
    )
    return RankMetrics(mean_ap.item(), cmc, mean_inp.item(), ap)


@register_fake("re_ranking")
def _(x: Tensor, nn: Tensor, queries: int, k2: int, lambda_value: float, block: int = 0) -> Tensor:
    return x.new_empty(queries, x.shape[0] - queries)


@register_fake("rank_metrics")
def _(
    distance: Tensor,
    query_ids: Tensor,
    gallery_ids: Tensor,
    query_cams: Tensor | None,
    gallery_cams: Tensor | None,
    max_rank: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    scalar = distance.new_empty((), dtype=torch.float64)
    cmc = distance.new_empty(max_rank, dtype=torch.float32)
    return scalar, cmc, torch.empty_like(scalar), distance.new_empty(distance.shape[0], dtype=torch.float32)
