"""Numbers of the published implementations of other methods (tests/golden/README.md), for operators and reference."""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import pytest
import torch
from golden_data import load
from torch import Tensor
from torch.nn.functional import one_hot, softmax

from ise_fast import ops, reference
from ise_fast.types import CSRGraph, Groups

LOSS, GRADIENT, MEMORY = 1e-5, 3e-6, 1e-6  # relative, absolute, absolute


@pytest.fixture(params=[reference, ops], ids=["reference", "ops"])
def api(request: pytest.FixtureRequest) -> Any:
    return request.param


def given(api: ModuleType, x: Tensor, device: torch.device) -> Tensor:
    """Input of a loss: float32 for the operators, float64 for the reference, whose softmax is PyTorch's."""
    return x.to(device, torch.float64 if api is reference else torch.float32)


def gradient(loss: Tensor, leaf: Tensor) -> Tensor:
    (grad,) = torch.autograd.grad(loss, leaf)
    return grad.cpu()


def assert_loss(loss: Tensor, expected: float) -> None:
    assert loss.item() == pytest.approx(float(expected), rel=LOSS)


def assert_close(ours: Tensor, expected: Tensor, tolerance: float) -> None:
    torch.testing.assert_close(ours.cpu().float(), expected.float(), rtol=0, atol=tolerance)


def test_spcl_memory(api: ModuleType, device: torch.device) -> None:
    """Three steps of the hybrid memory: loss, gradient, rows; some ids own no row."""
    g = load("method_spcl_memory")
    table, labels = given(api, g["memory_before"], device), g["labels"].to(device)
    groups = int(labels.max()) + 1
    members = api.group_members(labels, groups)
    sums = torch.zeros(groups, table.shape[1], device=device, dtype=table.dtype)
    counts = labels.bincount(minlength=groups)
    assert (counts == 0).any()
    api.refresh_groups_(sums, table, members, torch.arange(groups, device=device))
    for step in range(len(g["loss"])):
        f, index = given(api, g["inputs"][step], device).requires_grad_(), g["indexes"][step].to(device)
        loss = api.group_nce_loss(f, sums, counts, labels[index], g["temperature"])
        assert_loss(loss, g["loss_float64"][step])
        assert_close(gradient(loss, f), g["grad"][step], GRADIENT)
        api.update_memory_(table, f.detach(), index, g["momentum"], "momentum")
        assert_close(table, g["memory_after"][step], MEMORY)
        api.refresh_groups_(sums, table, members, labels[index])
        fresh = torch.zeros_like(sums).double().index_add_(0, labels, table.double()).to(sums.dtype)
        # index_add_ on a GPU adds in any order
        order = 1e-14 if device.type == "cuda" and sums.dtype == torch.float64 else 0
        torch.testing.assert_close(sums, fresh, rtol=0, atol=order)


def test_spcl_reliability(api: ModuleType, device: torch.device) -> None:
    g = load("method_spcl_reliability")
    theta = None
    for epoch, normal in enumerate(g["labels_normal"]):
        tight, loose = g["labels_tight"][epoch], g["labels_loose"][epoch]
        out = api.reliable_labels(*(x.to(device) for x in (tight, normal, loose)), theta)
        theta = out.threshold
        assert theta == g["indep_threshold"][epoch].item()
        assert out.completeness.cpu().equal(g["r_comp"][epoch])
        assert out.independence.cpu().equal(g["r_indep"][epoch])
        assert out.labels.cpu().equal(g["refined_openunreid"][epoch])
        official = g["refined"][epoch]
        assert (out.labels[:, None] == out.labels).cpu().equal(official[:, None] == official)


def test_spcl_labels_from_features() -> None:
    """One graph at the loosest radius, three clusterings of it."""
    g = load("method_spcl_reliability")
    theta = None
    for epoch, x in enumerate(g["features"]):
        eps, gap = g["eps"], g["eps_gap"]
        graph = ops.jaccard_graph(x, g["k1"], g["k2"], eps=eps + gap)
        labels = [ops.dbscan(graph, e, g["min_samples"]).labels for e in (eps - gap, eps, eps + gap)]
        for ours, key in zip(labels, ("labels_tight", "labels_normal", "labels_loose"), strict=True):
            assert ours.equal(g[key][epoch])
        out = ops.reliable_labels(*labels, theta)
        theta = out.threshold
        assert out.labels.equal(g["refined_openunreid"][epoch])


