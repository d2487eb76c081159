"""The compiled Jaccard distance, sparse and dense, against the loop over all features."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from golden_data import load, names
from hypothesis import given, settings
from hypothesis import strategies as st
from pseudo_label_data import clustered, same_bits, with_threads
from torch import Tensor

from ise_fast import ops, reference
from ise_fast.reference.k_reciprocal import jaccard_rows
from ise_fast.types import CSRGraph

UnitRows = Callable[..., Tensor]
EPS = [0.0, 0.3, 0.6, 0.999]


def dense_loop(v: CSRGraph) -> Tensor:
    """Every f for every pair, f ascending, in float32."""
    weights = v.to_scipy().toarray()
    s = np.zeros(v.shape, np.float32)
    for f in range(v.shape[0]):
        s += np.minimum(weights[:, f, None], weights[:, f])
    return torch.from_numpy(np.maximum(np.float32(1) - s / (np.float32(2) - s), np.float32(0)))


def assert_is_thresholded(graph: CSRGraph, distance: Tensor, eps: float) -> None:
    """Exactly the pairs within eps and the diagonal, with the bits of the dense matrix."""
    inside = distance <= torch.tensor(eps, dtype=torch.float32)
    inside.fill_diagonal_(True)
    i, j = inside.nonzero(as_tuple=True)
    assert graph.indices.cpu().equal(j.int())
    assert graph.indptr.diff().cpu().equal(inside.sum(1))
    assert graph.values.cpu().equal(distance[i, j])


@pytest.mark.parametrize("eps", EPS)
@pytest.mark.parametrize(
    ("n", "d", "k1", "k2"), [(33, 4, 1, 1), (60, 8, 7, 1), (129, 16, 12, 3), (200, 31, 30, 6), (65, 8, 64, 64)]
)
def test_sparse_and_dense_equal_the_loop(
    unit_rows: UnitRows, device: torch.device, n: int, d: int, k1: int, k2: int, eps: float
) -> None:
    x = clustered(unit_rows, n, d).to(device)
    x[n // 2 : n // 2 + 5] = x[0]  # duplicates: pairs at distance 0, which must be stored
    expected = dense_loop(ops.k_reciprocal_encoding(x, k1, k2).to("cpu"))
    distance = ops.jaccard_distance(x, k1, k2)
    assert distance.cpu().equal(expected)
    assert distance.equal(distance.T)
    assert_is_thresholded(ops.jaccard_graph(x, k1, k2, eps=eps), expected, eps)


def test_threshold_is_met_to_the_bit(unit_rows: UnitRows, device: torch.device) -> None:
    """eps equal to a distance that occurs, and the next float below it."""
    v = ops.k_reciprocal_encoding(clustered(unit_rows, 90, 8).to(device), 12, 3)
    distance = dense_loop(v.to("cpu"))
    for value in distance[distance < 1].unique()[::37].tolist():
        for eps in (value, float(np.nextafter(np.float32(value), np.float32(0)))):
            graph = CSRGraph(*torch.ops.ise_fast.jaccard_graph(v.indptr, v.indices, v.values, eps, 0, 90))
            assert_is_thresholded(graph, distance, eps)


@pytest.mark.parametrize("name", names("jaccard"))
def test_golden(name: str, device: torch.device) -> None:
    g = load(name)
    x = g["features"].to(device)
    distance = ops.jaccard_distance(x, g["k1"], g["k2"])
    torch.testing.assert_close(distance.cpu(), g["jaccard"], rtol=0, atol=1e-6)
    graph = ops.jaccard_graph(x, g["k1"], g["k2"], eps=g["eps"])
    for neighbours in (graph, distance, g["jaccard"].to(device)):
        assert ops.dbscan(neighbours, g["eps"], g["min_samples"]).labels.cpu().equal(g["labels"])


def test_rows_that_are_empty_keep_a_diagonal_of_one(device: torch.device) -> None:
    """40 copies, k1 = 30, k2 = 1: ten rows of V' are empty, at distance 1 from everything, themselves included."""
    x = torch.tensor([[0.6, 0.8]], device=device).repeat(40, 1)
    distance, graph = ops.jaccard_distance(x, 30, 1), ops.jaccard_graph(x, 30, 1, eps=0.5)
    assert distance[30:].eq(1).all()
    assert distance[:30, :30].max() < 1e-6
    assert graph.indptr.diff().tolist() == [30] * 30 + [1] * 10
    for min_samples in (1, 4):
        for neighbours in (graph, distance):
            assert ops.dbscan(neighbours, 0.5, min_samples).labels.tolist() == [0] * 30 + [-1] * 10


def test_hub(unit_rows: UnitRows, device: torch.device) -> None:
    x = torch.nn.functional.normalize(unit_rows(300, 300) + 2 * unit_rows(1, 300, 7), dim=1)
    x[0] = unit_rows(1, 300, 7)
    v = ops.k_reciprocal_encoding(x.to(device), 10, 6).to("cpu")
    assert_is_thresholded(ops.jaccard_graph(x.to(device), 10, 6, eps=0.9), dense_loop(v), 0.9)


