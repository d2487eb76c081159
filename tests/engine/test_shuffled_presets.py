"""Presets of MMCL, BUC, SoftSim, PPLR and CycAs: the published numbers, as far as they are known."""

from __future__ import annotations

import pytest

from ise_fast.engine.config import parse

SHARED: dict[str, object] = {
    "dataset": "market1501", "labels": None, "iters": 0, "optimizer": "sgd", "lr": 0.1, "backbone_lr": 0.1,
    "sgd_momentum": 0.9, "nesterov": True, "weight_decay": 5e-4, "momentum": 0.5, "arch": "resnet50",
    "pretrained": "imagenet", "height": 256, "width": 128,
}  # fmt: skip
MMCL: dict[str, object] = {
    **SHARED, "method": "mmcl", "batch_size": 128, "epochs": 60, "milestones": "40", "momentum_epochs": 60,
    "single_epochs": 6, "similarity": 0.6, "candidates": 10, "delta": 5.0, "hard_share": 0.01,
}  # fmt: skip
SHUFFLED: dict[str, dict[str, object]] = {
    "market1501-mmcl": MMCL,
    "msmt17-mmcl": {**MMCL, "dataset": "msmt17"},
    "market1501-buc": {
        **SHARED, "method": "buc", "features": 2048, "batch_size": 16, "bn_chunk": 16, "epochs": 20 + 19 * 2,
        "milestones": "16", "reset_optimizer": True, "erase": 0.0, "temp": 0.1, "dropout": 0.5, "first_epochs": 20,
        "step_epochs": 2, "merge_share": 0.05, "size_penalty": 0.003,
    },
    "market1501-softsim": {
        **SHARED, "method": "softsim", "batch_size": 16, "temp": 0.1, "hard_epochs": 20, "similar": 8,
        "own_share": 0.6, "camera_penalty": 0.02,
    },
    "market1501-pplr": {
        "dataset": "market1501", "method": "pplr", "height": 384, "width": 128, "parts": 3, "batch_size": 64,
        "num_instances": 4, "bn_chunk": 16, "epochs": 50, "step_size": 20, "lr": 3.5e-4, "optimizer": "adam",
        "eps": 0.5, "agreement_neighbours": 20, "own_label": 0.5, "refine_epoch": 5,
    },
    "market1501-cycas": {
        "dataset": "market1501", "method": "cycas", "arch": "resnet50", "height": 256, "width": 128,
        "cycle_delta": 0.5, "cycle_margin": 0.5, "frame_window": 100,
    },
}  # fmt: skip


@pytest.mark.parametrize("name", SHUFFLED)
def test_numbers(name: str) -> None:
    assert parse(["--preset", name]).flat().items() >= SHUFFLED[name].items()
