"""What only a GPU can show: streams, several devices, CUDA graphs, compiled steps, CuPy, repeated runs.

That CUDA gives the CPU's results is tested beside each operator, and on the host in tests/simt.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from loss_steps import RECORDED, begin, make_step, results
from loss_steps import batches as batches_of
from torch import Tensor, nn
from torch.nn.functional import normalize

import ise_fast.ops  # noqa: F401  registers torch.ops.ise_fast
from ise_fast.engine.step_graph import CudaRecorder, GraphedLossStep
from ise_fast.nn import ClusterMemory, ISELoss

DEVICE = torch.device("cuda")
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device here")

UnitRows = Callable[..., Tensor]
Cases = dict[str, tuple[Any, ...]]  # operator -> arguments on the CPU


@pytest.fixture
def cases(unit_rows: UnitRows) -> Cases:
    cpu = torch.ops.ise_fast
    x = normalize(unit_rows(60, 48).repeat(10, 1) + 0.5 * unit_rows(600, 48, 1), dim=1)
    near = cpu.knn(x, 21)[1]
    v = cpu.k_reciprocal_encoding(x, near, 6)
    features, labels, centroids = x[:96].clone(), torch.arange(96) % 16, unit_rows(40, 48)
    gram, one = centroids @ centroids.T, torch.ones(())
    head = (features, centroids, labels)
    nearest = cpu.nearest_centroids(*head, 2)[1]
    supports, norm = cpu.support_samples(*head, nearest, 0.25)
    degree = torch.tensor(0.25, dtype=torch.float64)
    ise = (features, labels, centroids, 0.0, 2, 0.05, 0.6, 0.1, gram, True, degree)
    ids, cams = torch.arange(600) % 60, torch.arange(600) % 7
    counts, pairs = torch.full((40,), 2), torch.arange(41) * 2
    graph = cpu.jaccard_graph(*v, 0.7, 0, 600)
    draws = torch.linspace(0, 0.9, 12).double()
    narrow, half = near.int(), 12
    bits = cpu.reciprocal_bits(narrow, 0, 600, half)
    sets = cpu.expanded_sets(narrow, bits, half, 100, 400)
    products = cpu.pattern_products(x[100:400], x, *sets, "dot")
    every = torch.arange(600, dtype=torch.int32)
    return {
        "knn": (x, 20),
        "radius_graph": (x, 1.0),
        "k_reciprocal_encoding": (x, near, 6),
        "jaccard_distance": v,
        "jaccard_graph": (*v, 0.7, 0, 600),
        "dbscan": (*graph, 0.6, 4),
        "dbscan_dense": (cpu.jaccard_distance(*v), 0.6, 4),
        "nearest_centroids": (*head, 2),
        "support_samples": (*head, nearest, 0.25),
        "support_samples_backward": (supports.flip(0), features, supports, norm),
        "ise_loss": ise,
        "ise_loss_backward": (one, one, one, features, *cpu.ise_loss(*ise)[4:], 0.1),
        "cluster_nce_loss": (features, labels, centroids, 0.05, True),
        "cluster_nce_loss_backward": (one, features, features),
        "update_memory_": (centroids, features, labels, supports, 0.2, "hard"),
        "refresh_gram_": (gram, centroids.flip(0), labels),
        "rank_metrics": (2 - 2 * x[:100] @ x[100:].T, ids[:100], ids[100:], cams[:100], cams[100:], 10),
        "re_ranking": (x, near, 100, 6, 0.3),
        "group_nce_loss": (features, centroids, counts, labels, 0.05, 1e-6, True),
        "soft_nce_loss": (
            features, centroids, labels[:, None], torch.ones(96, 1), 0.05, None, 3, None, None, True,
        ),
        "loss_backward": (one, features, features.flip(0), "soft_nce_loss"),
        "refresh_groups_": (centroids.clone(), x[:80], pairs, torch.arange(80), labels),
        "kmeans_start": (x, draws),
        "kmeans_step": (x, x[:12].clone()),
        "kmeans": (x, x[:12].clone(), 3),
        "merge_nearest": (*graph, torch.arange(600) // 2, 0.01, 20),
        "cycle_positives": (x, torch.arange(0, 600, 50), 0.5, 5),
        "multi_label_loss": (features, centroids, torch.arange(97), labels.int(), 5.0, 0.1, True),
        "pattern_products": (x[100:400], x, *sets, "dot"),
        "softmax_rows": (products, sets[0]),
        "reciprocal_bits": (narrow, 100, 400, half),
        "expanded_sets": (narrow, bits, half, 100, 400),
        "average_rows": (*v, narrow[100:400, :6]),
        "jaccard_pairs": (*v, *v, True, 0.7, 10**6),
        "radius_pairs": (x[:300], x[300:], 1.0, "cosine", False),
        "unite_": (every.clone(), every, narrow[:, 1]),
    }  # fmt: skip


def on(device: torch.device | str, arguments: tuple[Any, ...]) -> list[Any]:
    return [a.to(device, copy=True) if isinstance(a, Tensor) else a for a in arguments]


def call(name: str, arguments: list[Any]) -> list[Tensor]:
    """The tensors that an operator returns, and those it writes to."""
    operator = getattr(torch.ops.ise_fast, name).default
    out = operator(*arguments)
    schema = zip(arguments, operator._schema.arguments, strict=False)
    written = [a for a, given in schema if given.alias_info is not None and given.alias_info.is_write]
    return [*([out] if isinstance(out, Tensor) else out or ()), *written]


def assert_same_bits(name: str, found: list[Tensor], expected: list[Tensor]) -> None:
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a.cpu(), b.cpu(), rtol=0, atol=0, equal_nan=True, msg=lambda m: f"{name}: {m}")


def test_every_operator_is_here(cases: Cases) -> None:
    names = [name.split("::") for name in torch._C._dispatch_get_all_op_names()]
    assert set(cases) == {name.split(".")[0] for library, name in names if library == "ise_fast"}


def test_repeated_runs_and_all_devices_give_the_same_bits(cases: Cases) -> None:
    for name, arguments in cases.items():
        first = call(name, on(DEVICE, arguments))
        for device in 5 * [torch.device("cuda", i) for i in range(torch.cuda.device_count())]:
            found = call(name, on(device, arguments))
            assert all(tensor.device == device for tensor in found)
            assert_same_bits(name, found, first)
    assert torch.cuda.current_device() == 0


def test_side_stream(cases: Cases) -> None:
    """The arguments arrive late, on the side stream: work on any other stream would see zeros."""
    side = torch.cuda.Stream()
    for name, arguments in cases.items():
        expected, source = call(name, on(DEVICE, arguments)), on(DEVICE, arguments)
        late = [torch.zeros_like(a) if isinstance(a, Tensor) else a for a in source]
        torch.cuda.synchronize()
        with torch.cuda.stream(side):
            torch.cuda._sleep(50_000_000)
            for there, here in zip(late, source, strict=True):
                if isinstance(there, Tensor):
                    there.copy_(here)
            found = call(name, late)
        side.synchronize()
        assert_same_bits(name, found, expected)


def test_settings_of_products_change_no_bit(cases: Cases, monkeypatch: pytest.MonkeyPatch) -> None:
    """aten::mm would round float32 operands, refuse float16 ones, or want CUBLAS_WORKSPACE_CONFIG."""
    expected = {name: call(name, on(DEVICE, arguments)) for name, arguments in cases.items()}
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_fp16_accumulation", True)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    torch.use_deterministic_algorithms(True)
    try:
        for name, arguments in cases.items():
            assert_same_bits(name, call(name, on(DEVICE, arguments)), expected[name])
    finally:
        torch.use_deterministic_algorithms(False)
        torch.set_float32_matmul_precision(before)


def test_more_rows_than_a_grid_has_blocks_across(unit_rows: UnitRows) -> None:
    features, centroids = unit_rows(70_000, 16).to(DEVICE), unit_rows(40, 16, 1).to(DEVICE)
    labels = torch.arange(70_000, device=DEVICE) % 40
    loss, gradient = torch.ops.ise_fast.cluster_nce_loss(features, labels, centroids, 0.05, True)
    expected = torch.ops.ise_fast.cluster_nce_loss(features.cpu(), labels.cpu(), centroids.cpu(), 0.05, True)
    torch.testing.assert_close(loss.cpu(), expected[0], rtol=1e-5, atol=0)
    torch.testing.assert_close(gradient.cpu(), expected[1], rtol=1e-4, atol=1e-9)


def test_out_of_memory_is_torchs_own_error() -> None:
    few = torch.zeros(1, 1, device=DEVICE)
    labels = torch.zeros(1, dtype=torch.int64, device=DEVICE).expand(2**24)
    with pytest.raises(torch.OutOfMemoryError, match=r"CUDA out of memory\. Tried to allocate"):
        torch.ops.ise_fast.nearest_centroids(few.expand(2**24, 2**22), few.expand(2, 2**22), labels, 1)


def batches(unit_rows: UnitRows, count: int) -> list[tuple[Tensor, Tensor]]:
    """[32, 16] rows that are not unit, and labels of 4 of the 20 clusters: other ones in each batch."""
    labels = torch.arange(32, device=DEVICE) // 8
    return [(3 * unit_rows(32, 16, seed).to(DEVICE), (5 * labels + seed) % 20) for seed in range(count)]


def new_memory(unit_rows: UnitRows) -> ClusterMemory:
    memory = ClusterMemory(16).to(DEVICE)
    memory.reset(unit_rows(20, 16, seed=99).to(DEVICE))
    assert memory.gram is not None  # made now: later it is only kept up to date
    return memory


def loss_step(rows: Tensor, labels: Tensor, memory: ClusterMemory) -> list[Tensor]:
    """Forward, backward and memory update; what the step computes and leaves behind."""
    rows.grad = None
    features = normalize(rows, dim=1)
    out = ISELoss(k=2)(features, labels, memory, progress=0.5)
    out.loss.backward()
    memory.update(features.detach(), labels, out.supports)
    assert memory.gram is not None
    assert rows.grad is not None
    return [*(value.detach() for value in out), rows.grad, memory.centroids, memory.gram]


def test_loss_step_in_a_cuda_graph(unit_rows: UnitRows) -> None:
    rows, labels = (tensor.clone() for tensor in batches(unit_rows, 1)[0])
    rows.requires_grad_()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # libraries set themselves up, which cannot be captured
        for _ in range(3):
            loss_step(rows, labels, new_memory(unit_rows))
    torch.cuda.current_stream().wait_stream(side)

    captured, eager = new_memory(unit_rows), new_memory(unit_rows)
    graph = torch.cuda.CUDAGraph()
    rows.grad = None
    with torch.cuda.graph(graph):
        found = loss_step(rows, labels, captured)
    for batch in batches(unit_rows, 5):
        with torch.no_grad():
            rows.copy_(batch[0])
            labels.copy_(batch[1])
        graph.replay()
        assert_same_bits("graph", found, loss_step(batch[0].requires_grad_(), batch[1], eager))


@pytest.mark.parametrize("name", RECORDED)
def test_recorded_steps_of_every_method(name: str) -> None:
    """What the trainer does: warm-up, a recording an epoch, replays, with the bits of steps that are not recorded."""
    plain, step = make_step(name, DEVICE), make_step(name, DEVICE)
    loss = GraphedLossStep(step, CudaRecorder())
    for epoch in (6, 7):
        found = results(loss, batches_of(step, 6, epoch=epoch))
        assert not loss.failed
        assert_same_bits(name, found, results(plain, batches_of(plain, 6, epoch=epoch)))
        for each in (plain, step):
            begin(each.memory, each.parts, DEVICE, seed=epoch)
        loss.release()


def test_a_step_that_cannot_be_recorded_goes_on_without(caplog: pytest.LogCaptureFixture) -> None:
    plain, step = make_step("cap", DEVICE), make_step("cap", DEVICE)
    loss = GraphedLossStep(step, CudaRecorder())
    found = results(loss, batches_of(step, 8))
    assert loss.failed
    assert "could not be recorded" in caplog.text
    assert_same_bits("cap", found, results(plain, batches_of(plain, 8)))


@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_compiled_model_and_loss(unit_rows: UnitRows, mode: str) -> None:
    torch.manual_seed(0)
    models = [nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 16)).to(DEVICE)]
    models.append(copy.deepcopy(models[0]))
    memories = [new_memory(unit_rows), new_memory(unit_rows)]
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.1) for model in models]
    criterion = ISELoss(k=2)

    def forward(model: nn.Module, memory: ClusterMemory, rows: Tensor, labels: Tensor) -> tuple[Tensor, ...]:
        features = normalize(model(rows), dim=1)
        out = criterion(features, labels, memory, progress=0.5)
        return out.loss, features, out.supports

    functions = [forward, torch.compile(forward, mode=mode, fullgraph=True)]
    with torch._inductor.config.patch({"triton.cudagraph_or_error": mode == "reduce-overhead"}):
        for rows, labels in batches(unit_rows, 6):
            losses = []
            for model, memory, optimizer, function in zip(models, memories, optimizers, functions, strict=True):
                torch.compiler.cudagraph_mark_step_begin()
                loss, features, supports = function(model, memory, rows, labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                memory.update(features.detach(), labels, supports)
                losses.append(loss.item())
            assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    torch.testing.assert_close(memories[1].centroids, memories[0].centroids, rtol=0, atol=1e-4)
    torch.testing.assert_close(list(models[1].parameters()), list(models[0].parameters()), rtol=0, atol=1e-4)


def test_cupy_arrays_on_the_current_stream(unit_rows: UnitRows) -> None:
    """CuPy fills the array late on its own stream; the estimator must wait for it, and CuPy for the labels."""
    cupy = pytest.importorskip("cupy")
    from ise_fast.cluster import JaccardDBSCAN

    x = normalize(unit_rows(30, 32).repeat(10, 1) + 0.3 * unit_rows(300, 32, 1), dim=1)
    expected = JaccardDBSCAN().fit(x.numpy())
    assert len(expected.core_sample_indices_) > 0
    source, late = cupy.asarray(x.numpy()), cupy.zeros((300, 32), dtype=cupy.float32)
    torch.cuda.synchronize()
    side = torch.cuda.Stream()
    torch.cuda._sleep(50_000_000)  # CuPy's stream is the default one, as torch's is here
    late[...] = source
    with torch.cuda.stream(side):
        fitted = JaccardDBSCAN().fit(late)
        for name in ("labels_", "core_sample_indices_", "components_"):
            found = getattr(fitted, name)
            assert isinstance(found, cupy.ndarray)
            assert (cupy.asnumpy(found) == getattr(expected, name)).all()
