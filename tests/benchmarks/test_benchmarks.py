"""The benchmark program itself: it runs, it refuses wrong results, it compares and renders records."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks import checks, record
from benchmarks.__main__ import main
from benchmarks.cases import CASES, Setting, head
from benchmarks.data import real_like_features
from benchmarks.measure import Case, PeakMemory, Variant, WrongResult, measure
from ise_fast import ops
from ise_fast.types import KNN, CSRGraph


@pytest.fixture
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without what only exact times need, a flushed cache and a collection of everything before each run, and without
    the figure of a training.
    """
    monkeypatch.setattr("benchmarks.measure._FLUSH_BYTES", 2**20)
    monkeypatch.setattr("benchmarks.measure.gc", SimpleNamespace(collect=lambda: 0))
    monkeypatch.setattr("ise_fast.engine.figure.draw_curves", lambda history, path: None)


@pytest.mark.usefixtures("_short")
def test_quick_mode_measures_every_case(tmp_path: Path) -> None:
    assert main(["--quick", "--device", "cpu", "--out", str(tmp_path)]) == 0
    lines = record.load(tmp_path / "results.json")["lines"]
    assert {entry["operator"].split(":")[0] for entry in lines} == set(CASES)
    assert all(v["seconds"] and min(v["seconds"]) > 0 for entry in lines for v in entry["variants"])
    text = (tmp_path / "results.md").read_text()
    assert all(f"### {name}" in text for name in CASES)
    assert "</svg>" in (tmp_path / "speed.svg").read_text()


@pytest.mark.usefixtures("_short")
def test_a_wrong_result_fails_the_run_and_shows_no_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    right = ops.knn

    def planted(x: torch.Tensor, k: int, **options: object) -> KNN:
        result = right(x, k, **options)
        result.indices[7, 3] = result.indices[7, 4]
        return result

    monkeypatch.setattr(ops, "knn", planted)
    assert main(["--quick", "--device", "cpu", "--only", "knn", "--out", str(tmp_path)]) == 1
    assert "wrong result: neighbours differ" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_every_variant_runs_once_to_warm_up_and_then_in_turn() -> None:
    calls: list[str] = []
    variants = [Variant(name, lambda name=name: calls.append(name)) for name in ("a", "b")]
    timings = measure(Case("x", {}, variants), rounds=3)
    assert calls == ["a", "b"] * 4
    assert [len(t.seconds) for t in timings] == [3, 3]


def test_processor_time_leaves_out_what_others_take() -> None:
    case = Case("x", {}, [Variant("waits", lambda: time.sleep(0.03))])
    (passed,), (used,) = measure(case, rounds=1), measure(case, rounds=1, clock=time.process_time)
    assert passed.median >= 0.03
    assert used.median < 0.03


def test_a_peer_that_does_not_compile_is_skipped_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("no compiler\nand more")

    monkeypatch.setattr(torch, "compile", lambda loss, dynamic: loss)
    setting, name = Setting(torch.device("cpu")), "torch.compile of the reference"
    assert head._compiled(abs, fails, setting, 1) == ({}, {name: "RuntimeError: no compiler"})
    runs, skipped = head._compiled(abs, lambda loss, x: loss(x), setting, -3)
    assert (runs[name](), skipped) == (3, {})


def test_peak_memory_sees_a_buffer_that_is_freed_again_and_reused() -> None:
    for _ in range(4):
        with PeakMemory(torch.device("cpu")) as peak:
            buffer = torch.ones(20 * 2**20, dtype=torch.uint8)
            for _ in range(10_000):  # until a sample has seen it, on a busy machine too
                buffer.add_(1)
                if peak._highest - peak._before > 18 * 2**20:
                    break
            del buffer
        assert 18 * 2**20 < peak.extra < 30 * 2**20


def test_labels_may_be_renamed_but_not_wrong() -> None:
    truth = torch.tensor([0, 0, 1, 1, -1] * 100)
    assert checks.same_labels(truth, truth, exact=True) == ""
    renamed = torch.tensor([1, 1, 0, 0, -1] * 100)
    assert checks.same_labels(truth, renamed, exact=False) == "same up to renaming"
    with pytest.raises(WrongResult):
        checks.same_labels(truth, renamed, exact=True)
    with pytest.raises(WrongResult, match="100 of 500 labels differ"):
        checks.same_labels(truth, torch.tensor([0, 0, 1, 1, 1] * 100), exact=False)


def test_graphs_may_differ_by_rounding_only() -> None:
    graph = ops.jaccard_graph(torch.nn.functional.normalize(torch.randn(40, 8)), 5, 2, eps=0.9)
    moved = [CSRGraph(graph.indptr, graph.indices, graph.values + by, graph.shape) for by in (5e-7, 2e-6)]
    assert checks.same_graph(graph, moved[0]) == ""
    with pytest.raises(WrongResult):
        checks.same_graph(graph, moved[1])
    with pytest.raises(WrongResult):
        checks.same_graph(graph, CSRGraph(graph.indptr, graph.indices.flip(0), graph.values, graph.shape))


def test_nan_never_passes() -> None:
    with pytest.raises(WrongResult):
        checks.close(torch.ones(3), torch.full((3,), torch.nan), tolerance=1.0)


def test_compare_gives_the_ratio_of_medians() -> None:
    def run(*seconds: float) -> dict[str, object]:
        variant = {"name": "fused", "seconds": list(seconds), "median_s": sorted(seconds)[1]}
        return {"lines": [{"operator": "knn", "shape": {"N": 5}, "variants": [variant]}]}

    text = record.compare(run(1.0, 1.1, 0.9), run(0.5, 0.4, 0.6))
    assert "| knn N = 5 | fused | 1 s | 500 ms | 0.50 |" in text
    assert "0.95 ~" in record.compare(run(1.0, 1.1, 0.9), run(0.95, 1.0, 0.9))


def test_a_file_that_is_no_record_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps([1]))
    with pytest.raises(ValueError, match=r"x.json: expected a record"):
        record.load(path)


def test_real_like_features_have_the_spectrum_of_the_network() -> None:
    """Unit rows keep 93 % of their energy in 64 and 96 % in 128 of 1,280 axes."""
    x = real_like_features(2000, 512, 40)
    assert torch.allclose(x.norm(dim=1), torch.ones(2000))
    energy = torch.linalg.svdvals(x).square().cumsum(0) / 2000
    assert 0.90 < energy[63] < 0.96
    assert 0.94 < energy[127] < 0.98
    assert real_like_features(9, 16, 2).equal(real_like_features(9, 16, 2))
