"""Memories with a row for every image or camera proxy, and the Kalman mode of the cluster memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from golden_data import load
from torch import Tensor, nn
from torch.nn.functional import normalize

from ise_fast import ops
from ise_fast.nn import ClusterMemory, InstanceMemory, ProxyMemory


def test_instance_memory_trains_as_published() -> None:
    g = load("method_spcl_memory")
    memory = InstanceMemory(24, g["momentum"])
    memory.reset(g["memory_before"])
    memory.regroup(g["labels"])
    for step, (inputs, index) in enumerate(zip(g["inputs"], g["indexes"], strict=True)):
        loss = ops.group_nce_loss(inputs, memory.sums, memory.counts, memory.groups[index], g["temperature"])
        assert loss.item() == pytest.approx(g["loss_float64"][step].item(), rel=1e-5)
        memory.update(inputs, index)
        torch.testing.assert_close(memory.table, g["memory_after"][step], rtol=0, atol=1e-6)
    other = InstanceMemory(24, g["momentum"])
    other.load_state_dict(memory.state_dict())
    for each in (memory, other):
        each.update(g["inputs"][0], g["indexes"][0])
    assert all(a.equal(b) for a, b in zip(memory.state_dict().values(), other.state_dict().values(), strict=True))


def test_instance_memory_starts_from_zeros_and_leaves_rows_without_a_group_alone() -> None:
    memory = InstanceMemory(3, 0.5)
    memory.reset(torch.zeros(4, 3))
    memory.update(torch.eye(3), torch.tensor([1, 1, 2]))  # no groups yet
    assert memory.table[[0, 3]].any() == 0
    torch.testing.assert_close(memory.table[1], normalize(torch.tensor([1.0, 1.0, 0.0]), dim=0))
    memory.regroup(torch.tensor([-1, 0, 0, -1]))
    memory.update(torch.eye(3)[:1], torch.tensor([3]))
    assert memory.sums.equal((memory.table[1].double() + memory.table[2].double()).float()[None])
    with pytest.raises(ValueError, match="groups: expected one for each of 4 rows, got 2"):
        memory.regroup(torch.tensor([0, 1]))
    with pytest.raises(ValueError, match="features: expected 3 columns"):
        memory.reset(torch.ones(2, 2))


@pytest.mark.parametrize("name", ["method_cap", "method_cap_all_negatives"])
def test_proxy_memory_is_the_published_one(name: str) -> None:
    g = load(name)
    memory = ProxyMemory(g["features"].shape[1], g["momentum"])
    own = memory.reset(g["features"], g["labels"], g["cameras"])
    torch.testing.assert_close(memory.proxies, g["proxies"], rtol=0, atol=1e-6)
    assert memory.labels.equal(g["proxy_label"])
    assert memory.cams.equal(g["proxy_camera"])
    assert (own == -1).equal(g["labels"] == -1)
    index = g["indexes"][0]
    y, cams = g["labels"][index], g["cameras"][index]
    assert memory.own(y, cams).equal(own[index])
    ranges, columns = memory.camera_ranges(cams), memory.of_clusters(y)
    for i in range(len(index)):
        assert memory.cams[ranges[i, 0] : ranges[i, 1]].eq(cams[i]).sum() == memory.cams.eq(cams[i]).sum()
        assert columns[i][columns[i] >= 0].tolist() == memory.labels.eq(y[i]).nonzero()[:, 0].tolist()
    memory.update(g["inputs"][0], own[index])
    torch.testing.assert_close(memory.proxies, g["proxies_after"][0], rtol=0, atol=1e-6)
    other = ProxyMemory(g["features"].shape[1])
    other.load_state_dict(memory.state_dict())
    assert other.own(y, cams).equal(own[index])
    assert memory.own(torch.tensor([999]), torch.tensor([0])).tolist() == [-1]


def test_proxy_memory_refuses() -> None:
    memory = ProxyMemory(2)
    zero, noise = torch.zeros(2, dtype=torch.int64), torch.full((2,), -1)
    with pytest.raises(ValueError, match="labels: expected at least one image in a cluster"):
        memory.reset(torch.eye(2), noise, zero)
    with pytest.raises(ValueError, match="cams: expected at least 0, got -1"):
        memory.reset(torch.eye(2), zero, noise)


def test_kalman_memory_follows_its_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    c = normalize(torch.randn(3, 8, generator=generator), dim=1)
    memory = ClusterMemory(8, mode="kalman", process_noise=0.02)
    memory.reset(c, counts=torch.tensor([4, 10, 2]), residual=0.3)
    p = [0.3 / 4, 0.3 / 10, 0.3 / 2]
    expected = c.double()
    for y in ([0, 0, 2], [1, 0, 1]):
        rows = normalize(torch.randn(3, 8, generator=generator), dim=1)
        memory.update(rows, torch.tensor(y))
        for k in range(3):
            p[k] += 0.02
            mine = rows.double()[torch.tensor(y) == k]
            if len(mine):
                gain = p[k] / (p[k] + 0.3 / len(mine))
                expected[k] = normalize(expected[k] + gain * (mine.mean(0) - expected[k]), dim=0)
                p[k] *= 1 - gain
        torch.testing.assert_close(memory.centroids.double(), expected, rtol=0, atol=1e-6)
        torch.testing.assert_close(memory.variances, torch.tensor(p, dtype=torch.float64), rtol=1e-12, atol=0)
    other = ClusterMemory(8, mode="kalman", process_noise=0.02)
    other.load_state_dict(memory.state_dict())
    for each in (memory, other):
        each.update(c, torch.tensor([0, 1, 2]), supports=c[:, None])
    assert memory.centroids.equal(other.centroids)
    assert memory.variances.equal(other.variances)


def of_every_kind() -> nn.ModuleList:
    """Memories in use."""
    generator = torch.Generator().manual_seed(0)
    x = normalize(torch.randn(12, 8, generator=generator), dim=1)
    y = torch.arange(12) % 3
    hard, kalman = ClusterMemory(8), ClusterMemory(8, mode="kalman")
    hard.reset(x[:3])
    kalman.reset(x[:3], counts=torch.tensor([4, 10, 2]), residual=1 / 3)
    instances, proxies = InstanceMemory(8), ProxyMemory(8)
    instances.reset(x)
    instances.regroup(y)
    proxies.reset(x, y, y % 2)
    return nn.ModuleList([hard, kalman, instances, proxies])


def after_a_step(memories: nn.ModuleList) -> list[Tensor]:
    rows = torch.eye(8)[:3].to(next(memories.buffers()).device)
    for memory in memories:
        memory.update(rows, torch.arange(3, device=rows.device))
    return list(memories.buffers())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": torch.full((2, 8), torch.nan)}, "features: expected finite values, got NaN or infinity in row 0"),
        ({"features": torch.eye(8)[:2].to("meta")}, "features: expected device cpu as {rows}, got meta"),
        ({"index": torch.tensor([0, 99])}, "{index}: expected 0 to {last}, got 99 at row 1"),
        ({"index": [0, 1]}, "{index}: expected a torch tensor, got list"),
    ],
)
def test_errors_of_an_update_name_its_arguments(change: dict[str, Any], message: str) -> None:
    given = {"features": torch.eye(8)[:2], "index": torch.tensor([0, 1])} | change
    instances, proxies = of_every_kind()[2:]
    for memory, index, rows in ((instances, "index", "table"), (proxies, "own", "proxies")):
        expected = message.format(index=index, rows=rows, last=len(getattr(memory, rows)) - 1)
        with pytest.raises((TypeError, ValueError), match=f"^{expected}$"):
            memory.update(*given.values())


@pytest.mark.parametrize("name", ["half", "bfloat16", "double", "float", "to", "type", "share_memory", "cpu"])
def test_memories_keep_their_precision_in_a_module_that_is_cast(name: str) -> None:
    casts: dict[str, Callable[[nn.Module], nn.Module]] = {
        "to": lambda module: module.to("cpu", torch.float16),
        "type": lambda module: module.type(torch.float64),
    }
    memories, expected = of_every_kind(), after_a_step(of_every_kind())
    model = nn.Sequential(nn.Linear(2, 2), memories)
    casts.get(name, lambda module: getattr(module, name)())(model)
    for found, buffer in zip(after_a_step(memories), expected, strict=True):
        assert found.dtype == buffer.dtype
        assert found.equal(buffer)
    moved = [buffer.dtype for buffer in model.to("meta", torch.float16).buffers()]
    assert moved == [buffer.dtype for buffer in expected]
    assert model.to("meta")[1][1].variances.device.type == "meta"


def test_memories_are_float32_whatever_the_default() -> None:
    torch.set_default_dtype(torch.float64)
    try:
        memories = of_every_kind()
    finally:
        torch.set_default_dtype(torch.float32)
    expected = of_every_kind()
    assert [b.dtype for b in memories.buffers()] == [b.dtype for b in expected.buffers()]
    expected.load_state_dict(memories.state_dict())
    assert all(a.equal(b) for a, b in zip(expected.buffers(), memories.buffers(), strict=True))


def test_kalman_memory_refuses_labels_out_of_range() -> None:
    memory = ClusterMemory(2, mode="kalman")
    memory.reset(torch.eye(2), counts=torch.tensor([1, 1]), residual=0.1)
    for label in (-1, 2):
        with pytest.raises(ValueError, match=f"labels: expected 0 to 1, got {min(label, 0)} to {max(label, 0)}"):
            memory.update(torch.eye(2), torch.tensor([0, label]))
    assert memory.centroids.equal(torch.eye(2))


def test_kalman_memory_needs_counts_and_residual() -> None:
    memory = ClusterMemory(2, mode="kalman")
    with pytest.raises(ValueError, match="counts: expected counts and residual for mode 'kalman', got None"):
        memory.reset(torch.eye(2))
    with pytest.raises(ValueError, match="counts: expected at least 1, got 0"):
        memory.reset(torch.eye(2), counts=torch.tensor([0, 1]), residual=0.1)
    with pytest.raises(ValueError, match="residual: expected a finite number"):
        memory.reset(torch.eye(2), counts=torch.tensor([1, 1]), residual=0.0)
    assert "variances" not in ClusterMemory(2).state_dict()
