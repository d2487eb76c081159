"""The clock beside the predictions: which runs there are, and the table of a record. No GPU is needed."""

from __future__ import annotations

import pytest
import torch

from benchmarks.profile import clock, report
from benchmarks.profile.predict import Measured
from benchmarks.profile.workloads import WORKLOADS
from benchmarks.profile.workloads.base import unit_rows


def test_runs_begin_with_the_fewest_rows_and_end_at_the_limit() -> None:
    runs = clock.runs(list(WORKLOADS), 40_000)
    sizes = [clock.largest(shape) for _, shape in runs]
    assert sizes == sorted(sizes)
    assert sizes[-1] == 32_621
    assert {name for name, _ in runs} >= {"knn", "ise_head", "dbscan"}
    assert clock.runs(["knn"], 10) == []


def test_inputs_are_made_on_the_device_in_force() -> None:
    assert torch.equal(unit_rows(4, 8), unit_rows(4, 8))
    with torch.device("meta"), pytest.raises(RuntimeError, match="META"):  # which has no generator
        unit_rows(4, 8)


def test_table_has_a_row_for_what_was_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Predicted:
        seconds, floor = 2e-3, 1e-3

    monkeypatch.setattr(report, "predict", lambda measured, shape, gpu: Predicted)
    timed = {
        "operator": "knn",
        "shape": {"N": 5},
        "seconds": [4e-3, 3e-3, 5e-3],
        "kernels": {"a": [2, 1e-3], "b": [1, 2e-3]},
    }
    failed = {"operator": "dbscan", "shape": {"N": 5}, "error": "no room"}
    of = {name: Measured(name, (), (), {}) for name in ("knn", "dbscan")}
    lines = report.clock_table({"rows": [timed, failed]}, of, report.GPUS["H100"]).split("\n")
    assert lines[2:] == ["| `knn` | N=5 | 4 ms | 3 ms | - | 2 ms | 1.50 | 1 ms | 4.0 |"]
