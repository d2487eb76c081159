"""Operators of the other methods: K-means, merging, the losses of SpCL, SoftSim and MMCL with their gradients."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks import checks
from benchmarks.cases.setting import Setting, identities, missing
from benchmarks.data import clustered_features
from benchmarks.measure import Case, Variant, WrongResult
from benchmarks.published import merging
from ise_fast import ops, reference
from ise_fast.types import CSRGraph


def kmeans(setting: Setting) -> Iterator[Case]:
    """Lloyd's iterations to the end, from given centres; scikit-learn for as many iterations."""
    for n, d in setting.label_sizes():
        k = min(500, max(2, n // 25))
        x = clustered_features(n, d, identities(n)).to(setting.device)
        centres = x[torch.randperm(n, generator=torch.Generator().manual_seed(0))[:k].to(x.device)].clone()
        truth = ops.kmeans(x, centres)
        variants = [Variant("fused", partial(ops.kmeans, x, centres))]
        skipped = {}
        if reason := missing("sklearn"):
            skipped["scikit-learn"] = reason
        elif x.device.type == "cpu":
            check = partial(checks.same_labels, truth.labels, exact=False)
            variants.append(Variant("scikit-learn", partial(_sklearn_kmeans, x, centres, truth.iterations), check))
        yield Case(
            operator="kmeans",
            shape={"N": n, "d": d, "K": k, "iterations": truth.iterations},
            variants=variants,
            flops=2.0 * n * k * d * truth.iterations,
            bytes=4 * n * d * truth.iterations,
            device=x.device,
            skipped=skipped,
        )


def _sklearn_kmeans(x: Tensor, centres: Tensor, iterations: int) -> Any:
    from sklearn.cluster import KMeans

    fitted = KMeans(len(centres), init=centres.numpy(), n_init=1, algorithm="lloyd", tol=0, max_iter=iterations)
    return fitted.fit(x.numpy()).labels_


def kmeans_start(setting: Setting) -> Iterator[Case]:
    """k-means++: the rows to start from; scikit-learn draws several candidates for each, we one as published."""
    for n, d in setting.label_sizes():
        k = min(500, max(2, n // 25))
        x = clustered_features(n, d, identities(n)).to(setting.device)
        variants = [Variant("fused", partial(_start, x, k))]
        skipped = {}
        if reason := missing("sklearn"):
            skipped["scikit-learn"] = reason
        elif x.device.type == "cpu":
            variants.append(Variant("scikit-learn", partial(_sklearn_start, x, k)))
        shape: dict[str, float] = {"N": n, "d": d, "K": k}
        yield Case("kmeans_start", shape, variants, 3.0 * n * k * d, 4 * n * d, device=x.device, skipped=skipped)


def _start(x: Tensor, k: int) -> Tensor:
    return ops.kmeans_start(x, k, torch.Generator().manual_seed(0))


def _sklearn_start(x: Tensor, k: int) -> Any:
    from sklearn.cluster import kmeans_plusplus

    return kmeans_plusplus(x.numpy(), k, random_state=0, n_local_trials=1)[1]


def merge_rows(setting: Setting) -> Iterator[Case]:
    """BUC's first merging, of a twentieth of the images; the plain loops where they take no more than minutes."""
    for n, d in setting.label_sizes():
        x = clustered_features(n, d, identities(n)).to(setting.device)
        labels, merges = torch.arange(n, device=x.device), n // 20
        truth = ops.merge_rows(x, labels, 0.003, merges).labels
        variants = [Variant("fused", partial(ops.merge_rows, x, labels, 0.003, merges))]
        skipped = {}
        if n > setting.reference_limit:
            skipped["plain loops"] = f"N > {setting.reference_limit}"
        elif x.device.type == "cpu":
            check = partial(checks.same_labels, truth, exact=False)
            variants.append(Variant("plain loops", partial(merging.merge, x, labels, 0.003, merges), check))
        shape: dict[str, float] = {"N": n, "d": d, "merges": merges}
        yield Case("merge_rows", shape, variants, 1.0 * n * n * d, 4 * n * d, device=x.device, skipped=skipped)


def cycle_positives(setting: Setting) -> Iterator[Case]:
    """MMCL's labels of a batch: against the product of batch and memory, and the reference, which sorts all rows."""
    b = 16 if setting.quick else 128
    _, index, table = _batch(setting, b)
    truth = ops.cycle_positives(table, index)
    batch = table[index]
    variants = [
        Variant("fused", partial(ops.cycle_positives, table, index)),
        Variant("yardstick: product", lambda: batch @ table.T),
    ]
    skipped = {}
    if len(table) <= setting.slow_limit:
        variants.append(
            Variant("reference", partial(reference.cycle_positives, table, index), partial(_same_graph, truth))
        )
    else:
        skipped["reference"] = f"N > {setting.slow_limit}"
    n, d = table.shape
    shape: dict[str, float] = {"B": b, "N": n, "d": d}
    yield Case("cycle_positives", shape, variants, 2.0 * b * n * d, 4 * n * d, device=table.device, skipped=skipped)


def _same_graph(truth: CSRGraph, got: CSRGraph) -> str:
    if not (torch.equal(truth.indptr, got.indptr) and torch.equal(truth.indices, got.indices)):
        raise WrongResult("positives differ")
    return ""


def _with_gradient(loss: Any, f: Tensor) -> tuple[Tensor, Tensor]:
    leaf = f.detach().requires_grad_()
    value = loss(leaf)
    (gradient,) = torch.autograd.grad(value, leaf)
    return value.detach(), gradient


def _loss_case(operator: str, shape: Mapping[str, float], ours: Any, plain: Any, f: Tensor, table: Tensor) -> Case:
    """Against the reference and the two products that loss and gradient need."""
    check = partial(checks.close, _with_gradient(ours, f), tolerance=1e-4)
    return Case(
        operator=operator,
        shape=dict(shape),
        variants=[
            Variant("fused", partial(_with_gradient, ours, f)),
            Variant("reference", partial(_with_gradient, plain, f), check),
            Variant("yardstick: products", lambda: (f @ table.T) @ table),
        ],
        flops=4.0 * len(f) * table.numel(),
        bytes=8 * (len(f) * f.shape[1] + table.numel()),
        device=f.device,
    )


def _batch(setting: Setting, b: int) -> tuple[Tensor, Tensor, Tensor]:
    """Features, their rows, and the table of all images."""
    n, d = (300, 64) if setting.quick else (12_936, 2048)
    table = clustered_features(n, d, identities(n)).to(setting.device)
    index = (torch.arange(b) * 7 % n).to(setting.device)
    noise = torch.randn(b, d, generator=torch.Generator().manual_seed(2)).to(setting.device) / d**0.5
    return torch.nn.functional.normalize(table[index] + noise, dim=1), index, table


def group_nce_loss(setting: Setting) -> Iterator[Case]:
    f, index, table = _batch(setting, 16 if setting.quick else 64)
    groups = torch.arange(len(table), device=f.device) * 3 % max(2, len(table) // 20)
    count = int(groups.max()) + 1
    sums, counts = torch.zeros(count, f.shape[1], device=f.device), groups.bincount()
    ops.refresh_groups_(sums, table, ops.group_members(groups, count), torch.arange(count, device=f.device))
    shape = {"B": len(f), "K": count, "d": f.shape[1]}
    ours, plain = (lambda x, api=api: api.group_nce_loss(x, sums, counts, groups[index]) for api in (ops, reference))
    yield _loss_case("group_nce_loss", shape, ours, plain, f, sums)


def soft_nce_loss(setting: Setting) -> Iterator[Case]:
    f, index, table = _batch(setting, 16 if setting.quick else 64)
    columns = (index[:, None] + torch.arange(5, device=f.device)) % len(table)
    weights = torch.tensor([0.6, 0.1, 0.1, 0.1, 0.1], device=f.device).repeat(len(f), 1)
    shape = {"B": len(f), "R": len(table), "d": f.shape[1]}
    ours, plain = (lambda x, api=api: api.soft_nce_loss(x, table, columns, weights, 0.1) for api in (ops, reference))
    yield _loss_case("soft_nce_loss", shape, ours, plain, f, table)


def multi_label_loss(setting: Setting) -> Iterator[Case]:
    f, index, table = _batch(setting, 16 if setting.quick else 128)
    positives = ops.cycle_positives(table, index)
    shape = {"B": len(f), "N": len(table), "d": f.shape[1]}
    share = 0.05 if setting.quick else 0.01
    ours, plain = (lambda x, api=api: api.multi_label_loss(x, table, positives, 5.0, share) for api in (ops, reference))
    yield _loss_case("multi_label_loss", shape, ours, plain, f, table)
