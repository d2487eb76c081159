"""The Jaccard stage on features that overlap, where many pairs share some of their neighbours."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch

from benchmarks.cases.labels import EPS, K1, K2
from benchmarks.cases.setting import Setting
from benchmarks.data import overlapping_features
from benchmarks.measure import Case, Variant
from ise_fast import ops


def hard_jaccard(setting: Setting) -> Iterator[Case]:
    """jaccard_graph from its encoding at 20,000 x 64, with --growth up to 200,000: its work grows with N alone."""
    native = torch.ops.ise_fast
    sizes = [300] if setting.quick else [20_000, 60_000, 200_000] if setting.growth else [20_000]
    for n in sizes:
        x = overlapping_features(n, 64).to(setting.device)
        v = native.k_reciprocal_encoding(x, ops.knn(x, K1).indices, K2)
        pairs = native.jaccard_graph(*v, EPS, 0, n)[1].numel()
        yield Case(
            operator="hard_jaccard",
            shape={"N": n, "d": 64, "k1": K1, "k2": K2},
            variants=[
                Variant("fused", partial(native.jaccard_graph, *v, EPS, 0, n)),
                # A part of the rows cannot share its pairs: as all were before, each is visited from both sides.
                Variant("each pair twice", partial(native.jaccard_graph, *v, EPS, 0, n - 1)),
            ],
            bytes=(v[1].numel() + pairs) * 8,
            axis="N" if setting.growth else "",
            device=x.device,
        )
