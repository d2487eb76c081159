"""Retrieval quality of a network: every query is looked for in the gallery."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ise_fast import ops
from ise_fast.data import Split

Numbers = np.ndarray[Any, np.dtype[np.int64]]
RANKS = (1, 5, 10)
K1, K2 = 20, 6  # of re-ranking, as published
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Retrieval:
    """Figures of one evaluation, as fractions of one."""

    mAP: float
    rank1: float
    rank5: float
    rank10: float
    mINP: float
    queries: int  # that have a match in the gallery

    def as_dict(self) -> dict[str, float]:
        return asdict(self)

    def __str__(self) -> str:
        ranks = " ".join(
            f"rank-{r} {value:.1%}" for r, value in zip(RANKS, (self.rank1, self.rank5, self.rank10), strict=True)
        )
        return f"mAP {self.mAP:.1%} {ranks} mINP {self.mINP:.1%}"


def evaluate(
    query: Tensor, gallery: Tensor, query_split: Split, gallery_split: Split, *, rerank: bool = False, block: int = 4096
) -> Retrieval:
    """Rank the gallery for every query and compare identities.

    Args:
        query: [Q, d] float32 unit rows.
        gallery: [G, d] float32 unit rows.
        query_split: identities and cameras of the queries.
        gallery_split: the same of the gallery. Without cameras nothing is left out of the gallery.
        rerank: k-reciprocal re-ranking (Zhong et al. 2017) instead of the plain squared distance.
        block: queries ranked at a time; bounds memory to block x G distances (re-ranking needs all Q x G).

    Raises:
        ValueError: if no query has a match in the gallery.
    """
    if query_split.ids is None or gallery_split.ids is None:
        raise ValueError("query_split, gallery_split: expected identities, got a data set without them")
    reranked = _re_ranked(query, gallery) if rerank else None
    ids, gallery_ids = torch.as_tensor(query_split.ids), torch.as_tensor(gallery_split.ids)
    with_cams = query_split.cams is not None and gallery_split.cams is not None
    cams = torch.as_tensor(query_split.cams) if with_cams else None
    gallery_cams = torch.as_tensor(gallery_split.cams) if with_cams else None

    matched = has_match(query_split, gallery_split)
    if not bool(matched.any()):
        raise ValueError("query_split: expected queries with a match in the gallery (other camera), got none")
    ids, gallery_ids = ids.to(query.device), gallery_ids.to(query.device)
    if cams is not None and gallery_cams is not None:
        cams, gallery_cams = cams.to(query.device), gallery_cams.to(query.device)
    aps, hits, worst = [], torch.zeros(max(RANKS), dtype=torch.float64), 0.0
    for chosen in torch.nonzero(matched).flatten().to(query.device).split(block):
        distance = 2 - 2 * query[chosen] @ gallery.T if reranked is None else reranked[chosen]
        result = ops.rank_metrics(
            distance, ids[chosen], gallery_ids, None if cams is None else cams[chosen], gallery_cams, max(RANKS)
        )
        aps.append(result.ap.cpu().double())
        hits += result.cmc.cpu().double() * len(chosen)
        worst += result.mINP * len(chosen)
    count = int(matched.sum())
    cmc = hits / count
    rank1, rank5, rank10 = (float(cmc[r - 1]) for r in RANKS)
    return Retrieval(float(torch.cat(aps).mean()), rank1, rank5, rank10, worst / count, count)


def has_match(query_split: Split, gallery_split: Split) -> Tensor:
    """[Q] bool: some gallery image has the same identity and, where both sides have cameras, another camera.

    Raises:
        ValueError: for a split without identities.
    """
    if query_split.ids is None or gallery_split.ids is None:
        raise ValueError("query_split, gallery_split: expected identities, got a data set without them")
    ids, gallery_ids = _numbered(query_split.ids, gallery_split.ids)
    if query_split.cams is None or gallery_split.cams is None:
        return torch.isin(ids, gallery_ids)
    cams, gallery_cams = _numbered(query_split.cams, gallery_split.cams)
    base = len(cams) + len(gallery_cams)
    seen = torch.unique(gallery_ids * base + gallery_cams) // base
    views, counts = torch.unique(seen, return_counts=True)
    own = torch.isin(ids * base + cams, gallery_ids * base + gallery_cams).long()
    place = torch.searchsorted(views, ids).clamp_max(len(views) - 1)
    others = torch.where(views[place] == ids, counts[place], 0) - own
    return others > 0


def _numbered(values: Numbers, others: Numbers) -> tuple[Tensor, Tensor]:
    """Both sides in numbers from 0: products of what came in, up to 64 bits long, would overflow."""
    numbers = torch.unique(torch.cat([torch.as_tensor(values), torch.as_tensor(others)]), return_inverse=True)[1]
    return numbers[: len(values)], numbers[len(values) :]


def _re_ranked(query: Tensor, gallery: Tensor) -> Tensor:
    """`ops.re_ranking` with k1 and k2 as published, or as large as so few images allow."""
    images = len(query) + len(gallery)
    k1 = min(K1, images - 1)
    if k1 < K1:
        log.warning("re-ranking: k1 is %d instead of %d, because there are %d images", k1, K1, images)
    return ops.re_ranking(query, gallery, k1, min(K2, k1))
