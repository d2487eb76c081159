"""Squared distances by slices of float32 rows (csrc/cuda/slices.cuh): exact sums, a proven error, and the bits of
re-ranking, which rest on both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import row_kinds
import torch
from torch import Tensor

Products = Callable[..., None]


@pytest.fixture
def blocks(set_schedule: Callable[[int], None], library: Any) -> Any:
    """torch.ops.ise_fast_blocks under one schedule."""
    set_schedule(0)
    return torch.ops.ise_fast_blocks


def squared_distances(a: Tensor, b: Tensor) -> Tensor:
    """In the order of csrc/math/distance.h: 32 lanes, then a tree."""
    d = a.size(1)
    terms = (a.double()[:, None] - b.double()) ** 2
    terms = torch.nn.functional.pad(terms, (0, -d % 32)).unflatten(2, (-1, 32))
    lanes = torch.zeros(len(a), len(b), 32, dtype=torch.float64)
    for row in range(terms.size(2)):
        lanes += terms[:, :, row]
    while lanes.size(2) > 1:
        half = lanes.size(2) // 2
        lanes = lanes[:, :, :half] + lanes[:, :, half:]
    return lanes[:, :, 0]


def open_pairs(value: Tensor, error: Tensor, furthest: Tensor) -> Tensor:
    return ((value - error) / furthest).float() != ((value + error) / furthest).float()


@pytest.mark.parametrize("guard_bits", [-1, 0])
@pytest.mark.parametrize("kind", row_kinds.KINDS)
def test_the_error_of_nearly_squared_distances_holds(
    blocks: Any, set_products: Products, kind: str, guard_bits: int
) -> None:
    x = row_kinds.rows(kind, 80, 33)[::4].clone()
    set_products(guard_bits=guard_bits)
    value, error, planes = blocks.nearly_squared(x, 7)
    assert ((value - squared_distances(x[:7], x[7:])).abs() <= error).all()
    assert planes[:, :, :13].eq(planes[:, :, :13].round()).all()
    assert planes[:, :, :13].abs().max() <= 2**24


@pytest.mark.parametrize("d", [1, 2, 700, 1100, 2048, 4100, 9000])
def test_few_pairs_of_rows_stay_open(blocks: Any, set_products: Products, d: int) -> None:
    """Levels of one sum and of several, sums of several pairs of slices and of parts of one."""
    x = torch.randn(7, d, generator=torch.Generator().manual_seed(d))
    x[3] *= 1e-20
    set_products(guard_bits=0)
    value, error, planes = blocks.nearly_squared(x, 3)
    truth = squared_distances(x[:3], x[3:])
    assert ((value - truth).abs() <= error).all()
    assert (error <= 2**-29 * (x[:3].double().norm(dim=1)[:, None] + x[3:].double().norm(dim=1)) ** 2).all()
    assert len(planes) == {1: 5, 2: 5, 700: 5, 1100: 7, 2048: 9, 4100: 30, 9000: 45}[d]


@pytest.mark.parametrize("d", [64, 2048, 4096])
def test_sums_stay_exact_where_they_are_largest(blocks: Any, set_products: Products, d: int) -> None:
    """Numbers of which all slices are nearly as large as they come: 31, 63, 61, 56."""
    x = torch.full((4, d), 31 + 63 / 128 + 61 / 128**2 + 56 / 128**3)
    x[1:, ::3] -= 2**-14
    set_products(guard_bits=0)
    value, error, planes = blocks.nearly_squared(x, 2)
    assert ((value - squared_distances(x[:2], x[2:])).abs() <= error).all()
    largest = planes[:, :, :2].abs().max()
    assert 2**23 * min(d / 2048, 1) < largest <= 2**24
    set_products(guard_bits=20)
    assert blocks.nearly_squared(x, 2)[2][:, :, :2].equal(planes[:, :, :2])


def test_a_row_whose_length_is_in_one_number(blocks: Any) -> None:
    """The largest number that S1 can have."""
    x = torch.eye(4, 4100) * (2 - 2**-23)
    value, error, planes = blocks.nearly_squared(x, 2)
    assert ((value - squared_distances(x[:2], x[2:])).abs() <= error).all()
    x = x[:1].repeat(4, 1)
    value, error, planes = blocks.nearly_squared(x, 2)
    assert (value.abs() <= error).all()
    assert planes[:, :, :2].max() == 2048**2


@pytest.mark.parametrize("turned", [False, True])
def test_what_the_last_slice_leaves_is_in_the_error(blocks: Any, turned: bool) -> None:
    """Whole numbers, of which nothing is left, and a row of small numbers that all end half a unit behind S5."""
    whole, small = torch.ones(1, 64), torch.full((1, 64), 2**-18 * (1 + 0.49 * 2**-17))
    small[0, 0] = 1
    x = torch.cat([small, whole] if turned else [whole, small])
    value, error, _ = blocks.nearly_squared(x, 1)
    off = (value - squared_distances(x[:1], x[1:])).abs()
    assert error / 3 < off
    assert off <= error


def test_among_random_rows_one_pair_of_a_hundred_is_open_and_among_equal_ones_all(blocks: Any) -> None:
    x = row_kinds.rows("isotropic", 90, 64)
    value, error, _ = blocks.nearly_squared(x, 30)
    assert 0 < open_pairs(value, error, value.amax(1, keepdim=True)).float().mean() < 0.02
    value, error, _ = blocks.nearly_squared(x[:1].repeat(6, 1), 2)
    assert open_pairs(value, error, torch.full((2, 1), 3.0)).all()


def near_ties(d: int, count: int) -> Tensor:
    """A query, a row far from it, and rows of which the distance to the query over the furthest one lies between two
    float32 numbers, so nearly in the middle that an error of 2^-40 matters."""
    draw = torch.Generator().manual_seed(d)
    query, far = torch.randn(1, d, generator=draw), 40 * torch.ones(1, d)
    many = torch.randn(200_000, d, generator=draw)
    scaled = squared_distances(query, many)[0] / squared_distances(query, far)[0]
    steps = torch.frexp(scaled).mantissa * 2**24
    chosen = ((steps - steps.floor()) - 0.5).abs().argsort()[:count]
    return torch.cat([query, far, many[chosen]])


@pytest.mark.parametrize("guard_bits", [-1, 0, 2])
@pytest.mark.parametrize("d", [3, 33])
def test_re_ranking_of_distances_between_two_numbers(
    blocks: Any, set_products: Products, d: int, guard_bits: int
) -> None:
    x = near_ties(d, 60)
    value, error, _ = blocks.nearly_squared(x, 1)
    assert open_pairs(value, error, value.amax())[0, 1:].all()
    nn = torch.ops.ise_fast.knn(x, 4)[1]
    set_products(guard_bits=guard_bits)
    for weight in (1.0, 0.5):
        arguments = (x, nn, 1, 2, weight)
        assert torch.ops.ise_fast_simt.re_ranking(*arguments, 16).equal(torch.ops.ise_fast.re_ranking(*arguments))


def test_a_tie_goes_to_the_even_number(blocks: Any) -> None:
    """(2^24 + k) / 2^26 for odd k, all of it without rounding."""
    small = torch.tensor([[4096.0, k**0.5 if k in (1, 9) else 0.0] for k in range(10)])
    x = torch.cat([torch.zeros(1, 2), torch.tensor([[8192.0, 0.0]]), small])
    nn = torch.ops.ise_fast.knn(x, 4)[1]
    for weight in (1.0, 0.5):
        arguments = (x, nn, 1, 2, weight)
        found = torch.ops.ise_fast_simt.re_ranking(*arguments, 0)
        assert found.equal(torch.ops.ise_fast.re_ranking(*arguments))
