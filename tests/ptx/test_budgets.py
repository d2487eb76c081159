"""What every operator launches, moves and multiplies stays within its budget, and so does its growth."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from typing import Any

import pytest

from benchmarks.profile import budgets, growth, model
from benchmarks.profile.counts import Counts, Kernel, Line
from benchmarks.profile.interpreter import NO_NVCC, NVCC, ROOT
from benchmarks.profile.predict import Measured
from benchmarks.profile.report import markdown, profile
from benchmarks.profile.workloads import TOGETHER, WORKLOADS


@pytest.mark.skipif(not NVCC, reason=NO_NVCC)
def test_no_count_is_above_its_budget() -> None:
    """docs/kernels.md tells how to read a failure, and how a budget is lowered."""
    assert budgets.exceeded(budgets.load(), budgets.count_all()) == []


def line(at: str, kind: str, warps: int, **more: int) -> Line:
    nothing = {"lanes": 32 * warps, "sectors": 0, "used": 0, "waves": 0, "divided": 0, "meetings": 0, "bytes": 4}
    return Line(at, kind, warps, **{**nothing, **more})


def counts(rows: int, per_row: int, **change: Any) -> Counts:
    """One kernel that reads `per_row` words for each of its rows."""
    loads = line("a.cuh:7", "load global", rows * per_row, sectors=4 * rows * per_row, used=128 * rows * per_row)
    lines = (loads, line("a.cuh:9", "float32", rows * per_row), line("a.cuh:9", "move", 5 * rows))
    kernel = Kernel("look", 1, rows, 8 * rows, 4 * rows, 4 * rows, 500 * per_row, 500 * per_row * rows, lines)
    launch = {"kind": "launch", "name": "look", "grid_x": rows, "grid_y": 1, "grid_z": 1, "threads": 256}
    return replace(Counts(2, 4096, (launch,), {"look": kernel}), **change)


def operator(per_row: Any) -> budgets.Operator:
    runs = [counts(shape["N"], per_row(shape["N"])) for shape in budgets.shapes_of({"N": 100})]
    return budgets.gather({"N": 100}, runs)


def test_budgets_are_kept_and_exceeded() -> None:
    linear = operator(lambda n: 10)
    held = budgets.lowered({}, {"knn": linear})
    assert budgets.exceeded(held, {"knn": linear}) == []
    more = budgets.exceeded(held, {"knn": operator(lambda n: 11)})
    assert any("knn: look: 1,100 requests, budget 1,000, most at a.cuh:7" in text for text in more)
    quadratic = budgets.exceeded(held, {"knn": operator(lambda n: n // 10)})  # the same at the small size
    assert any("look: instructions grow as N^2.00, budget 1.00, fastest at a.cuh:" in text for text in quadratic)
    again = replace(linear, small=replace(linear.small, events=linear.small.events * 2))
    assert "knn: launches: 2, budget 1" in budgets.exceeded(held, {"knn": again})
    assert "has no budget" in budgets.exceeded({}, {"knn": linear})[0]


def test_budgets_only_go_down() -> None:
    held = budgets.lowered({}, {"knn": operator(lambda n: 10)})
    lower = budgets.lowered(held, {"knn": operator(lambda n: 8)})
    assert lower["knn"]["small"]["kernels"]["look"]["requests"] == 800
    assert budgets.lowered(lower, {"knn": operator(lambda n: 12)}) == lower


def test_growth_is_found_in_sums_of_powers() -> None:
    shapes = growth.shapes_to_count({"N": 100, "d": 8})
    values = [7.0 * s["N"] ** 2 + 300 * s["N"] + 3 * s["N"] * s["d"] for s in shapes]
    target = {"N": 10_000, "d": 2048}
    exact = 7.0 * 10_000**2 + 300 * 10_000 + 3 * 10_000 * 2048
    assert growth.predict(shapes, values, target) == pytest.approx(exact, rel=1e-3)
    assert growth.exponent(100, 400) == 2


def test_growth_is_found_in_the_terms_that_a_workload_names() -> None:
    terms = ("1", "Q", "N", "Q*N", "Q*log N")
    shapes = growth.shapes_to_count({"Q": 4, "N": 1024}, terms)
    assert {"Q": 4, "N": 4096} in shapes
    values = [5.0 * s["Q"] * s["N"] + 900 * s["Q"] * math.log2(s["N"]) for s in shapes]
    target = {"Q": 10**6, "N": 10**6}
    exact = 5e12 + 900e6 * math.log2(10**6)
    assert growth.predict(shapes, values, target, terms) == pytest.approx(exact, rel=1e-3)


def test_growth_is_found_in_the_logarithm_of_a_quotient() -> None:
    """What grows with the number of blocks of T rows as their cuts do, and no more."""
    terms = ("1", "N", "N^2", "N*log N/T")
    shapes = growth.shapes_to_count({"N": 1024, "T": 256}, terms)
    values = [60.0 * s["N"] * math.log2(s["N"] / s["T"]) for s in shapes]
    found = growth.predict(shapes, values, {"N": 10**6, "T": 4096}, terms)
    assert found == pytest.approx(60e6 * math.log2(10**6 / 4096), rel=1e-3)


def test_what_is_no_sum_grows_by_its_exponents() -> None:
    """A longest warp that does not depend on the number of rows: noise of a thousandth stays a thousandth."""
    shapes = growth.shapes_to_count({"Q": 4, "N": 100}, ("1", "Q*N", "log N"))
    values = [7.0 * s["N"] * (1.001 if s["Q"] > 4 else 1) for s in shapes]
    assert growth.power_law(shapes, values, {"Q": 10**6, "N": 10**6}) == pytest.approx(7e6, rel=0.03)


def test_the_longest_block_grows_with_what_it_loops_over() -> None:
    """A thousand clocks that do not depend on the width, ten for each column, and a little more among more blocks."""
    shapes = growth.shapes_to_count({"B": 32, "d": 64})
    clocks = [(1000.0 + 10 * s["d"]) * (1.1 if s["B"] > 32 else 1) for s in shapes]
    blocks = [float(s["B"]) for s in shapes]
    wide = growth.longest(shapes, clocks, blocks, {"B": 32, "d": 2048})
    assert wide == pytest.approx(1000 + 10 * 2048, rel=0.01)
    assert wide < growth.longest(shapes, clocks, blocks, {"B": 4096, "d": 2048}) < 1.5 * wide


@pytest.mark.parametrize("size", ["small", "large"])
def test_labels_wait_for_the_device_four_times_after_the_neighbours(size: str) -> None:
    """In all for six, but that rows of the search are in doubt at these sizes, which takes one more. What an operator
    counts is held to its budget above."""
    held = budgets.load()
    search, *others = (held[name][size]["read_backs"] for name in TOGETHER["features to labels"])
    assert sum(others) <= 4
    assert search + sum(others) <= 6 + 1


def test_every_cuda_operator_has_a_budget() -> None:
    """A new operator needs a workload in benchmarks/profile/workloads, and its budget (docs/kernels.md)."""
    sources = "".join(path.read_text() for path in (ROOT / "csrc" / "cuda").glob("*.cu"))
    operators = set(re.findall(r'm\.impl\("(\w+)"', sources))
    assert {"knn", "soft_nce_loss", "cycle_positives"} <= operators
    held = {name for budget in budgets.load().values() for name in budget["operators"]}
    assert operators - held == set()
    assert set(budgets.load()) == set(WORKLOADS)


def test_time_is_that_of_the_scarcest_resource() -> None:
    gpu = model.GPUS["H100"]
    need = model.Resources(launches=1, blocks=1320, memory_bytes=3e9, issued=1e6, float64=1e3)
    assert model.kernel_seconds(need, gpu) == (pytest.approx(1e-3 + model.LAUNCH), "memory")
    slow = replace(need, float64=1e9)
    expected = 1e9 * 32 / gpu.float64 / gpu.multiprocessors / gpu.clock
    assert model.kernel_seconds(slow, gpu) == (pytest.approx(expected + model.LAUNCH), "float64")
    assert model.kernel_seconds(replace(slow, blocks=1), gpu)[0] == pytest.approx(132 * expected + model.LAUNCH)
    waits = replace(need, occupied=1e9)
    assert model.kernel_seconds(waits, gpu) == (
        pytest.approx(1e9 / gpu.multiprocessors / gpu.clock + model.LAUNCH),
        "latency",
    )
    chained = replace(need, longest_block=1e9)
    assert model.kernel_seconds(chained, gpu) == (pytest.approx(1e9 / gpu.clock + model.LAUNCH), "one block")
    assert model.product_seconds(650e12, 0, "float16", gpu) == pytest.approx(1)


def test_products_with_rows_that_are_not_aligned_take_longer() -> None:
    gpu = model.GPUS["H100"]
    call = {"m": 4096, "n": 4096, "k": 4096, "bytes": 2, "pitch_a": 4096, "pitch_b": 4096, "pitch_out": 4096}
    whole = model.other_seconds(_products(call), gpu)["products"] - model.LAUNCH
    for change in ({"pitch_a": 4100}, {"pitch_b": 4097}, {"pitch_out": 4098}):
        found = model.other_seconds(_products({**call, **change}), gpu)["products"] - model.LAUNCH
        assert found == pytest.approx(model.UNALIGNED * whole)
    assert model.unaligned({**call, "pitch_a": 4104, "pitch_out": 4100}) == []


def _products(call: dict[str, int]) -> Counts:
    return Counts(0, 0, ({"kind": "product", "name": "float16", **call},), {})


def test_profile_names_kernels_lines_and_the_floor() -> None:
    shapes = growth.shapes_to_count({"N": 64}, WORKLOADS["dbscan"].terms)
    text = profile(Measured("dbscan", tuple(shapes), tuple(counts(s["N"], 10) for s in shapes), {}), model.GPUS["H100"])
    assert "look" in text
    assert "a.cuh:7" in text
    assert "4.00 sectors a request, 100% used" in text
    assert "N=1,000,000, predicted for H100 SXM" in text
    assert "no clock" in text


def test_the_table_adds_up_what_users_call_as_one() -> None:
    parts = TOGETHER["features to labels"]
    all_measured = []
    for name in parts:
        shapes = growth.shapes_to_count(WORKLOADS[name].small, WORKLOADS[name].terms)
        runs = tuple(counts(shape["N"], 10) for shape in shapes)
        all_measured.append(Measured(name, tuple(shapes), runs, {}))
    rows = markdown(all_measured).splitlines()
    assert sum(row.startswith("| features to labels | N=1,000,000") for row in rows) == 1
    assert len(rows) == 2 + sum(len(WORKLOADS[name].published) for name in parts) + 3
    assert markdown(all_measured[:2]).count("features to labels") == 0