def test_one_row(device: torch.device) -> None:
    x = torch.ones(1, 4, device=device)
    assert ops.jaccard_distance(x, 1, 1).tolist() == [[0.0]]
    assert ops.jaccard_graph(x, 1, 1, eps=0.0).values.tolist() == [0.0]


def test_strided_and_repeated_input_give_the_same_bits(unit_rows: UnitRows, device: torch.device) -> None:
    x = clustered(unit_rows, 130, 24).to(device)
    first = ops.jaccard_graph(x, 12, 4, eps=0.7)
    for other in (x.clone(), x.T.contiguous().T, x.repeat_interleave(2, 0)[::2]):
        assert same_bits(ops.jaccard_graph(other, 12, 4, eps=0.7), first)
    v = ops.k_reciprocal_encoding(x, 12, 4)
    strided = [part.repeat_interleave(2)[::2] for part in (v.indptr, v.indices, v.values)]
    assert same_bits(CSRGraph(*torch.ops.ise_fast.jaccard_graph(*strided, 0.7, 0, 130)), first)


def test_threads_do_not_change_the_bits(unit_rows: UnitRows) -> None:
    x = clustered(unit_rows, 400, 33)
    one, two, four = with_threads(lambda: ops.jaccard_graph(x, 20, 6, eps=0.8))
    assert same_bits(one, two)
    assert same_bits(one, four)
    dense = with_threads(lambda: ops.jaccard_distance(x, 20, 6))
    assert dense[0].equal(dense[1])
    assert dense[0].equal(dense[2])


def test_row_ranges_are_parts_of_the_whole(unit_rows: UnitRows, device: torch.device) -> None:
    """What processes that share the rows compute, put together, has the bits of one call."""
    v = ops.k_reciprocal_encoding(clustered(unit_rows, 150, 16).to(device), 12, 4)
    parts = v.indptr, v.indices, v.values
    whole = CSRGraph(*torch.ops.ise_fast.jaccard_graph(*parts, 0.7, 0, 150))
    cuts = [0, 0, 1, 66, 149, 150]
    shares = [torch.ops.ise_fast.jaccard_graph(*parts, 0.7, a, b) for a, b in itertools.pairwise(cuts)]
    assert torch.cat([share[0].diff() for share in shares]).equal(whole.indptr.diff())
    assert torch.cat([share[1] for share in shares]).equal(whole.indices)
    assert torch.cat([share[2] for share in shares]).equal(whole.values)


