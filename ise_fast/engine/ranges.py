"""Which values a setting may have: those that every operator and library behind it will take later."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from ise_fast.engine.errors import UsageError
from ise_fast.engine.optimizer import milestones

MOST = 2**31 - 1
# Counts and their smallest and largest value.
_COUNTS: dict[str, tuple[int, int]] = {
    **dict.fromkeys(("k1", "k2", "min_samples", "supports", "batch_size", "num_instances"), (1, MOST)),
    **dict.fromkeys(("epochs", "step_size", "print_freq", "test_batch_size", "keep_checkpoints"), (1, MOST)),
    **dict.fromkeys(
        ("padding", "features", "parts", "bn_chunk", "eval_step", "checkpoint_step", "tracklet_epochs"), (0, MOST)
    ),
    **dict.fromkeys(("iters", "warmup_epochs"), (0, MOST)),
    **dict.fromkeys(("height", "width"), (1, 65535)),
    "clusters": (0, MOST),
    "kmeans_iters": (1, MOST),
    **dict.fromkeys(
        ("similar", "candidates", "agreement_neighbours", "momentum_epochs", "first_epochs", "step_epochs"), (1, MOST)
    ),
    **dict.fromkeys(("hard_epochs", "single_epochs", "refine_epoch"), (0, MOST)),
    "neighbours": (2, MOST),
    "frame_window": (2, 10**9),
    **dict.fromkeys(("max_noise", "cross_epoch", "hard_negatives"), (0, MOST)),
    "workers": (0, 1024),
    "seed": (0, 2**63 - 1),  # torch's generators take 64 bits, other libraries 63
}
# Numbers and their smallest and largest value.
_FLOAT32 = torch.finfo(torch.float32).max
_NUMBERS: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("flip", "erase", "view_share", "momentum", "base_degree", "eps_gap"), (0.0, 1.0)),
    **dict.fromkeys(("backbone_lr", "sgd_momentum", "warmup_start", "mix_probability", "label_smoothing"), (0.0, 1.0)),
    **dict.fromkeys(("weight_decay", "lp_weight", "cross_weight"), (0.0, _FLOAT32)),
    "lr": (math.ulp(0.0), _FLOAT32),
    "mix_alpha": (1e-3, 1e3),
    "clip_grad": (0.0, math.inf),
    # The gradient has 1 / temperature, and Adam its square.
    **dict.fromkeys(("temp", "lp_temp"), (_FLOAT32**-0.5, _FLOAT32)),
    "min_similarity": (-1.0, 1.0),  # cosines
    "eps": (0.0, 2.0),  # distances of unit rows
    **dict.fromkeys(("own_share", "own_label"), (0.0, 1.0)),
    "similarity": (-1.0, 1.0),
    **dict.fromkeys(("hard_share", "merge_share"), (math.ulp(0.0), 1.0)),
    "dropout": (0.0, math.nextafter(1.0, 0.0)),
    **dict.fromkeys(("camera_penalty", "size_penalty", "delta", "cycle_margin"), (0.0, _FLOAT32)),
    "cycle_delta": (1e-3, _FLOAT32),
}


def check(flat: Mapping[str, Any]) -> None:
    """Refuse settings that cannot work, whatever the images are.

    Args:
        flat: settings by name.

    Raises:
        UsageError: naming the flag, what was expected and what came.
    """
    for name, (low, high) in {**_COUNTS, **_NUMBERS}.items():
        value = flat[name]
        if value is not None and not low <= value <= high:  # also NaN
            raise UsageError(f"--{name.replace('_', '-')}: expected {_range(name, low, high)}, got {value}")
    try:
        milestones(flat["milestones"])
    except ValueError:
        raise UsageError(
            f"--milestones: expected rising epochs from 1 on, such as 20,40, got {flat['milestones']!r}"
        ) from None
    if flat["optimizer"] == "sgd" and flat["nesterov"] and flat["sgd_momentum"] == 0:
        raise UsageError("--sgd-momentum: expected more than 0 with Nesterov's momentum (or --no-nesterov), got 0.0")
    # Unrelated images are at Jaccard distance 1 in float32: an eps of 1 means all pairs.
    if flat["distance"] == "jaccard" and float(torch.tensor(flat["eps"], dtype=torch.float32)) >= 1.0:
        raise UsageError(f"--eps: expected less than 1 in float32 for --distance jaccard, got {flat['eps']}")
    if flat["k2"] > flat["k1"]:
        raise UsageError(f"--k2: expected at most --k1 = {flat['k1']}, got {flat['k2']}")
    batch, instances, chunk = flat["batch_size"], flat["num_instances"], flat["bn_chunk"]
    if batch % instances:
        raise UsageError(f"--batch-size: expected a multiple of --num-instances = {instances}, got {batch}")
    if batch // instances < 2:
        raise UsageError("--batch-size: expected at least two clusters in a batch (2 x --num-instances)")
    if chunk == 1:
        raise UsageError("--bn-chunk: expected 0 or at least 2 images for a BatchNorm, got 1")
    if chunk and batch > chunk and batch % chunk:
        raise UsageError(f"--bn-chunk: expected a divisor of --batch-size = {batch}, got {chunk}")


def _range(name: str, low: float, high: float) -> str:
    if name in _COUNTS:
        return f"a whole number from {low} to {high}"
    if low == math.ulp(0.0):
        return "a positive finite number"
    if high == 1.0:
        return f"a number from {low:g} to {high:g}"
    return f"a number from {low:.2g}" + (f" to {high:.2g}" if math.isfinite(high) else "")
