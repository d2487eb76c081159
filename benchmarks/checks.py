"""Is a variant's result the right one? Each check returns a remark for the table or raises WrongResult."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from benchmarks.measure import WrongResult
from ise_fast.types import CSRGraph


def same_neighbours(truth: Tensor, got: ArrayLike, *, exact: bool) -> str:
    """[N, k] indices: equal to the letter, or (float32 peers) nearly the same sets in every way that matters."""
    other = np.asarray(torch.as_tensor(got).cpu())
    mine = truth.cpu().numpy()
    if mine.shape == other.shape and (mine == other).all():
        return ""
    if exact or mine.shape != other.shape:
        raise WrongResult(f"neighbours differ (shapes {mine.shape}, {other.shape})")
    shared = float(np.mean([len(np.intersect1d(a, b)) for a, b in zip(mine, other, strict=True)])) / mine.shape[1]
    if shared < 0.995:
        raise WrongResult(f"only {shared:.2%} of the neighbours are right")
    return f"{1 - shared:.4%} of neighbours differ (float32 ties)" if shared < 1 else "order differs in ties"


def same_labels(truth: Tensor, got: ArrayLike, *, exact: bool) -> str:
    """[N] cluster labels: equal, equal up to renaming, or (peers that see rounded distances) nearly so."""
    mine, other = truth.cpu().numpy(), np.asarray(torch.as_tensor(got).cpu())
    if mine.shape == other.shape and (mine == other).all():
        return ""
    if exact or mine.shape != other.shape:
        raise WrongResult(f"labels differ (shapes {mine.shape}, {other.shape})")
    pairs, counts = np.unique(np.stack([mine, other]), axis=1, return_counts=True)
    # of each cluster on either side: its largest common part with one of the other side
    best: tuple[dict[int, int], dict[int, int]] = ({}, {})
    for *pair, count in zip(*pairs.tolist(), counts.tolist(), strict=True):
        for side in (0, 1):
            best[side][pair[side]] = max(best[side].get(pair[side], 0), count)
    kept = sum(n for a, b, n in zip(*pairs.tolist(), counts.tolist(), strict=True) if best[0][a] == best[1][b] == n)
    wrong = len(mine) - kept
    if wrong > 0.005 * len(mine):
        raise WrongResult(f"{wrong} of {len(mine)} labels differ")
    return f"{wrong} of {len(mine)} labels differ" if wrong else "same up to renaming"


def same_graph(truth: CSRGraph, got: CSRGraph) -> str:
    """Same pattern; values equal but for the rounding of exp, which is the library's in the reference."""
    if not (
        truth.indptr.equal(got.indptr.to(truth.device))
        and truth.indices.equal(got.indices.to(truth.indices))
        and torch.allclose(truth.values, got.values.to(truth.device), rtol=0, atol=1e-6)
    ):
        raise WrongResult("graphs differ")
    return ""


def close(truth: Any, got: Any, *, tolerance: float) -> str:
    """Relative distance of tensors (or tuples of them) in the Euclidean norm."""
    pairs = zip(truth, got, strict=True) if isinstance(truth, tuple) else [(truth, got)]
    worst = 0.0
    for mine, other in pairs:
        a, b = torch.as_tensor(mine).double().cpu(), torch.as_tensor(other).double().cpu()
        if a.shape != b.shape:
            raise WrongResult(f"shapes differ: {tuple(a.shape)}, {tuple(b.shape)}")
        error = float((a - b).norm() / a.norm().clamp_min(1e-30))
        if not error <= tolerance:  # NaN fails
            raise WrongResult(f"relative error {error:.2e}, allowed {tolerance:.0e}")
        worst = max(worst, error)
    return f"relative error {worst:.0e}" if worst > 1e-5 else ""
