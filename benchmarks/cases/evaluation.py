"""Retrieval metrics and re-ranking."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from types import ModuleType

import torch
from torch import Tensor

from benchmarks import checks
from benchmarks.cases.setting import Setting
from benchmarks.data import clustered_features
from benchmarks.measure import Case, Variant
from ise_fast import ops, reference


def _sizes(setting: Setting) -> list[tuple[int, int]]:
    """(queries, gallery); Market-1501 has 3,368 and 15,913."""
    return [(40, 300)] if setting.quick else [(600, 3_000), (3_368, 15_913)]


def rank_metrics(setting: Setting) -> Iterator[Case]:
    """mAP, CMC and mINP from a distance matrix, same-camera matches left out."""
    for q, g in _sizes(setting):
        generator = torch.Generator().manual_seed(0)
        people = max(2, g // 20)
        ids = torch.randint(people, (q + g,), generator=generator)
        cameras = torch.randint(6, (q + g,), generator=generator)
        distance = torch.rand(q, g, generator=generator) - 0.4 * (ids[:q, None] == ids[None, q:])
        arguments = [t.to(setting.device) for t in (distance, ids[:q], ids[q:], cameras[:q], cameras[q:])]
        truth = _metrics(ops, arguments)
        yield Case(
            operator="rank_metrics",
            shape={"Q": q, "G": g},
            variants=[
                Variant("fused", partial(_metrics, ops, arguments)),
                Variant(
                    "reference", partial(_metrics, reference, arguments), partial(checks.close, truth, tolerance=1e-6)
                ),
            ],
            bytes=q * g * 4,
            device=setting.device,
        )


def _metrics(implementation: ModuleType, arguments: list[Tensor]) -> tuple[Tensor, Tensor]:
    metrics = implementation.rank_metrics(*arguments)
    return torch.tensor([metrics.mAP, metrics.mINP]), metrics.cmc


def re_ranking(setting: Setting) -> Iterator[Case]:
    """k-reciprocal re-ranking of a query set (Zhong et al. 2017)."""
    for q, g in [(40, 300)] if setting.quick else [(200, 1_000), (600, 3_000)]:
        x = clustered_features(q + g, 64 if setting.quick else 2048, max(2, g // 20)).to(setting.device)
        truth = ops.re_ranking(x[:q], x[q:])
        variants = [Variant("fused", partial(ops.re_ranking, x[:q], x[q:]))]
        if q + g <= 1_200:  # minutes beyond
            check = partial(checks.close, truth, tolerance=1e-4)
            variants.append(Variant("reference", partial(reference.re_ranking, x[:q], x[q:]), check))
        yield Case(
            operator="re_ranking",
            shape={"Q": q, "G": g, "d": x.shape[1]},
            variants=variants,
            flops=float(q + g) ** 2 * x.shape[1],
            bytes=(q + g) * x.shape[1] * 4 + q * g * 4,
            device=setting.device,
        )
