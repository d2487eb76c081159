"""Loss steps that are recorded and replayed, without a GPU (tests/ops/test_cuda.py has them on one)."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
from loss_steps import RECORDED, Calls, NoReadBacks, batches, begin, make_step, results
from torch import Tensor

from ise_fast.engine import assemble
from ise_fast.engine.loss_step import LossStep
from ise_fast.engine.step_graph import WARM_UP, GraphedLossStep, obstacle
from ise_fast.methods import METHODS, Mix, Objective
from ise_fast.methods.softened import soften
from ise_fast.nn import losses
from ise_fast.train import main
from tests.engine.conftest import FLAGS, assert_same_weights, final_weights

CUDA, CPU = torch.device("cuda"), torch.device("cpu")


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without what reads numbers on a CPU only."""
    monkeypatch.setattr(losses, "warn_unless_unit_rows", lambda name, x: False)


def graphed(step: LossStep) -> tuple[GraphedLossStep, Calls]:
    calls = Calls(step.memory)
    return GraphedLossStep(step, calls), calls


def assert_same(found: list[Tensor], expected: list[Tensor]) -> None:
    assert len(found) == len(expected)
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("name", RECORDED)
def test_replayed_steps_have_the_bits_of_plain_ones(name: str) -> None:
    plain, step = make_step(name), make_step(name)
    if step.objective.temperature is not None:
        for each in (plain, step):
            each.objective = soften(each.objective, mixed=False, smoothing=0.1)
    loss, calls = graphed(step)
    assert_same(results(loss, batches(step, WARM_UP + 4)), results(plain, batches(plain, WARM_UP + 4)))
    assert (calls.warm, calls.records, calls.replays) == (WARM_UP, 1, 4)


def test_several_supports_and_no_supports_in_the_contrast() -> None:
    for settings in ({"supports": 3, "memory_mode": "momentum"}, {"contrast_supports": False}):
        plain, step = make_step("ise", **settings), make_step("ise", **settings)
        loss, calls = graphed(step)
        assert_same(results(loss, batches(step, 6)), results(plain, batches(plain, 6)))
        assert calls.replays == 3


@pytest.mark.parametrize("name", [*sorted(METHODS.keys() - set(RECORDED)), "kalman"])
def test_methods_with_an_obstacle_do_read_back(name: str) -> None:
    step = make_step("cluster-contrast", memory_mode="kalman") if name == "kalman" else make_step(name)
    assert step.memory.capture_obstacle or step.objective.capture_obstacle
    made = batches(step, 1)[0]
    with NoReadBacks(), pytest.raises(RuntimeError, match="not permitted"):
        step(*made)


def test_a_new_epoch_shape_or_memory_is_recorded_anew() -> None:
    plain, step = make_step("ise"), make_step("ise")
    loss, calls = graphed(step)

    def run(epoch: int = 6, rows: int = 16) -> int:
        before = calls.records
        options = {"epoch": epoch, "rows": rows}
        assert_same(results(loss, batches(step, 5, **options)), results(plain, batches(plain, 5, **options)))
        return calls.records - before

    assert run() == 1
    assert run() == 0
    assert run(epoch=7) == 1
    assert run(epoch=7, rows=8) == 1
    for each in (plain, step):
        begin(each.memory, 0, CPU, seed=1)
    assert run(epoch=7, rows=8) == 1
    loss.release()
    assert run(epoch=7, rows=8) == 1


def test_mixed_batches_run_as_they_are() -> None:
    plain, step = make_step("ise"), make_step("ise")
    for each in (plain, step):
        each.objective = soften(each.objective, mixed=True, smoothing=0.0)
    loss, calls = graphed(step)
    found, expected = [], []
    for i, (rows, batch, progress) in enumerate(batches(step, 9)):
        mix = Mix(torch.arange(16).flip(0), 0.7) if i % 3 == 1 else None
        made = [(rows, batch._replace(mix=mix), progress)]
        found, expected = found + results(loss, made), expected + results(plain, made)
    assert_same(found, expected)
    assert (calls.warm, calls.replays) == (3, 3)


def test_a_recording_that_fails_is_warned_of_once(caplog: pytest.LogCaptureFixture) -> None:
    plain, step = make_step("cap"), make_step("cap")
    loss, calls = graphed(step)
    assert_same(results(loss, batches(step, 8)), results(plain, batches(plain, 8)))
    assert calls.records == 1
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.message == (
        "--cuda-graph: the loss step could not be recorded (operation not permitted when stream is capturing: "
        "aten._unique2.default); it runs launch by launch"
    )


def test_errors_of_the_step_are_not_taken_for_failed_recordings() -> None:
    step = make_step("ise")
    loss, _ = graphed(step)
    results(loss, batches(step, WARM_UP))
    rows, batch, progress = batches(step, 1)[0]
    with pytest.raises(ValueError, match="progress"):
        loss(rows, batch, progress - 2)


@pytest.mark.parametrize(
    ("asked", "device", "name", "settings", "why", "level"),
    [
        (True, CUDA, "ise", {}, None, None),
        (False, CUDA, "ise", {}, "--no-cuda-graph", None),
        (True, CPU, "ise", {}, "the loss step runs on the CPU", logging.DEBUG),
        (True, CUDA, "cap", {}, "the loss counts the cameras of a batch on the host", logging.INFO),
        (True, CUDA, "ise", {"memory_mode": "kalman"}, "--memory-mode kalman picks the centroids.*", logging.INFO),
    ],
)
def test_why_steps_are_not_recorded(
    asked: bool, device: torch.device, name: str, settings: dict[str, str], why: str | None, level: int | None,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    caplog.set_level(logging.DEBUG, "ise_fast")
    step = make_step(name, **settings)
    found = obstacle(asked, device, step.objective, step.memory)
    assert found == why or (why is not None and found is not None and found.startswith(why.removesuffix(".*")))
    said = [(record.levelno, record.message) for record in caplog.records]
    assert said == ([] if level is None else [(level, f"--cuda-graph: not used, {found}")])


def test_a_method_that_says_nothing_is_not_recorded() -> None:
    class Own(Objective):  # type: ignore[type-arg]
        pass

    assert obstacle(True, CUDA, Own(), make_step("ise").memory) == "its loss does not say that it can be recorded"


def test_a_run_that_replays_ends_with_the_same_weights(
    data_dir: Path, straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Calls] = []

    def replaying(step: LossStep, _: object) -> GraphedLossStep:
        loss, calls = graphed(step)
        made.append(calls)
        return loss

    monkeypatch.setattr(assemble, "obstacle", lambda *_: None)
    monkeypatch.setattr(assemble, "CudaRecorder", lambda: None)
    monkeypatch.setattr(assemble, "GraphedLossStep", replaying)
    assert main([*FLAGS, "--data-dir", str(data_dir), "--logs-dir", str(tmp_path)]) == 0
    assert_same_weights(final_weights(tmp_path), final_weights(straight))
    assert [(calls.records, calls.replays) for calls in made] == [(2, 2)]