def test_kmeans(api: ModuleType, device: torch.device) -> None:
    g = load("method_kmeans")
    x, centres = g["features"].to(device), g["centers_before"].to(device)
    step = api.kmeans_step(x, centres)
    assert step.labels.cpu().equal(g["first_labels"])
    for t, after in enumerate(g["centers_after"]):
        centres = (step.sums / step.counts[:, None]).float()
        assert_close(centres, after, MEMORY)
        step = api.kmeans_step(x, centres)
        assert step.labels.cpu().equal(g["labels_after"][t].long())
        assert step.inertia.item() == pytest.approx(g["inertia_after"][t].item(), rel=LOSS)
    result = api.kmeans(x, g["centers_before"].to(device))
    assert result.labels.cpu().equal(g["final_labels"].long())
    assert_close(result.centres, g["final_centers"], MEMORY)
    assert result.inertia == pytest.approx(g["final_inertia"], rel=LOSS)


def test_softsim(api: ModuleType, device: torch.device) -> None:
    """Lambda on the image itself, the rest on its k reliable images."""
    g = load("method_softsim")
    index = g["indexes"]
    columns = torch.cat([index[:, None], g["reliable"][index]], dim=1)
    weights = torch.full(columns.shape, (1 - g["lambda_self"]) / g["k"])
    weights[:, 0] = g["lambda_self"]
    f = given(api, g["inputs"], device).requires_grad_()
    loss = api.soft_nce_loss(
        f, given(api, g["table"], device), columns.to(device), weights.to(device), g["temperature"]
    )
    assert_loss(loss, g["loss_rows_float64"].mean())
    assert_loss(loss, g["loss_mean"])
    assert_close(gradient(len(f) * loss, f), g["grad_of_sum"], GRADIENT * 5)  # of the sum of 16 losses


@pytest.mark.parametrize("name", ["cap", "cap_all_negatives"])
def test_cap(api: ModuleType, device: torch.device, name: str) -> None:
    """Within the camera: the rows of the sample's camera. Across: all proxies of its cluster, 1 / |own| each."""
    g = load(f"method_{name}")
    label, camera = g["proxy_label"], g["proxy_camera"]
    for step, epoch in enumerate(g["epochs"].tolist()):
        start = g["proxies"] if g["iterations"][step] == 0 else g["proxies_after"][step - 1]
        table = given(api, start, device)
        y, cam = g["labels"][g["indexes"][step]], g["cameras"][g["indexes"][step]]
        own = ((label == y[:, None]) & (camera == cam[:, None])).long().argmax(1)
        share = len(y) / cam.bincount()[cam]  # a mean over each camera's rows, summed over cameras
        ranges = torch.stack([torch.searchsorted(camera, cam), torch.searchsorted(camera, cam, right=True)], dim=1)
        f = given(api, g["inputs"][step], device).requires_grad_()
        tau = g["temperature"]
        intra = api.soft_nce_loss(
            f, table, own[:, None].to(device), share[:, None].to(device), tau, ranges=ranges.to(device)
        )
        assert_loss(intra, g["intra_float64"][step])
        loss = intra
        if epoch >= g["cross_from_epoch"]:
            same = label == y[:, None]
            width = int(same.sum(1).max())
            columns = torch.where(same, torch.arange(len(label)), len(label)).sort(1).values[:, :width]
            columns[columns == len(label)] = -1
            weights = (share / same.sum(1))[:, None].expand_as(columns).contiguous()
            inter = api.soft_nce_loss(
                f, table, columns.to(device), weights.to(device), tau, negatives=g["hard_negatives"]
            )
            assert_loss(inter, g["inter_float64"][step])
            loss = intra + g["cross_weight"] * inter
        assert_loss(loss, g["loss_words_float64"][step])
        assert_close(gradient(loss, f), g["grad_words_float64"][step], GRADIENT * 5)
        moved = table.clone()
        api.update_memory_(moved, f.detach(), own.to(device), g["momentum"], "momentum")
        assert_close(moved, g["proxies_after"][step], MEMORY)


def test_pplr_losses(api: ModuleType, device: torch.device) -> None:
    """Refined targets over all classes, and label smoothing by agreement: the identity as the table."""
    g = load("method_pplr")
    agreement, logits = g["agreement"][g["indexes"]], g["logits"]
    classes = logits.shape[1]
    weights = softmax(agreement, dim=1)
    parts = (softmax(g["part_logits"].double(), dim=1) * weights.double()[:, None, :]).sum(2)
    refined = g["beta"] * one_hot(g["targets"], classes) + (1 - g["beta"]) * parts
    torch.testing.assert_close(refined, g["refined_targets_float64"], rtol=0, atol=1e-7)
    table, every = given(api, torch.eye(classes), device), torch.arange(classes, device=device).expand(len(logits), -1)
    f = given(api, logits, device).requires_grad_()
    loss = api.soft_nce_loss(f, table, every.contiguous(), given(api, refined, device), 1.0)
    assert_loss(loss, g["pglr_loss"])
    assert_close(gradient(loss, f), g["pglr_grad"], GRADIENT)
    for part in range(3):
        f = given(api, g["part_logits"][:, :, part], device).requires_grad_()
        one, target = torch.ones(len(f), 1, device=device), g["targets"][:, None].to(device)
        loss = api.soft_nce_loss(f, table, target, one, 1.0, smooth=1 - agreement[:, part].to(device))
        apart = (1 - agreement[:, part]).mean() * math.log(classes)  # the published term is a divergence from uniform
        assert_loss(loss - apart.item(), g["aals_loss"][part])
        assert_close(gradient(loss, f), g["aals_grad"][:, :, part], GRADIENT)


