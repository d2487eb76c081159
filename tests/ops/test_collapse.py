"""Features that have collapsed: the bound on pairs, its message, and copies that are left out before clustering."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from pseudo_label_data import clustered, same_bits
from torch import Tensor
from torch.nn.functional import normalize

from ise_fast import ops, reference
from ise_fast._collapse import most_pairs
from ise_fast.ops import _copies
from ise_fast.ops.jaccard import distinct_jaccard_graph
from ise_fast.types import TooManyPairs

UnitRows = Callable[..., Tensor]


def star(unit_rows: UnitRows, n: int, d: int, hubs: int) -> Tensor:
    """Rows without structure around one direction, and `hubs` rows (blank images, say) that lie on it."""
    x = normalize(unit_rows(n, d) + 2 * unit_rows(1, d, 7), dim=1)
    x[5 : 5 + hubs] = unit_rows(1, d, 7)
    return x


COLLAPSED = {
    "equal": lambda unit_rows: unit_rows(1, 16).repeat(150, 1),
    "few distinct": lambda unit_rows: unit_rows(4, 16)[torch.arange(120) % 4],
    "hubs": lambda unit_rows: star(unit_rows, 160, 64, 6),
    "hubs of another direction": lambda unit_rows: star(unit_rows, 90, 32, 8).flip(1),
}


@pytest.mark.parametrize("kind", COLLAPSED)
def test_the_bound_is_exact_and_the_message_names_the_rows(
    unit_rows: UnitRows, device: torch.device, kind: str
) -> None:
    x = COLLAPSED[kind](unit_rows)
    n = x.shape[0]
    pairs = ops.jaccard_graph(x, 20, 6, eps=0.6).values.numel()
    assert pairs > 0.2 * n * n
    nearest = ops.knn(x, 20).indices[:, :6]
    hubs = torch.bincount(nearest.flatten()).sort(descending=True, stable=True).indices[:3].tolist()
    reached = sum(any(hub in row for hub in hubs) for row in nearest.tolist())
    for module in (ops, reference):
        rows = x.to(device) if module is ops else x
        assert module.jaccard_graph(rows, 20, 6, eps=0.6, max_pairs=pairs).values.numel() == pairs
        for bound in (pairs - 1, 1):
            with pytest.raises(TooManyPairs) as error:
                module.jaccard_graph(rows, 20, 6, eps=0.6, max_pairs=bound)
            assert str(error.value) == (
                f"features have collapsed: rows {hubs[0]}, {hubs[1]}, {hubs[2]} are among the nearest of {reached} of "
                f"{n} rows; more than max_pairs = {bound} pairs are within eps = 0.6"
            )


def test_a_small_bound_on_good_features_is_no_collapse(unit_rows: UnitRows, device: torch.device) -> None:
    x = clustered(unit_rows, 800, 32).to(device)
    with pytest.raises(ValueError, match=r"^max_pairs: expected at most 900 pairs within eps = 0.5, got more; lower"):
        ops.jaccard_graph(x, 12, 4, eps=0.5, max_pairs=900)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("eps", [0.3, 0.9])
def test_the_bound_of_the_operator(unit_rows: UnitRows, device: torch.device, threads: int, eps: float) -> None:
    v = ops.k_reciprocal_encoding(clustered(unit_rows, 300, 16).to(device), 12, 4)
    operator, before = torch.ops.ise_fast.jaccard_graph, torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for begin, end in ((0, 300), (7, 190), (5, 5)):
            arguments = (v.indptr, v.indices, v.values, eps, begin, end)
            pairs = operator(*arguments)[1].numel()
            assert operator(*arguments, pairs)[1].numel() == pairs
            if pairs:
                with pytest.raises(ValueError, match=f"^max_pairs: expected at most {pairs - 1} pairs within eps"):
                    operator(*arguments, pairs - 1)
    finally:
        torch.set_num_threads(before)


def test_the_default_bound_grows_with_the_rows() -> None:
    assert most_pairs(None, 30) == most_pairs(None, 100_000) == 100_000_000
    assert most_pairs(None, 3_000_000) == 1_500_000_000
    assert most_pairs(7, 3_000_000) == 7


@pytest.mark.parametrize(("value", "error"), [(0, ValueError), (-3, ValueError), (2.5, TypeError), ("9", TypeError)])
def test_a_bound_that_is_none(unit_rows: UnitRows, value: Any, error: type[Exception]) -> None:
    for module in (ops, reference):
        with pytest.raises(error, match=r"^max_pairs: expected an integer"):
            module.jaccard_graph(unit_rows(9, 4), 3, 1, eps=0.5, max_pairs=value)


def test_the_operator_refuses_a_negative_bound(unit_rows: UnitRows) -> None:
    v = ops.k_reciprocal_encoding(unit_rows(9, 4), 3, 1)
    with pytest.raises(ValueError, match=r"^max_pairs: expected at least 0, got -1"):
        torch.ops.ise_fast.jaccard_graph(v.indptr, v.indices, v.values, 0.5, 0, 9, -1)


def copies_of(unit_rows: UnitRows, distinct: int, seed: int) -> Tensor:
    """Clustered rows; some of them 2 to 40 times, anywhere."""
    generator = torch.Generator().manual_seed(seed)
    x = clustered(unit_rows, distinct, 12, seed)
    times = torch.randint(1, 5, (distinct,), generator=generator)
    times[::7] = 40
    x = x.repeat_interleave(times, 0)
    return x[torch.randperm(x.shape[0], generator=generator)]


@pytest.mark.parametrize(("k1", "k2"), [(20, 6), (7, 1), (30, 3)])
@pytest.mark.parametrize("min_samples", [1, 2, 4, 50])
@pytest.mark.parametrize("eps", [0.0, 0.5, 0.8])
def test_leaving_copies_out_changes_no_label(
    unit_rows: UnitRows, device: torch.device, monkeypatch: pytest.MonkeyPatch, k1: int, k2: int, min_samples: int,
    eps: float,
) -> None:  # fmt: skip
    monkeypatch.setattr(_copies, "USUAL_TERMS", -1)  # a search for copies, however few there are
    left_out = 0
    for seed in (0, 1):
        x = copies_of(unit_rows, 40, seed).to(device)
        whole = ops.jaccard_graph(x, k1, k2, eps=eps)
        expected = ops.dbscan(whole, eps, min_samples)
        graph, twin = distinct_jaccard_graph(x, k1, k2, eps=eps, min_samples=min_samples, max_pairs=None)
        found = ops.dbscan(graph, eps, min_samples)
        if twin is not None:
            left_out += whole.values.numel() - graph.values.numel()
            found = type(found)(found.labels[twin], found.core_mask[twin])
        assert found.labels.equal(expected.labels)
        assert found.core_mask.equal(expected.core_mask)
    assert left_out > 0 or min_samples == 50 or eps == 0


@pytest.mark.parametrize("distinct", [1, 3, 7])
def test_many_copies_need_few_pairs(unit_rows: UnitRows, device: torch.device, distinct: int) -> None:
    n = 3000
    x = unit_rows(distinct, 8)[torch.arange(n) % distinct].to(device)
    graph, twin = distinct_jaccard_graph(x, 30, 6, eps=0.6, min_samples=4, max_pairs=5 * n)
    assert twin is not None
    assert twin.equal(torch.arange(n, device=device) % distinct)
    assert graph.values.numel() == n + distinct * (4 * 4 - 4)  # the diagonal, and the pairs of four copies
    labels = ops.dbscan(graph, 0.6, 4).labels[twin]
    assert labels.cpu().equal(torch.arange(n) % distinct)


def test_good_features_are_not_searched_for_copies(unit_rows: UnitRows) -> None:
    x = clustered(unit_rows, 2000, 16)
    v = ops.k_reciprocal_encoding(x, 20, 6)
    parts = (v.indptr, v.indices, v.values)
    assert _copies.leave_out_copies(parts, 4) == (parts, None)
    graph, twin = distinct_jaccard_graph(x, 20, 6, eps=0.6, min_samples=4, max_pairs=None)
    assert twin is None
    assert same_bits(graph, ops.jaccard_graph(x, 20, 6, eps=0.6))


def encoding() -> tuple[Tensor, Tensor, Tensor]:
    """Rows 0 and 4 are equal; 2 has their columns, 1 a part of them; 3 and 5 are empty."""
    columns = torch.tensor([0, 1, 1, 0, 1, 0, 1], dtype=torch.int32)
    return torch.tensor([0, 2, 3, 5, 5, 7, 7]), columns, torch.tensor([0.5, 0.5, 1.0, 0.5, 0.25, 0.5, 0.5])


def test_equal_rows_have_equal_columns_and_weights(device: torch.device) -> None:
    twin, rank = _copies.first_equal_rows(tuple(part.to(device) for part in encoding()))
    assert twin.tolist() == [0, 1, 2, 3, 0, 3]
    assert rank.tolist() == [0, 0, 0, 0, 1, 1]


def test_rows_whose_hashes_meet_are_no_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_copies, "_mix", torch.zeros_like)
    twin, rank = _copies.first_equal_rows(encoding())
    assert twin.tolist() == [0, 1, 2, 3, 4, 5]
    assert rank.tolist() == [0] * 6
