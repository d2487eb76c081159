"""Every method's step without the network, as the trainer takes it, against the matrix products that it needs.

Market-1501's size: 12,936 images in 646 clusters of 20, in four of six cameras; batches by the method's own sampler and
preset, late in training, where every term of a loss is in use. What a step needs are the products of the batch with
the rows that the loss compares it with, and of the weights with these rows for the gradient; what else is needed is
said where it is added. Two terms that compare with the same rows need these once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from benchmarks.cases.setting import Setting, identities, missing
from benchmarks.data import clustered_features
from benchmarks.measure import Case, Variant
from ise_fast.data import PKSampler, ShuffleSampler, SinglesSampler
from ise_fast.engine import presets
from ise_fast.engine.distributed import World
from ise_fast.engine.loss_step import LossStep
from ise_fast.engine.precision import Precision
from ise_fast.methods import METHODS, Batch, Method, Mix, PseudoLabels
from ise_fast.methods.softened import soften
from ise_fast.nn import InstanceMemory

_Products = Callable[[], object]
_SAMPLERS = {"pk": PKSampler, "pk-singles": SinglesSampler, "shuffle": ShuffleSampler}
_FRAME = 8  # people of a frame
_PARTS = 3
#: title -> (method, what differs from its settings, how labels are softened)
_PLANS: dict[str, tuple[str, dict[str, Any], str]] = {
    "cluster-contrast": ("cluster-contrast", {}, ""),
    "cluster-contrast, every row": ("cluster-contrast", {"memory_mode": "momentum"}, ""),
    "cluster-contrast, kalman": ("cluster-contrast", {"memory_mode": "kalman"}, ""),
    "cluster-contrast, mixed images": ("cluster-contrast", {}, "images"),
    "cluster-contrast, mixed features": ("cluster-contrast", {}, "features"),
    "cluster-contrast, label smoothing": ("cluster-contrast", {}, "smoothing"),
    "ise": ("ise", {}, ""),
    "ise, mixed features": ("ise", {}, "features"),
    "spcl": ("spcl", {}, ""),
    "ise-spcl": ("ise-spcl", {}, ""),
    "cap": ("cap", {}, ""),
    "ise-cap": ("ise-cap", {}, ""),
    "pplr": ("pplr", {}, ""),
    "mmcl": ("mmcl", {}, ""),
    "buc, first step": ("buc", {}, ""),
    "softsim": ("softsim", {}, ""),
    "cycas": ("cycas", {}, ""),
}


def method_steps(setting: Setting) -> Iterator[Case]:
    """Loss, gradient and memory of every method, the memory as the steps before left it."""
    if missing("torchvision"):
        return
    n, d = (300, 64) if setting.quick else (12_936, 2048)
    table = clustered_features(n, d, identities(n)).to(setting.device)
    place, clusters = torch.randperm(n, generator=torch.Generator().manual_seed(1)), n // 20
    labels = place % clusters
    cams = (labels + place // clusters % 4) % 6
    for title, (name, changes, softened) in _PLANS.items():
        yield _case(title, METHODS[name], name, changes, softened, table, labels, cams, setting.quick)


def _case(
    title: str,
    method: Method,
    name: str,
    changes: dict[str, Any],
    softened: str,
    table: Tensor,
    labels: Tensor,
    cams: Tensor,
    quick: bool,
) -> Case:
    device, d = table.device, table.shape[1]
    preset = presets.values(f"market1501-{name.removeprefix('ise-')}")
    b, k = (16, min(4, preset["num_instances"])) if quick else (preset["batch_size"], preset["num_instances"])
    if name == "mmcl" and quick:
        changes = {"hard_share": 0.05}
    settings = method.settings(**changes)
    pseudo = _labels_for(name, labels)
    memory, objective = method.memory(settings, d).to(device), method.objective(settings)
    drawn = pseudo.labels if method.groups is None else method.groups(pseudo.labels, cams)
    if method.sampler == "frame-pairs":
        index, given = torch.arange(b), torch.arange(b) // _FRAME
    else:
        sampler = _SAMPLERS[method.sampler](drawn.numpy(), cams.numpy(), b, k, 1)
        index = torch.as_tensor(sampler.batch(0))
        given = pseudo.labels[index]
    _begin(memory, table, pseudo, cams.to(device))
    batch = Batch(index, given, cams[index], epoch=40).each(lambda rows: rows.to(device))
    mix = (
        None if softened in ("", "smoothing") else Mix(torch.arange(b).roll(1).to(device), 0.7, softened == "features")
    )
    batch = batch._replace(mix=mix)
    objective = soften(objective, mixed=mix is not None, smoothing=0.1 if softened == "smoothing" else 0.0)
    parts = _PARTS if method.parts else 0
    rows = _rows(table[index.to(device)], 1 + parts)
    step = LossStep(objective, memory, Precision("fp32", device), World(0, 1, device), parts)
    products, flops, columns = _needed(name, method, memory, batch, rows[:, :d].contiguous(), table)
    return Case(
        operator=f"method_step: {title}",
        shape={"B": b, "columns": columns, "d": d},
        variants=[
            Variant("fused", lambda: step(rows, batch, 0.5).gradient),
            Variant("yardstick: products", products),
        ],
        flops=flops,
        bytes=8 * columns * d,
        device=device,
    )


def _labels_for(name: str, labels: Tensor) -> PseudoLabels:
    every = torch.arange(len(labels))
    if name == "softsim":
        return PseudoLabels(every, similar=(every[:, None] + torch.arange(1, 9)) % len(every))
    return PseudoLabels(every if name in ("mmcl", "buc") else labels)


def _begin(memory: Any, table: Tensor, pseudo: PseudoLabels, cams: Tensor) -> None:
    if hasattr(memory, "agreement"):  # of PPLR, without its search for neighbours
        centroids = _means(table, pseudo.labels)
        memory.reset(centroids)
        memory.parts = centroids.expand(_PARTS, -1, -1).contiguous()
        memory.agreement = torch.rand(len(table), _PARTS, generator=torch.Generator().manual_seed(3)).to(table.device)
        return
    memory.begin(table, pseudo, cams)
    if isinstance(memory, InstanceMemory):  # those that begin with zeros as they are later
        memory.table.copy_(table)


def _means(table: Tensor, labels: Tensor) -> Tensor:
    sums = table.new_zeros(int(labels.max()) + 1, table.shape[1])
    return normalize(sums.index_add(0, labels.to(table.device), table), dim=1)


def _rows(features: Tensor, copies: int) -> Tensor:
    noise = torch.randn(len(features), copies, features.shape[1], generator=torch.Generator().manual_seed(2))
    noise = noise.to(features.device) / features.shape[1] ** 0.5
    return normalize(features[:, None] + noise, dim=2).flatten(1)


def _needed(
    name: str, method: Method, memory: Any, batch: Batch, f: Tensor, table: Tensor
) -> tuple[_Products, float, int]:
    """(the products, their operations, rows that the batch is compared with)."""
    b, d = f.shape
    if name == "cycas":
        frames = f.split(_FRAME)
        flops = (6.0 * d + 6.0 * _FRAME) * _FRAME * b / 2
        return partial(_frame_products, list(zip(frames[::2], frames[1::2], strict=True))), flops, _FRAME
    if name == "mmcl":  # labels and logits; few of the rows have a gradient
        return lambda: (table[batch.images] @ table.T, f @ table.T), 4.0 * b * len(table) * d, len(table)
    classes = memory.classes.clone()
    count = len(classes)
    if method.parts:
        return lambda: [_both(f, classes) for _ in range(1 + _PARTS)], 4.0 * (1 + _PARTS) * b * count * d, count
    if name in ("ise", "ise-spcl"):  # and inner products of the batch's classes with all, of the batch with supports
        own, supports = classes[batch.labels.unique()], f
        flops = (4.0 * b + 2.0 * len(own)) * count * d + 2.0 * b * b * d
        return lambda: (_both(f, classes), own @ classes.T, f @ supports.T), flops, count
    return partial(_both, f, classes), 4.0 * b * count * d, count


def _both(f: Tensor, rows: Tensor) -> Tensor:
    return (f @ rows.T) @ rows


def _frame_products(pairs: list[tuple[Tensor, Tensor]]) -> None:
    """Cosines, the way there and back, and the gradient of each."""
    for x, y in pairs:
        cosines = x @ y.T
        cycle = cosines @ cosines.T
        _ = cycle @ cosines, cosines.T @ cycle, cosines @ y, cosines.T @ x
