"""Kinds of faults that operators must refuse or survive, whatever operator they meet."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from fuzzing.arguments import EXAMPLES, operators
from torch import Tensor

from ise_fast import ops
from ise_fast.types import CSRGraph

OPERATORS = operators()
F, C, Y = torch.eye(4, 8), torch.eye(3, 8), torch.tensor([0, 1, 2, 0])


@pytest.mark.parametrize("bad", [torch.empty(0), torch.ones(2), torch.tensor(1), torch.ones((), dtype=torch.float64)])
def test_gradients_of_losses_are_scalars_of_the_features(bad: Tensor) -> None:
    one = torch.ones(())
    for position, name in enumerate(("grad_loss", "grad_contrastive", "grad_label_preserving")):
        grads = [one, one, one]
        grads[position] = bad
        with pytest.raises(ValueError, match=f"^{name}: expected"):
            OPERATORS["ise_loss_backward"](*grads, F, F, F, 0.1)
    for name, more in (("cluster_nce_loss_backward", ()), ("loss_backward", ("soft_nce_loss",))):
        with pytest.raises(ValueError, match=r"^grad: expected"):
            OPERATORS[name](bad, F, F, *more)


@pytest.mark.parametrize("shape", [(1,), (400,), (400, 1), (399, 2), (2, 400)])
def test_support_samples_backward_compares_the_norms(shape: tuple[int, ...]) -> None:
    supports, features = torch.zeros(400, 2, 8), torch.zeros(400, 8)
    with pytest.raises(ValueError, match=r"^norm: expected"):
        OPERATORS["support_samples_backward"](supports, features, supports, torch.ones(shape))
    with pytest.raises(ValueError, match=r"^supports: expected size 4 in dimension 0"):
        OPERATORS["support_samples_backward"](supports, torch.zeros(4, 8), supports, torch.ones(400, 2))


@pytest.mark.parametrize("block", [2**63 - 1, 2**62, 2**31, -1, -(2**63)])
def test_block_out_of_range(block: int) -> None:
    x = EXAMPLES["re_ranking"](random.Random(1))
    for name in ("knn", "radius_graph", "re_ranking"):
        arguments = {**EXAMPLES[name](random.Random(1)), "block": block}
        with pytest.raises(ValueError, match=r"^block: expected 0"):
            OPERATORS[name](**arguments)
    largest = OPERATORS["re_ranking"](**{**x, "block": 2**30})
    assert largest.equal(OPERATORS["re_ranking"](**x))


@pytest.mark.parametrize("tiny", [1e-40, 1e-45, 1e-38])
def test_threads_that_flush_denormals_change_nothing(tiny: float) -> None:
    """The calling thread flushes, the others do not."""
    n, width = 300, 40
    values = torch.full((n, width), 1 / width)
    values[1::2] = tiny
    graph = torch.arange(0, n * width + 1, width), torch.arange(width, dtype=torch.int32).repeat(n), values.flatten()
    calls: list[Callable[[], Any]] = [
        lambda: OPERATORS["jaccard_graph"](*graph, 0.5, 0, n),
        lambda: [OPERATORS["jaccard_distance"](*graph)],
        lambda: OPERATORS["knn"](values * 1e-3, 3),
    ]
    expected = [call() for call in calls]
    torch.set_flush_denormal(True)
    try:
        found = [call() for call in calls]
    finally:
        torch.set_flush_denormal(False)
    for ours, theirs in zip(found, expected, strict=True):
        assert all(a.equal(b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_a_meta_tensor_beside_real_ones(name: str) -> None:
    arguments = EXAMPLES[name](random.Random(2))
    tensors = [k for k, v in arguments.items() if isinstance(v, Tensor)]
    for moved in tensors if len(tensors) > 1 else ():
        with pytest.raises(ValueError, match=r"^\w+: expected device"):
            OPERATORS[name](**{**arguments, moved: arguments[moved].to("meta")})


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_none_for_a_tensor_and_a_freed_one(name: str) -> None:
    schema = {a.name: str(a.type) for a in OPERATORS[name]._schema.arguments}
    arguments = EXAMPLES[name](random.Random(2))
    for key, value in arguments.items():
        if schema[key] != "Tensor":
            continue
        with pytest.raises((ValueError, TypeError, NotImplementedError)):
            OPERATORS[name](**{**arguments, key: None})
        if value.numel():
            freed = value.clone()
            freed.untyped_storage().resize_(0)
            with pytest.raises(ValueError, match=r"expected a storage of at least"):
                OPERATORS[name](**{**arguments, key: freed})


@pytest.mark.parametrize("temperature", [1e-39, 1e-44, 1e-300, 5e-324])
def test_temperatures_too_small_for_the_dtype(temperature: float) -> None:
    with pytest.raises(ValueError, match=r"^temperature: expected"):
        ops.cluster_nce_loss(F, Y, C, temperature)
    with pytest.raises(ValueError, match=r"^temperature: expected"):
        ops.ise_loss(F, Y, C, 0.25, temperature=temperature)
    if temperature < 1e-300:
        with pytest.raises(ValueError, match=r"^lp_temperature: expected"):
            ops.ise_loss(F, Y, C, 0.25, lp_temperature=temperature)
    assert ops.ise_loss(F, Y, C, 0.25, temperature=1e-30).loss.isfinite()


@pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [0, 2, 1], [1, 2, 0]])
@pytest.mark.parametrize("factor", [1.0, 1e-3, 1e-20])
def test_products_that_leave_float32_on_the_way(order: list[int], factor: float) -> None:
    """Refused while they may overflow; below, the exact best in every order of the columns."""
    f = torch.ones(1, 3)
    c = torch.tensor([[0, 0, 0], [3e38, 3e38, -3.4e38], [3e38, 0, 0]]) * factor
    y = torch.tensor([0])
    if factor == 1:
        with pytest.raises(ValueError, match=r"^centroids: expected rows whose length float32 can hold"):
            ops.nearest_centroids(f[:, order], c[:, order], y)
        with pytest.raises(ValueError, match=r"^features: expected inner products"):
            ops.nearest_centroids(f * 1e10, c * 1e-3, y)
    else:
        exact = (c.double() @ f[0].double())[1:].argmax() + 1
        assert ops.nearest_centroids(f[:, order], c[:, order], y).indices.tolist() == [[int(exact)]]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("place", [(0, 0), (1, 2), (2, 7)])
def test_centroids_are_numbers(value: float, place: tuple[int, int]) -> None:
    c = C.clone()
    c[place] = value
    before = c.clone()
    gram = torch.zeros(3, 3)
    calls = [
        lambda: ops.support_samples(F, c, Y, (Y[:, None] + 1) % 3, 0.25),
        lambda: ops.update_memory_(c, F, Y, 0.2),
        lambda: ops.update_memory_(c, F, Y, 0.2, "momentum"),
        lambda: ops.nearest_centroids(F, c, Y),
        lambda: ops.ise_loss(F, Y, c, 0.25),
        lambda: ops.ise_loss(F, Y, c, 0.25, gram=C @ C.T),
        lambda: OPERATORS["refresh_gram_"](gram, c, None),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"^centroids: expected"):
            call()
    assert c.equal(before) or (c.isnan() == before.isnan()).all()
    assert not gram.any()


def test_updates_of_memory_that_is_shared() -> None:
    c = torch.nn.functional.normalize(torch.arange(24.0).view(3, 8) + 1, dim=1)
    expected = c.clone()
    ops.update_memory_(expected, c[[2, 0, 1]], torch.arange(3), 0.2)
    table = torch.cat([c, c[:1]])
    ops.update_memory_(c, c[[2, 0, 1]], torch.arange(3), 0.2)
    assert c.equal(expected)
    ours, rows = table[:3], table[1:]  # each row moves towards the next one
    expected = ours.clone()
    ops.update_memory_(expected, rows.clone(), torch.arange(3), 0.2)
    ops.update_memory_(ours, rows, torch.arange(3), 0.2)
    assert ours.equal(expected)
    for shared in (
        torch.ones(1, 8).expand(3, 8),
        torch.ones(3, 1).expand(3, 8),
        torch.ones(10).as_strided((3, 8), (1, 1)),
        torch.ones(1, 1).expand(3, 1),  # of one column: its steps along a row say nothing
    ):
        with pytest.raises(ValueError, match=r"^centroids: expected elements that share no memory"):
            ops.update_memory_(shared, F[:, : shared.shape[1]], Y, 0.2)


def numpy_calls() -> Iterator[tuple[str, Callable[[], Any]]]:
    f, c, y = F.numpy(), C.numpy(), Y.numpy()
    graph = ops.radius_graph(F, 0.5)
    yield "distance", lambda: ops.rank_metrics(np.eye(4, dtype=np.float32), Y, Y)
    yield "gallery_ids", lambda: ops.rank_metrics(torch.eye(4), Y, y)
    yield "query_cams", lambda: ops.rank_metrics(torch.eye(4), Y, Y, y, Y)
    yield "query", lambda: ops.re_ranking(f, F)
    yield "x", lambda: ops.knn(f, 1)
    yield "x", lambda: ops.jaccard_graph(f, 2, 1, eps=0.5)
    yield "graph", lambda: ops.dbscan(np.eye(4, dtype=np.float32), 0.5)
    yield "indices", lambda: ops.dbscan(CSRGraph(graph.indptr, graph.indices.numpy(), graph.values), 0.5)
    yield "labels", lambda: ops.nearest_centroids(F, C, y)
    yield "centroids", lambda: ops.nearest_centroids(F, c, Y)
    yield "nearest", lambda: ops.support_samples(F, C, Y, y[:, None], 0.2)
    yield "labels", lambda: ops.ise_loss(F, y, C, 0.2)
    yield "gram", lambda: ops.ise_loss(F, Y, C, 0.2, gram=np.eye(3))
    yield "labels", lambda: ops.cluster_nce_loss(F, y, C)
    yield "centroids", lambda: ops.update_memory_(c, F, Y, 0.2)
    yield "labels", lambda: ops.update_memory_(C, F, y, 0.2)


@pytest.mark.parametrize(("name", "call"), list(numpy_calls()))
def test_numpy_arrays_are_refused_in_one_line(name: str, call: Callable[[], Any]) -> None:
    with pytest.raises(TypeError, match=rf"^{name}: expected a torch tensor, got ndarray$"):
        call()


@pytest.mark.parametrize("columns", [2**18, 2**20])
def test_absurd_sizes_are_out_of_memory(columns: int) -> None:
    """More than any address space has."""
    x = torch.zeros(1, 1).expand(2**30, columns)
    with pytest.raises(MemoryError, match=rf"^out of memory: asked for .* GiB \({2**32 * columns} bytes\)$"):
        OPERATORS["knn"](x, 1)
    labels = torch.zeros(1).long().expand(2**30)
    with pytest.raises(MemoryError, match=r"^out of memory: asked for"):
        OPERATORS["nearest_centroids"](x, torch.zeros(2, 1).expand(2, columns), labels, 1)


def test_memory_limit_of_the_process() -> None:
    """Inside a parallel region and outside, by tensors and by vectors: MemoryError that says how much."""
    program = """
import resource, torch, ise_fast.ops
o = torch.ops.ise_fast
x = torch.rand(3000, 4)
o.knn(x, 2)  # threads and libraries are there before the limit
used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (200 << 20),) * 2)
rows = torch.arange(20001)
for call in (lambda: o.jaccard_distance(rows, torch.arange(20000, dtype=torch.int32), torch.ones(20000)),
             lambda: o.radius_graph(torch.zeros(12000, 1), 1.0),
             lambda: o.dbscan_dense(torch.zeros(1, 1).expand(20000, 20000), 0.5, 3),
             lambda: o.knn(x[:9], 2)):
    try:
        call(); print("answered")
    except MemoryError as error:
        print(error)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=1800)
    lines = run.stdout.splitlines()
    assert len(lines) == 4, run.stderr
    assert all(line.startswith("out of memory: asked for ") for line in lines[:3]), lines
    assert lines[3] == "answered"
