"""python -m benchmarks.peers [FILE]: what users would call instead on a GPU, in turn with ours.

Neighbours against a float32 product with `topk` and against flashlib; the loss against torch, cut-cross-entropy and
Liger, forward and gradient; the whole way from features to labels by itself, at sizes up to a million rows. Peers that
are not installed are left out, with a line that says so. FILE receives the seconds of all runs as JSON.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

import ise_fast.ops
from benchmarks import machine
from benchmarks.measure import Case, Variant, measure
from benchmarks.profile.workloads.base import images
from benchmarks.profile.workloads.heads import TEMPERATURE, batch
from benchmarks.profile.workloads.labels import EPS, EXPANDED, MIN_SAMPLES
from benchmarks.profile.workloads.neighbours import NEIGHBOURS

DEVICE = torch.device("cuda")
TILE = 8192  # queries whose products are held at once
Peer = tuple[str, str, Callable[[], Any]]  # name, module it needs, call


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.peers", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE", help="receives the seconds of all runs as JSON")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        parser.error("a CUDA device is needed, torch finds none")
    rows: list[dict[str, Any]] = []
    with DEVICE:
        for n in (12_936, 32_621):
            x = images(n, 2048)
            rows += compare(f"knn {n:,} x 2,048", partial(ise_fast.ops.knn, x, NEIGHBOURS), neighbour_peers(x))
        for b, clusters in ((256, 3_000), (4_096, 20_000)):
            given = batch({"B": b, "K": clusters, "d": 2048}, False)
            rows += compare(f"loss {b:,} x {clusters:,} x 2,048", partial(our_loss, *given), loss_peers(*given))
        for n in (12_936, 32_621, 126_441, 1_000_000):
            rows += compare(f"features to labels {n:,} x 2,048", partial(labels, images(n, 2048)), [])
    if options.file:
        record = {"machine": machine.describe(DEVICE), "rows": rows}
        options.file.write_text(json.dumps(record, indent=1) + "\n")


def compare(name: str, ours: Callable[[], Any], peers: Sequence[Peer]) -> list[dict[str, Any]]:
    variants = [Variant("ours", ours)]
    for peer, module, run in peers:
        if module and importlib.util.find_spec(module) is None:
            print(f"{name}: {peer} left out, {module} is not installed")
        else:
            variants.append(Variant(peer, run))
    timings = measure(Case(name, {}, variants, device=DEVICE), rounds=7, budget=4.0 * len(variants))
    for timing in timings:
        print(f"{name}: {timing.name} {1e3 * statistics.median(timing.seconds):.3g} ms", flush=True)
    return [{"case": name, "variant": timing.name, "seconds": timing.seconds} for timing in timings]


def neighbour_peers(x: Tensor) -> list[Peer]:
    half = x.half()
    return [
        ("torch, float32 product and topk", "", partial(product_and_topk, x)),
        ("flashlib, float32", "flashlib", partial(flash_knn, x)),
        ("flashlib, float16", "flashlib", partial(flash_knn, half)),
    ]


def product_and_topk(x: Tensor) -> Tensor:
    squares = x.square().sum(1)
    tiles = range(0, len(x), TILE)
    scores = (squares[i : i + TILE, None] + squares - 2 * (x[i : i + TILE] @ x.T) for i in tiles)
    return torch.cat([tile.topk(NEIGHBOURS, largest=False).indices for tile in scores])


def flash_knn(x: Tensor) -> Any:
    import flashlib

    return flashlib.flash_knn(x[None], x[None], NEIGHBOURS)


def our_loss(features: Tensor, labels: Tensor, centroids: Tensor) -> Any:
    return torch.ops.ise_fast.cluster_nce_loss(features, labels, centroids, TEMPERATURE, True)


def loss_peers(features: Tensor, labels: Tensor, centroids: Tensor) -> list[Peer]:
    def eager() -> Any:
        f = features.clone().requires_grad_()
        cross_entropy(f @ centroids.T / TEMPERATURE, labels).backward()
        return f.grad

    def cut_cross_entropy() -> Any:
        from cut_cross_entropy import linear_cross_entropy

        f = (features / TEMPERATURE).bfloat16().requires_grad_()
        linear_cross_entropy(f, centroids.bfloat16(), labels).backward()
        return f.grad

    def liger() -> Any:
        from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

        f = (features / TEMPERATURE).requires_grad_()
        LigerFusedLinearCrossEntropyLoss()(centroids, f, labels).backward()
        return f.grad

    return [
        ("torch, float32", "", eager),
        ("cut-cross-entropy, bfloat16", "cut_cross_entropy", cut_cross_entropy),
        ("Liger, float32", "liger_kernel", liger),
    ]


def labels(x: Tensor) -> Tensor:
    graph = ise_fast.ops.jaccard_graph(x, NEIGHBOURS, EXPANDED, eps=EPS)
    return ise_fast.ops.dbscan(graph, EPS, MIN_SAMPLES).labels


if __name__ == "__main__":
    main()
