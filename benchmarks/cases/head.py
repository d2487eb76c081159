"""The ISE head: nearest centroids, supports, losses with gradient, memory update, and the whole step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from benchmarks import checks
from benchmarks.cases.setting import Setting, missing
from benchmarks.data import clustered_features
from benchmarks.measure import Case, Variant
from benchmarks.published import head as published
from ise_fast import ops, reference
from ise_fast.nn import ClusterMemory, ISELoss

DEGREE, MOMENTUM, INSTANCES = 0.15, 0.2, 16


def _sizes(setting: Setting, k: int = 1) -> list[tuple[int, int, int, int, str]]:
    """(B, K, d, k, axis)."""
    if setting.quick:
        return [(32, 40, 64, k, "")]
    if setting.device.type == "cuda":
        return [(256, 3_000, 2048, k, ""), (4_096, 20_000, 2048, k, ""), (256, 1_000_000, 2048, k, "")]
    sizes = [(256, 700, 2048, k, "")]
    if setting.growth:
        sizes += [(256, clusters, 256, k, "K") for clusters in (500, 2_000, 8_000, 32_000, 100_000)]
    return sizes


def _step_sizes(setting: Setting) -> list[tuple[int, int, int, int, str]]:
    """(B, K, d, k, axis) of the whole step, which has a curve over each of them."""
    sizes = [*_sizes(setting), *(size for size in _sizes(setting, k=4) if not size[-1])]
    if setting.growth and setting.device.type == "cpu":
        sizes += [(b, 700, 256, 1, "B") for b in (64, 256, 1_024, 4_096)]
        sizes += [(256, 700, d, 1, "d") for d in (128, 512, 2_048, 4_096)]
        sizes += [(256, 700, 2_048, k, "k") for k in (1, 2, 4, 8)]
    return sizes


def _batch(b: int, clusters: int, d: int, setting: Setting) -> tuple[Tensor, Tensor, Tensor]:
    """Features near their centroid, in groups of 16 as a P x K sampler gives them; centroids."""
    c = clustered_features(clusters, d, max(2, clusters // 3), seed=1)
    y = torch.arange(b) // INSTANCES * 7 % clusters
    noise = torch.randn(b, d, generator=torch.Generator().manual_seed(2)) / d**0.5
    f = torch.nn.functional.normalize(c[y] + noise, dim=1)
    return f.to(setting.device), y.to(setting.device), c.to(setting.device)


def nearest_centroids(setting: Setting) -> Iterator[Case]:
    for b, clusters, d, k, axis in _sizes(setting):
        f, y, c = _batch(b, clusters, d, setting)
        truth = ops.nearest_centroids(f, c, y, k).indices
        check = partial(checks.same_neighbours, truth, exact=True)
        loose = partial(checks.same_neighbours, truth, exact=False)
        yield Case(
            operator="nearest_centroids",
            shape={"B": b, "K": clusters, "d": d, "k": k},
            variants=[
                Variant("fused", partial(_nearest, ops, f, c, y, k)),
                Variant("reference", partial(_nearest, reference, f, c, y, k), check),
                Variant("torch matmul + topk", partial(_matmul_topk, f, c, y, k), loose),
            ],
            flops=2.0 * b * clusters * d,
            bytes=4 * (b + clusters) * d,
            axis=axis,
            device=f.device,
        )


def _nearest(implementation: ModuleType, f: Tensor, c: Tensor, y: Tensor, k: int) -> Tensor:
    indices: Tensor = implementation.nearest_centroids(f, c, y, k).indices
    return indices


def _matmul_topk(f: Tensor, c: Tensor, y: Tensor, k: int) -> Tensor:
    return (f @ c.T).scatter_(1, y[:, None], -torch.inf).topk(k).indices


def support_samples(setting: Setting) -> Iterator[Case]:
    for b, clusters, d, k, axis in _sizes(setting, k=4):
        f, y, c = _batch(b, clusters, d, setting)
        nearest = ops.nearest_centroids(f, c, y, k).indices
        truth = ops.support_samples(f, c, y, nearest, DEGREE)
        yield Case(
            operator="support_samples",
            shape={"B": b, "K": clusters, "d": d, "k": k},
            variants=[
                Variant("fused", partial(ops.support_samples, f, c, y, nearest, DEGREE)),
                Variant(
                    "reference",
                    partial(reference.support_samples, f, c, y, nearest, DEGREE),
                    partial(checks.close, truth, tolerance=1e-5),
                ),
            ],
            bytes=4 * b * d * (2 + 2 * k),
            axis=axis,
            device=f.device,
        )


def cluster_nce_loss(setting: Setting) -> Iterator[Case]:
    """Forward and backward."""
    for b, clusters, d, _k, axis in _sizes(setting):
        f, y, c = _batch(b, clusters, d, setting)
        run = partial(_with_gradient, ops.cluster_nce_loss)
        check = partial(checks.close, run(f, y, c), tolerance=1e-4)
        variants = [
            Variant("fused", partial(run, f, y, c)),
            Variant("reference", partial(_with_gradient, reference.cluster_nce_loss, f, y, c), check),
        ]
        compiled, skipped = _compiled(reference.cluster_nce_loss, _with_gradient, setting, f, y, c)
        variants += [Variant(name, step, check) for name, step in compiled.items()]
        if hasattr(torch.nn.functional, "linear_cross_entropy"):
            variants.append(
                Variant("torch linear_cross_entropy", partial(_with_gradient, _torch_linear, f, y, c), check)
            )
        else:
            skipped["torch linear_cross_entropy"] = f"not in torch {torch.__version__}"
        if reason := missing("liger_kernel"):
            skipped["Liger-Kernel"] = reason
        elif f.is_cuda:
            variants.append(Variant("Liger-Kernel", partial(_with_gradient, _liger, f, y, c), check))
        if reason := missing("cut_cross_entropy"):
            skipped["cut-cross-entropy"] = reason
        elif f.is_cuda:
            variants.append(Variant("cut-cross-entropy", partial(_with_gradient, _cut, f, y, c), check))
        yield Case(
            operator="cluster_nce_loss",
            shape={"B": b, "K": clusters, "d": d},
            variants=variants,
            flops=4.0 * b * clusters * d,
            bytes=4 * (2 * b + 2 * clusters) * d,
            axis=axis,
            device=f.device,
            skipped=skipped,
        )


def _with_gradient(loss: Any, f: Tensor, y: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    leaf = f.detach().requires_grad_()
    value = loss(leaf, y, c)
    (gradient,) = torch.autograd.grad(value, leaf)
    return value.detach(), gradient


def _torch_linear(f: Tensor, y: Tensor, c: Tensor) -> Tensor:
    f = torch.nn.functional.normalize(f, dim=1)
    loss: Tensor = torch.nn.functional.linear_cross_entropy(f / 0.05, c, y)  # type: ignore[attr-defined, unused-ignore]
    return loss


def _liger(f: Tensor, y: Tensor, c: Tensor) -> Tensor:
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

    loss: Tensor = LigerFusedLinearCrossEntropyLoss()(c, torch.nn.functional.normalize(f, dim=1) / 0.05, y)
    return loss


def _cut(f: Tensor, y: Tensor, c: Tensor) -> Tensor:
    from cut_cross_entropy import linear_cross_entropy

    loss: Tensor = linear_cross_entropy(torch.nn.functional.normalize(f, dim=1) / 0.05, c, y)
    return loss


def update_memory(setting: Setting) -> Iterator[Case]:
    """In place, hard: the buffer is restored before each run."""
    for b, clusters, d, _k, axis in _sizes(setting):
        f, y, c = _batch(b, clusters, d, setting)
        buffer = c.clone()
        truth = c.clone()
        ops.update_memory_(truth, f, y, MOMENTUM)

        def run(implementation: ModuleType, buffer: Tensor = buffer, f: Tensor = f, y: Tensor = y) -> Tensor:
            implementation.update_memory_(buffer, f, y, MOMENTUM)
            return buffer

        restore = partial(buffer.copy_, c)
        check = partial(checks.close, truth, tolerance=1e-5)
        yield Case(
            operator="update_memory_",
            shape={"B": b, "K": clusters, "d": d},
            variants=[
                Variant("fused", partial(run, ops), partial(checks.close, truth, tolerance=0.0), restore),
                Variant("reference", partial(run, reference), check, restore),
            ],
            bytes=4 * d * (b + 2 * min(b, clusters)),
            axis=axis,
            device=f.device,
        )


def ise_loss_step(setting: Setting) -> Iterator[Case]:
    """Forward, backward and update of the memory with its Gram matrix: what a training iteration does."""
    for b, clusters, d, k, axis in _step_sizes(setting):
        f, y, c = _batch(b, clusters, d, setting)
        memory, buffer = ClusterMemory(d, MOMENTUM).to(f.device), c.clone()
        step = partial(_memory_step, ISELoss(k, base_degree=DEGREE), memory, f, y)
        fresh, restore = partial(_reset, memory, c), partial(buffer.copy_, c)
        fresh()
        *losses, moved = step()
        # Two supports are equally far from a feature to 1e-8: which one is taken moves the gradient by 4e-4.
        check = partial(checks.close, (*losses, moved.clone()), tolerance=1e-3)
        variants = [Variant("fused", step, None, fresh)]
        skipped: dict[str, str] = {}
        if clusters * b <= 5_000_000 and not axis:
            plain = partial(_step, reference.ise_loss, buffer, f, y, k)
            loop = partial(published.step, buffer, f, y, DEGREE, k, MOMENTUM)
            compiled, skipped = _compiled(reference.ise_loss, _step, setting, buffer, f, y, k)
            peers: dict[str, Callable[[], Any]] = {"reference": plain, **compiled, "published": loop}
            variants += [Variant(name, peer, check, restore) for name, peer in peers.items()]
        changed = c[y.unique()]
        variants.append(Variant("yardstick: products", partial(_products, f, c, changed)))
        yield Case(
            operator="ise_loss_step",
            shape={"B": b, "K": clusters, "d": d, "k": k},
            variants=variants,
            flops=2.0 * (2 * b + len(changed)) * clusters * d,
            bytes=4 * (2 * b * (1 + k) + 2 * clusters) * d,
            axis=axis,
            device=f.device,
            skipped=skipped,
        )


def _compiled(
    loss: Callable[..., Any], run: Callable[..., Any], setting: Setting, *arguments: object
) -> tuple[dict[str, Callable[[], Any]], dict[str, str]]:
    """(what runs, what is skipped and why): the compiler works in the first call, outside any clock."""
    name = "torch.compile of the reference"
    if setting.quick:
        return {}, {name: "compiling takes longer than this mode"}
    step = partial(run, torch.compile(loss, dynamic=False), *arguments)
    try:
        step()
    except Exception as error:  # whatever torch.compile raises where it finds no compiler
        return {}, {name: f"{type(error).__name__}: {error}".splitlines()[0]}
    return {name: step}, {}


def _reset(memory: ClusterMemory, c: Tensor) -> None:
    memory.reset(c)
    memory.gram  # noqa: B018 - made on first use: outside the clock


def _memory_step(criterion: ISELoss, memory: ClusterMemory, f: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Loss, gradient, memory afterwards."""
    leaf = f.detach().requires_grad_()
    out = criterion(leaf, y, memory, progress=1.0)
    (gradient,) = torch.autograd.grad(out.loss, leaf)
    memory.update(f, y, out.supports)
    return out.loss.detach(), gradient, memory.centroids


def _step(ise_loss: Any, buffer: Tensor, f: Tensor, y: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """The same of the reference."""
    leaf = f.detach().requires_grad_()
    out = ise_loss(leaf, y, buffer, DEGREE, k=k)
    (gradient,) = torch.autograd.grad(out.loss, leaf)
    rows = torch.cat([f, out.supports.flatten(0, 1)])
    reference.update_memory_(buffer, rows, torch.cat([y, y.repeat_interleave(k)]), MOMENTUM)
    return out.loss.detach(), gradient, buffer


def _products(f: Tensor, c: Tensor, changed: Tensor) -> Tensor:
    """F C^T and W C, the least that loss and gradient need, and the Gram rows of the centroids that changed."""
    torch.mm(changed, c.T)
    return (f @ c.T) @ c
