from __future__ import annotations

import math

import pytest
import torch
from golden_data import load, names
from torch import Tensor

from ise_fast import ops, reference
from ise_fast.types import RankMetrics


def random_case(seed: int, queries: int, gallery: int, levels: int) -> tuple[Tensor, ...]:
    """Distances on a grid of `levels` values: few levels, many ties."""
    generator = torch.Generator().manual_seed(seed)

    def draw(high: int, *size: int) -> Tensor:
        return torch.randint(high, size, generator=generator)

    distance = draw(levels, queries, gallery) / levels
    return distance, draw(6, queries), draw(6, gallery), draw(3, queries), draw(3, gallery)


def assert_same(found: RankMetrics, expected: RankMetrics) -> None:
    assert found.mAP == pytest.approx(expected.mAP, rel=1e-13)
    assert found.mINP == pytest.approx(expected.mINP, rel=1e-13)
    assert found.cmc.equal(expected.cmc)
    torch.testing.assert_close(found.ap, expected.ap, rtol=1.2e-7, atol=0, equal_nan=True)


@pytest.mark.parametrize("name", names("eval"))
def test_golden(name: str) -> None:
    g = load(name)
    people = (g["query_ids"], g["gallery_ids"], g["query_cams"], g["gallery_cams"])
    for distance, prefix in ((g["distance"], ""), (g["reranked"], "reranked_")):
        found = ops.rank_metrics(distance, *people)
        assert found.mAP == pytest.approx(g[f"{prefix}mAP"], abs=1e-12)
        torch.testing.assert_close(found.cmc.double(), g[f"{prefix}cmc"], rtol=0, atol=3e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("queries", "gallery"), [(1, 31), (33, 257), (8, 40)])
@pytest.mark.parametrize("levels", [1, 4, 1 << 20])
def test_equals_reference(device: torch.device, queries: int, gallery: int, levels: int, dtype: torch.dtype) -> None:
    case = [tensor.to(device) for tensor in random_case(queries + levels, queries, gallery, levels)]
    case[0] = case[0].to(dtype) - 0.5
    for arguments in (case, case[:3]):
        for max_rank in (1, 50, 300):
            assert_same(
                ops.rank_metrics(*arguments, max_rank=max_rank), reference.rank_metrics(*arguments, max_rank=max_rank)
            )


def test_minus_zero_ties_with_zero() -> None:
    ids = torch.tensor([0, 1])
    for distance in ([[-0.0, 0.0]], [[0.0, -0.0]]):
        found = ops.rank_metrics(torch.tensor(distance), torch.tensor([1]), ids)
        assert found.cmc[:2].tolist() == [0, 1]
        assert found.mAP == 0.5


def test_queries_without_a_match_are_skipped() -> None:
    found = ops.rank_metrics(torch.tensor([[0.1, 0.2], [0.1, 0.2]]), torch.tensor([9, 1]), torch.tensor([0, 1]))
    assert found.ap[0].isnan()
    assert found.ap[1] == 0.5
    assert found.cmc[:2].tolist() == [0, 1]


def test_strided_input_and_threads_give_the_same_bits() -> None:
    distance, *people = random_case(5, 29, 66, 16)
    first = ops.rank_metrics(distance, *people)
    strided = ops.rank_metrics(distance.T.contiguous().T, *(p.repeat_interleave(2)[::2] for p in people))
    before = torch.get_num_threads()
    results = [strided]
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            results.append(ops.rank_metrics(distance, *people))
    finally:
        torch.set_num_threads(before)
    for other in results:
        assert (other.mAP, other.mINP) == (first.mAP, first.mINP)
        assert other.cmc.equal(first.cmc)
        assert other.ap.nan_to_num(-1).equal(first.ap.nan_to_num(-1))


@pytest.mark.parametrize("cameras", [True, False])
def test_opcheck(cameras: bool) -> None:
    distance, *people = random_case(0, 5, 90, 8)  # every query has a match: opcheck takes no NaN for equal
    arguments = (distance, *(people if cameras else [*people[:2], None, None]), 10)
    torch.library.opcheck(torch.ops.ise_fast.rank_metrics.default, arguments)


def ids(*values: int) -> Tensor:
    return torch.tensor(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"distance": torch.zeros(3)}, r"distance: expected 2 dimensions, got shape \[3\]"),
        ({"distance": torch.tensor([[0, math.nan]])}, "distance: expected finite values, got NaN or infinity in row 0"),
        ({"distance": torch.tensor([[-math.inf, 1]])}, "distance: expected finite values"),
        ({"distance": torch.zeros(1, 2).half()}, "distance: expected float32, got float16"),
        ({"query_ids": ids(1, 2)}, r"query_ids: expected size 1 in dimension 0, got shape \[2\]"),
        ({"gallery_ids": ids(1)}, r"gallery_ids: expected size 2 in dimension 0, got shape \[1\]"),
        ({"gallery_ids": torch.zeros(2)}, "gallery_ids: expected int64, got float32"),
        ({"gallery_ids": ids(2, 2)}, "query_ids: expected at least one query with a match"),
        ({"query_cams": ids(0)}, "gallery_cams: expected cameras for query and gallery or for neither, got None"),
        ({"gallery_cams": ids(0, 0)}, "query_cams: expected cameras for query and gallery or for neither, got None"),
        ({"query_cams": ids(0), "gallery_cams": ids(0)}, "gallery_cams: expected size 2"),
        ({"query_cams": ids(0), "gallery_cams": ids(0, 0), "gallery_ids": ids(1, 1)}, "query_ids: expected at least"),
        ({"max_rank": 0}, r"max_rank: expected an integer in \[1, 1048576\], got 0"),
        ({"max_rank": 1 << 40}, r"max_rank: expected an integer in \[1, 1048576\]"),
        (
            {"distance": torch.zeros(0, 2), "query_ids": torch.zeros(0, dtype=torch.int64)},
            "query_ids: expected at least one query",
        ),
    ],
)
def test_bad_input_names_the_argument(change: dict[str, object], message: str) -> None:
    good = {"distance": torch.zeros(1, 2), "query_ids": ids(1), "gallery_ids": ids(1, 0)}
    ops.rank_metrics(**good)
    with pytest.raises(ValueError, match=f"^{message}"):
        ops.rank_metrics(**good | change)