def test_pplr_camera_proxies(api: ModuleType, device: torch.device) -> None:
    """Positives of other cameras only; the own proxy takes no part."""
    g = load("method_pplr")
    label, camera = g["proxy_label"], g["proxy_camera"]
    same = label == g["cam_labels"][:, None]
    own = same & (camera == g["cam_cameras"][:, None])
    number = torch.arange(len(label)).expand(same.shape)
    columns = torch.where(same & ~own, number, -1)
    weights = (same & ~own) / (same & ~own).sum(1, keepdim=True).clamp_min(1)
    raw = given(api, g["cam_inputs"], device).requires_grad_()
    loss = api.soft_nce_loss(
        torch.nn.functional.normalize(raw, dim=1),
        given(api, g["proxies"], device),
        columns.to(device),
        given(api, weights, device),
        g["cam_temperature"],
        negatives=g["cam_hard_negatives"],
        excluded=torch.where(own, number, -1).to(device),
    )
    assert_loss(loss, g["cam_loss"])
    assert_close(gradient(loss, raw), g["cam_grad"], GRADIENT)


@pytest.mark.parametrize("name", ["buc", "buc_penalty"])
def test_buc(api: ModuleType, device: torch.device, name: str) -> None:
    """The same merges in the same order, and the repelled loss on a table that starts at zero."""
    g = load(f"method_{name}")
    for step, x in enumerate(g["features"]):
        graph = ops.radius_graph(x.to(device), 2.0, metric="sqeuclidean")
        before = g["labels_before"][step].to(device)
        out = api.merge_nearest(graph, before, g["size_penalty"], g["merges_per_step"])
        assert out.labels.cpu().equal(g["labels_after"][step])
        assert out.pairs.cpu().equal(g["merged_pairs"][step])
        assert_close(out.dissimilarity, g["merged_dissimilarity"][step], MEMORY)
    table = given(api, g["table_before"], device)
    for step, inputs in enumerate(g["loss_inputs"]):
        f, y = given(api, inputs, device).requires_grad_(), g["loss_labels"][step].to(device)
        one = torch.ones(len(f), 1, device=device)
        loss = api.soft_nce_loss(f, table, y[:, None], one, 1 / g["inverse_temperature"])
        assert_loss(loss, g["loss"][step])
        assert_close(gradient(loss, f), g["loss_grad"][step], GRADIENT)
        api.update_memory_(table, f.detach(), y, 0.5, "momentum")
        assert_close(table, g["table_after"][step], MEMORY)


@pytest.mark.parametrize("name", ["mmcl", "mmcl_published"])
def test_mmcl(api: ModuleType, device: torch.device, name: str) -> None:
    g = load(f"method_{name}")
    table, targets = given(api, g["memory_before"], device), g["targets"].to(device)
    positives = api.cycle_positives(table, targets, g["threshold"], g["min_candidates"])
    marks = torch.zeros(positives.shape, dtype=torch.uint8)
    marks[
        torch.arange(len(targets)).repeat_interleave(positives.indptr.cpu().diff()), positives.indices.cpu().long()
    ] = 1
    assert marks.equal(g["multilabels"])
    alone = torch.arange(len(targets) + 1, device=device), targets.int(), torch.ones(len(targets), device=device)
    for kind, graph in (("multi", positives), ("single", CSRGraph(*alone, positives.shape))):
        f = given(api, g[f"{kind}_inputs"], device).requires_grad_()
        loss = api.multi_label_loss(f, table, graph, g["delta"], g["hard_ratio"])
        assert_loss(loss, g[f"{kind}_loss"])
        assert_close(gradient(loss, f), g[f"{kind}_grad"], GRADIENT)
        moved = table.clone()
        api.update_memory_(moved, f.detach(), targets, g["momentum"], "momentum")
        assert_close(moved, g[f"{kind}_memory_after"], MEMORY)


def test_members_are_the_rows_of_each_group(api: ModuleType) -> None:
    members = api.group_members(torch.tensor([2, 0, -1, 2, 0]), 4)
    assert isinstance(members, Groups)
    assert members.indptr.tolist() == [0, 2, 2, 4, 4]
    assert members.rows.tolist() == [1, 4, 0, 3]
