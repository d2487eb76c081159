"""The products that the operators ask of the library, at sizes that no kernel of it likes."""

from __future__ import annotations

import pytest

from benchmarks.profile import model
from benchmarks.profile.counts import count
from benchmarks.profile.interpreter import NO_NVCC, NVCC

pytestmark = pytest.mark.skipif(not NVCC, reason=NO_NVCC)

ODD = {"B": 255, "K": 2_999, "d": 2_043}


def test_rows_of_half_precision_products_begin_at_multiples_of_16_bytes() -> None:
    """Else an H100 takes seven times as long; nothing is run here, only counted."""
    heads = ("nearest_centroids", "ise_head_gram", "ise_head", "cluster_nce_loss")
    methods = ("group_nce_loss", "soft_nce_loss", "soft_nce_loss_hard", "multi_label_loss")
    wanted = [
        *((name, ODD) for name in (*heads, *methods)),
        ("ise_head_wide", {**ODD, "K": 70_001}),
        ("kmeans_step", {"N": 4_097, "K": 701, "d": 2_043}),
    ]
    for (name, _), counts in zip(wanted, count(wanted, dry=True), strict=True):
        products = [call for call in counts.calls("product") if call["name"] == "float16"]
        assert products, name
        assert [(name, call) for call in products if model.unaligned(call)] == []