@pytest.mark.parametrize("seed", range(30))
def test_any_weights(device: torch.device, seed: int) -> None:
    """The operator also takes encodings that no features lead to: zeros stored, rows of any mass below 2."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 70))
    weights = rng.random((n, n), np.float32) * (rng.random((n, n)) < rng.choice([0.05, 0.5, 1.0]))
    weights *= (rng.choice([0.4, 1.0, 1.9]) / np.maximum(weights.sum(1, keepdims=True), 1e-3)).astype(np.float32)
    stored = (weights > 0) | (rng.random((n, n)) < 0.1)
    i, j = np.nonzero(stored)
    indptr = torch.from_numpy(np.concatenate([[0], stored.sum(1).cumsum()]))
    v = CSRGraph(indptr, torch.from_numpy(j).int(), torch.from_numpy(weights[i, j].astype(np.float32)))
    expected = dense_loop(v)
    parts = [part.to(device) for part in (v.indptr, v.indices, v.values)]
    assert torch.ops.ise_fast.jaccard_distance(*parts).cpu().equal(expected)
    for eps in EPS:
        assert_is_thresholded(CSRGraph(*torch.ops.ise_fast.jaccard_graph(*parts, eps, 0, n)), expected, eps)


def test_equals_reference(unit_rows: UnitRows) -> None:
    v = ops.k_reciprocal_encoding(clustered(unit_rows, 100, 16), 20, 6)
    expected = torch.from_numpy(np.stack(list(jaccard_rows(v))))
    assert torch.ops.ise_fast.jaccard_distance(v.indptr, v.indices, v.values).equal(expected)


def test_opcheck(unit_rows: UnitRows, device: torch.device) -> None:
    v = ops.k_reciprocal_encoding(unit_rows(20, 6).to(device), 5, 2)
    parts = v.indptr, v.indices, v.values
    torch.library.opcheck(torch.ops.ise_fast.jaccard_distance.default, parts)
    torch.library.opcheck(torch.ops.ise_fast.jaccard_graph.default, (*parts, 0.5, 3, 17))


def test_empty(device: torch.device) -> None:
    parts = (
        torch.zeros(1, dtype=torch.int64, device=device),
        torch.empty(0, dtype=torch.int32, device=device),
        torch.empty(0, device=device),
    )
    assert torch.ops.ise_fast.jaccard_distance(*parts).shape == (0, 0)
    assert [part.tolist() for part in torch.ops.ise_fast.jaccard_graph(*parts, 0.5, 0, 0)] == [[0], [], []]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"eps": 1.0}, ValueError, r"eps: expected a number in \[0, 1\), got 1"),
        ({"eps": 1 - 1e-12}, ValueError, r"eps: expected a number in \[0, 1\), got 1"),
        ({"eps": -0.1}, ValueError, "eps: expected a finite number"),
        ({"eps": math.nan}, ValueError, "eps: expected a finite number"),
        ({"eps": "0.5"}, TypeError, "eps: expected a number"),
        ({"k1": 41}, ValueError, r"k1: expected an integer in \[1, 40\]"),
        ({"x": torch.full((40, 2), math.inf)}, ValueError, "x: expected finite values"),
    ],
)
def test_bad_input(change: dict[str, object], error: type[Exception], message: str) -> None:
    good = {"x": torch.randn(40, 2), "k1": 10, "k2": 3, "eps": 0.5}
    ops.jaccard_graph(**good)
    with pytest.raises(error, match=f"^{message}"):
        ops.jaccard_graph(**good | change)


GOOD = {
    "indptr": torch.tensor([0, 2, 3]),
    "indices": torch.tensor([0, 1, 1], dtype=torch.int32),
    "values": torch.tensor([0.5, 0.5, 1.0]),
    "eps": 0.5,
    "begin": 0,
    "end": 2,
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"indptr": torch.tensor([0, 3]), "end": 1}, "indices: expected 0 to 0, got 1 in row 0"),
        ({"indptr": torch.tensor([0, 3, 2])}, "indptr: expected values that never fall, got 3 before 2 at row 1"),
        ({"indptr": torch.tensor([1, 2, 3])}, "indptr: expected 0 first, got 1"),
        ({"indptr": torch.tensor([0, 2, 2**60])}, r"indptr: expected 3 \(size of indices\) last"),
        ({"indptr": torch.tensor([], dtype=torch.int64)}, "indptr: expected at least one element"),
        ({"indptr": torch.tensor([0, 2, 3], dtype=torch.int32)}, "indptr: expected int64, got int32"),
        ({"indices": torch.tensor([0, 2, 1], dtype=torch.int32)}, "indices: expected 0 to 1, got 2 in row 0"),
        ({"indices": torch.tensor([0, 1, -1], dtype=torch.int32)}, "indices: expected 0 to 1, got -1 in row 1"),
        ({"indices": torch.tensor([1, 0, 1], dtype=torch.int32)}, "indices: expected ascending .* got 0 after 1"),
        ({"indices": torch.tensor([1, 1, 1], dtype=torch.int32)}, "indices: expected ascending .* got 1 after 1"),
        ({"indices": torch.tensor([0, 1, 1])}, "indices: expected int32, got int64"),
        ({"values": torch.tensor([0.5, math.nan, 1.0])}, "values: expected finite .* at least 0, got nan in row 0"),
        ({"values": torch.tensor([0.5, 0.5, -1.0])}, "values: expected finite values of at least 0, got -1 in row 1"),
        ({"values": torch.tensor([0.5, 0.5, math.inf])}, "values: expected finite values of at least 0, got inf"),
        ({"values": torch.tensor([0.5, 0.5])}, "values: expected size 3 in dimension 0"),
        ({"values": torch.tensor([0.5, 0.5, 1.0]).double()}, "values: expected float32, got float64"),
        ({"begin": -1}, "begin: expected 0 to 2, got -1"),
        ({"begin": 2, "end": 1}, "begin: expected 0 to 1, got 2"),
        ({"end": 3}, "end: expected 0 to 2, got 3"),
        ({"eps": 1.0}, r"eps: expected a number in \[0, 1\)"),
    ],
)  # fmt: skip
def test_bad_encoding(change: dict[str, object], message: str) -> None:
    torch.ops.ise_fast.jaccard_graph(**GOOD)
    with pytest.raises(ValueError, match=f"^{message}"):
        torch.ops.ise_fast.jaccard_graph(**GOOD | change)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.integers(-2, 9), max_size=8),
    st.lists(st.integers(-2, 8), max_size=9),
    st.lists(st.floats(0, 2, width=32) | st.floats(width=32), max_size=9),
    st.integers(-1, 8),
    st.integers(-1, 8),
)
def test_malformed_encodings_never_crash(
    indptr: list[int], indices: list[int], values: list[float], begin: int, end: int
) -> None:
    v = torch.tensor(indptr, dtype=torch.int64), torch.tensor(indices, dtype=torch.int32), torch.tensor(values)
    try:
        offsets, columns, _ = torch.ops.ise_fast.jaccard_graph(*v, 0.5, begin, end)
    except ValueError:
        return
    assert offsets.numel() == end - begin + 1
    assert columns.numel() == offsets[-1] >= end - begin


def test_reference_gives_the_same_graph(unit_rows: UnitRows) -> None:
    """Same pairs; distances differ by the last places of exp."""
    x = clustered(unit_rows, 120, 16)
    found, expected = ops.jaccard_graph(x, 12, 4, eps=0.6), reference.jaccard_graph(x, 12, 4, eps=0.6)
    assert found.indptr.equal(expected.indptr)
    assert found.indices.equal(expected.indices)
    torch.testing.assert_close(found.values, expected.values, rtol=0, atol=1e-6)
