"""Published settings by name, so that a preset reads as a row of the papers.

ISE: Zhang et al., CVPR 2022. Cluster Contrast: Dai et al., 2021. Both use ResNet-50 with ImageNet weights, 256 x 128
images and batches of 256 whose BatchNorm sees 64 images (four GPUs), which ghost BatchNorm keeps on any number of GPUs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ise_fast._words import hint
from ise_fast.engine.errors import UsageError

_Values = Mapping[str, Any]

_MARKET_ISE: _Values = {
    "dataset": "market1501",
    "method": "ise",
    "arch": "resnet50",
    "pretrained": "imagenet",
    "height": 256,
    "width": 128,
    "batch_size": 256,
    "num_instances": 16,
    "bn_chunk": 64,
    "epochs": 70,
    "iters": 400,
    "lr": 3.5e-4,
    "weight_decay": 5e-4,
    "step_size": 30,
    "k1": 30,
    "k2": 6,
    "eps": 0.4,
    "min_samples": 4,
    "momentum": 0.2,
    "memory_mode": "hard",
    "temp": 0.05,
    "lp_temp": 0.6,
    "lp_weight": 0.1,
    "supports": 1,
    "base_degree": 0.25,
}
_MSMT_ISE: _Values = {
    **_MARKET_ISE,
    "dataset": "msmt17",
    "epochs": 50,
    "step_size": 20,
    "eps": 0.7,
    "momentum": 0.1,
    "memory_mode": "momentum",
    "lp_weight": 0.01,
}
# The rows of ISE's ablation (its table of components: 82.5 and 30.1 mAP for the baseline): ISE's settings without
# supports, with supports alone, and with the label-preserving loss alone.
_BASELINE: _Values = {"method": "cluster-contrast"}
_PLI: _Values = {"lp_weight": 0.0}
_LABEL_PRESERVING: _Values = {"contrast_supports": False}

# Cluster Contrast as its published command runs today: GeM pooling, every row updates the memory, the learning rate
# falls every 20 epochs.
_MARKET_CONTRAST: _Values = {
    **_MARKET_ISE,
    "method": "cluster-contrast",
    "pooling_type": "gem",
    "epochs": 50,
    "iters": 200,
    "step_size": 20,
    "eps": 0.6,
    "momentum": 0.1,
    "memory_mode": "momentum",
}
_MSMT_CONTRAST: _Values = {**_MARKET_CONTRAST, "dataset": "msmt17", "iters": 400}
# Its paper's first version (82.1 and 27.6 mAP): average pooling, the hardest row alone, other radii.
_FIRST_VERSION: _Values = {"pooling_type": "avg", "memory_mode": "hard"}

# SpCL: Ge et al., NeurIPS 2020. Batches of 64 whose BatchNorm sees 16 images (four GPUs).
_MARKET_SPCL: _Values = {
    **_MARKET_ISE,
    "method": "spcl",
    "batch_size": 64,
    "num_instances": 4,
    "bn_chunk": 16,
    "epochs": 50,
    "step_size": 20,
    "eps": 0.6,
    "eps_gap": 0.02,
}
_MSMT_SPCL: _Values = {**_MARKET_SPCL, "dataset": "msmt17", "iters": 800}

# CAP: Wang et al., AAAI 2021. Batches of 8 proxies x 4 on one GPU; an epoch is one pass, and its images of a proxy are
# all of one camera, so that drawing evenly repeats images only where there are too few.
_MARKET_CAP: _Values = {
    **_MARKET_ISE,
    "method": "cap",
    "stem_relu": False,
    "batch_size": 32,
    "num_instances": 4,
    "bn_chunk": 32,
    "sampler": "balanced",
    "epochs": 50,
    "iters": 0,
    "milestones": "20,40",
    "warmup_epochs": 10,
    "warmup_start": 0.01,
    "k1": 20,
    "eps": 0.5,
    "temp": 0.07,
    "cross_weight": 0.5,
    "cross_epoch": 5,
    "hard_negatives": 50,
}
# Cluster Contrast's published second recipe: the same with labels by Infomap.
_INFOMAP: _Values = {"labels": "infomap", "neighbours": 15, "min_similarity": 0.5, "max_noise": 4}

# The papers give no ISE settings for these: Market-1501's, with the radius that keeps clusters apart there.
_PERSONX: _Values = {"dataset": "personx", "eps": 0.7, "momentum": 0.1}
_VERI: _Values = {"dataset": "veri776", "height": 224, "width": 224, "eps": 0.6, "momentum": 0.1}

# Images in random order, SGD: MMCL (Wang & Zhang, CVPR 2020), BUC (Lin et al., AAAI 2019), SoftSim (Lin et al., CVPR
# 2020), whose schedule is not known to us: BUC's first step, and as long again and again with soft targets.
_SHUFFLED: _Values = {
    **{name: _MARKET_ISE[name] for name in ("dataset", "arch", "pretrained", "height", "width", "weight_decay")},
    "num_instances": 1,
    "iters": 0,
    "optimizer": "sgd",
    "lr": 0.1,
    "backbone_lr": 0.1,
    "sgd_momentum": 0.9,
    "nesterov": True,
    "momentum": 0.5,
}
_MARKET_MMCL: _Values = {
    **_SHUFFLED,
    "method": "mmcl",
    "batch_size": 128,
    "bn_chunk": 128,
    "epochs": 60,
    "milestones": "40",
    "momentum_epochs": 60,
    "single_epochs": 6,
    "similarity": 0.6,
    "candidates": 10,
    "delta": 5.0,
    "hard_share": 0.01,
}
_MARKET_BUC: _Values = {
    **_SHUFFLED,
    "method": "buc",
    "features": 2048,
    "batch_size": 16,
    "bn_chunk": 16,
    "epochs": 58,
    "milestones": "16",
    "reset_optimizer": True,
    "erase": 0.0,
    "temp": 0.1,
    "dropout": 0.5,
    "first_epochs": 20,
    "step_epochs": 2,
    "merge_share": 0.05,
    "size_penalty": 0.003,
}
# PPLR: Cho et al., CVPR 2022, without cameras. Of its losses the two that refine labels.
_MARKET_PPLR: _Values = {
    **_MARKET_SPCL,
    "method": "pplr",
    "height": 384,
    "parts": 3,
    "eps": 0.5,
    "memory_mode": "momentum",
    "agreement_neighbours": 20,
    "own_label": 0.5,
    "refine_epoch": 5,
}
_MARKET_SOFTSIM: _Values = {
    **_SHUFFLED,
    "method": "softsim",
    "batch_size": 16,
    "bn_chunk": 16,
    "epochs": 60,
    "milestones": "16",
    "reset_optimizer": True,
    "temp": 0.1,
    "hard_epochs": 20,
    "similar": 8,
    "own_share": 0.6,
    "camera_penalty": 0.02,
}
# CycAs: Wang et al., ECCV 2020. Of its settings we know those of the loss; network, images and optimiser are ISE's,
# batches, schedule and window are ours.
_MARKET_CYCAS: _Values = {
    **{name: _MARKET_ISE[name] for name in ("dataset", "arch", "pretrained", "height", "width", "lr", "weight_decay")},
    "method": "cycas",
    "batch_size": 64,
    "num_instances": 8,
    "bn_chunk": 64,
    "epochs": 50,
    "iters": 200,
    "step_size": 20,
    "frame_window": 100,
    "cycle_delta": 0.5,
    "cycle_margin": 0.5,
}

# Small enough for two CPU cores: about two minutes. A network without pretrained weights learns from few images: a
# larger learning rate, and a memory that moves slowly, because its first clusters mix people.
_SYNTHETIC: _Values = {
    "dataset": "synthetic",
    "arch": "small",
    "pretrained": "none",
    "batch_size": 64,
    "num_instances": 8,
    "bn_chunk": 0,
    "epochs": 12,
    "iters": 30,
    "lr": 2e-3,
    "step_size": 9,
    "k1": 20,
    "k2": 4,
    "eps": 0.5,
    "momentum": 0.8,
    "padding": 2,
    "erase": 0.3,
}
# Characters are not mirrored, and one has only 20 drawings.
_OMNIGLOT: _Values = {
    **_SYNTHETIC,
    "dataset": "omniglot",
    "height": 32,
    "width": 32,
    "k1": 15,
    "min_samples": 3,
    "flip": 0.0,
    "erase": 0.0,
}

_PRESETS: dict[str, _Values] = {
    "synthetic": _SYNTHETIC,
    "omniglot": _OMNIGLOT,
    "market1501-ise": _MARKET_ISE,
    "market1501-ise-gem": {**_MARKET_ISE, "pooling_type": "gem"},
    "market1501-ise-baseline": {**_MARKET_ISE, **_BASELINE},
    "market1501-ise-pli": {**_MARKET_ISE, **_PLI},
    "market1501-ise-label-preserving": {**_MARKET_ISE, **_LABEL_PRESERVING},
    "market1501-cluster-contrast": _MARKET_CONTRAST,
    "market1501-cluster-contrast-v1": {**_MARKET_CONTRAST, **_FIRST_VERSION, "eps": 0.4},
    "market1501-cluster-contrast-infomap": {**_MARKET_CONTRAST, **_INFOMAP},
    "market1501-spcl": _MARKET_SPCL,
    "market1501-mmcl": _MARKET_MMCL,
    "market1501-buc": _MARKET_BUC,
    "market1501-softsim": _MARKET_SOFTSIM,
    "market1501-pplr": _MARKET_PPLR,
    "market1501-cycas": _MARKET_CYCAS,
    "market1501-cap": _MARKET_CAP,
    "msmt17-ise": _MSMT_ISE,
    "msmt17-ise-gem": {**_MSMT_ISE, "pooling_type": "gem"},
    "msmt17-ise-baseline": {**_MSMT_ISE, **_BASELINE},
    "msmt17-ise-pli": {**_MSMT_ISE, **_PLI},
    "msmt17-ise-label-preserving": {**_MSMT_ISE, **_LABEL_PRESERVING},
    "msmt17-cluster-contrast": _MSMT_CONTRAST,
    "msmt17-cluster-contrast-v1": {**_MSMT_CONTRAST, **_FIRST_VERSION, "eps": 0.7},
    "msmt17-cluster-contrast-infomap": {**_MSMT_CONTRAST, **_INFOMAP},
    "msmt17-spcl": _MSMT_SPCL,
    "msmt17-mmcl": {**_MARKET_MMCL, "dataset": "msmt17"},
    "msmt17-cap": {**_MARKET_CAP, "dataset": "msmt17"},
    "personx": {**_MARKET_ISE, **_PERSONX},
    "veri776": {**_MARKET_ISE, **_VERI},
    "folder": {**_MARKET_ISE, "dataset": "folder", "eps": 0.6},
}


def names() -> list[str]:
    """Every preset's name."""
    return list(_PRESETS)


def values(name: str) -> dict[str, Any]:
    """The settings of a preset by flag name (with underscores).

    Raises:
        UsageError: if there is no such preset.
    """
    if name not in _PRESETS:
        raise UsageError(f"--preset: expected one of {', '.join(_PRESETS)}, got {name!r}{hint(name, _PRESETS)}")
    return dict(_PRESETS[name])


def for_dataset(dataset: str, method: str) -> str:
    """The preset that a data set and method get when none is named; the synthetic one for a name without a preset."""
    for name in (dataset, f"{dataset}-{method}", f"{dataset}-ise"):
        if name in _PRESETS:
            return name
    return "synthetic"
