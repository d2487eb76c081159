"""The model of many GPUs, on counts that are made up."""

from __future__ import annotations

import mmap

import pytest

from benchmarks import scale
from benchmarks.profile import growth
from benchmarks.profile.counts import Counts, Kernel, Line
from benchmarks.profile.model import GPUS
from benchmarks.profile.predict import Measured, predict
from benchmarks.profile.workloads import WORKLOADS


def counts(loads: int) -> Counts:
    """One kernel that reads so many sectors of 32 bytes and does nothing else."""
    nothing = {"lanes": 32 * loads, "waves": 0, "divided": 0, "meetings": 0, "bytes": 4}
    line = Line("a.cuh:7", "load global", loads, sectors=4 * loads, used=128 * loads, **nothing)
    kernel = Kernel("look", 1, loads, 8 * loads, 4 * loads, 4 * loads, 1, 1, (line,))
    launch = {"kind": "launch", "name": "look", "grid_x": loads, "grid_y": 1, "grid_z": 1, "threads": 256}
    return Counts(2, 4096, (launch,), {"look": kernel})


def counted() -> dict[str, Measured]:
    """Operators that are linear in N, and a search that looks at all pairs."""
    found = {}
    for name in scale.COUNTED:
        shapes = growth.shapes_to_count(WORKLOADS[name].small, WORKLOADS[name].terms)
        runs = [counts(shape["N"] * shape.get("Q", 1)) for shape in shapes]
        found[name] = Measured(name, tuple(shapes), tuple(runs), {})
    return found


def test_products_grow_by_their_operations() -> None:
    """Small ones are bounded by bytes, and an operator's other terms hold no N^2 d."""
    shapes = growth.shapes_to_count(WORKLOADS["knn"].small, WORKLOADS["knn"].terms)
    call = {"kind": "product", "name": "float16", "bytes": 2}
    pitches = [{"pitch_a": shape["d"], "pitch_b": shape["d"], "pitch_out": shape["N"]} for shape in shapes]
    sizes = [{"m": shape["Q"], "n": shape["N"], "k": shape["d"]} for shape in shapes]
    calls = [{**call, **size, **pitch} for size, pitch in zip(sizes, pitches, strict=True)]
    runs = [Counts(2, 4096, (product,), {}) for product in calls]
    rows, width = 10**7, 2048
    found = predict(Measured("knn", tuple(shapes), tuple(runs), {}), {"Q": rows, "N": rows, "d": width}, GPUS["H100"])
    assert found.others["products"] == pytest.approx(2 * rows * rows * width / GPUS["H100"].half_flops, rel=0.01)


def test_the_search_takes_the_square_of_the_rows_and_the_rest_the_rows() -> None:
    found = counted()
    small, large = (scale.predict(rows, 256, 8, found) for rows in (10**7, 10**8))
    assert large.search / small.search == pytest.approx(100, rel=0.05)
    assert large.encoding / small.encoding == pytest.approx(10, rel=0.05)
    assert large.dbscan / small.dbscan == pytest.approx(10, rel=0.05)
    more = scale.predict(10**8, 256, 64, found)
    assert large.search / more.search == pytest.approx(8, rel=0.05)
    assert more.jaccard == pytest.approx(large.jaccard, rel=0.05)  # as many blocks more as there are fewer rows
    assert scale.predict(10**7, 256, 1, found).network == 0
    assert scale.sensible(256, found) == pytest.approx(10**7 / (scale.EXTRACTED * small.search * 8 / 10**7), rel=0.05)


def test_the_table_has_a_row_for_each_size() -> None:
    rows = [line for line in scale.table(counted()).splitlines() if line.startswith("| 1")]
    assert len(rows) == 18
    assert {row.count("|") for row in rows} == {11}


def test_memory_is_that_of_this_process_and_its_peak() -> None:
    scale._forget_peak()
    before = scale._memory("VmRSS")
    with mmap.mmap(-1, 64 << 20) as kept:  # what malloc gives may have been here before
        for _ in range(64):
            kept.write(bytes(1 << 20))
    assert 60 << 20 < scale._memory("VmHWM") - before < 120 << 20
