"""What to tell the user when clustering finds too little: another eps, or that the features have collapsed.

This runs just when distances may be useless and every pair a neighbour, so it looks at a sample of rows, and clusters
again only where few enough pairs are within eps: below 500 MB for 50,000 images, whatever the features.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from ise_fast import ops
from ise_fast._collapse import collapse_text
from ise_fast.ops._copies import leave_out_copies
from ise_fast.ops._csr import Csr
from ise_fast.ops.jaccard import encode
from ise_fast.types import CSRGraph

#: Radii to try, and one beyond them that takes in every pair that shares anything.
RADII = tuple(step / 20 for step in range(2, 20))
WIDEST = 0.999

#: Rows that are looked at, in as many ranges, so that no single camera or identity fills the sample.
SAMPLE, RANGES = 2_000, 40

#: Pairs of a graph that is clustered again, at about 30 bytes each.
MOST_PAIRS = 3_000_000

COLLAPSE_REMEDY = "look at these images, lower --lr or start from other weights"


@dataclass(frozen=True)
class EpsAdvice:
    """What the distances say about eps when clustering found too little."""

    quantiles: dict[float, float]  # of the distance to the min_samples-th neighbour
    trials: dict[float, int]  # eps -> clusters
    eps: float | None  # the smallest eps that gives the most clusters; None: no eps gives one
    collapse: str = ""  # the rows that are among the nearest of most rows, if there are such
    below: float = 1.0  # radii from there on take in everything

    def __str__(self) -> str:
        at = ", ".join(f"{q:.0%} {d:.3f}" for q, d in self.quantiles.items())
        tried = ", ".join(f"{eps:.2f}: {k}" for eps, k in self.trials.items()) or "none tried, too many pairs"
        text = f"distance to the min_samples-th neighbour by quantile: {at}; clusters by eps: {tried}"
        if self.collapse:
            return f"{self.collapse}; {text}; {COLLAPSE_REMEDY}"
        nothing = f"no --eps below {self.below:g} gives clusters: lower --min-samples"
        return f"{text}; {nothing if self.eps is None else f'try --eps {self.eps:.2f}'}"


def advise_eps(features: Tensor, k1: int, k2: int, min_samples: int) -> EpsAdvice:
    """Look at the distances of a sample of rows, and cluster again at the radii that have few enough pairs.

    Args:
        features: [N, d] float32 unit rows.
        k1: neighbours of the encoding.
        k2: neighbours of the query expansion.
        min_samples: of DBSCAN.
    """
    nn, v = encode(features, k1, k2)
    few, twin = leave_out_copies(v, min_samples)
    kept = few[0].diff() > 0 if twin is not None else torch.ones_like(few[0][1:], dtype=torch.bool)
    distances, pairs = look_at_sample(v, kept, min_samples)
    quantiles = {q: float(torch.quantile(distances, q)) for q in (0.05, 0.25, 0.5, 0.75, 0.95)}
    trials = try_radii(few, [eps for eps in RADII if pairs[eps] <= MOST_PAIRS], min_samples)
    most = max(trials.values(), default=0)
    best = min(eps for eps, clusters in trials.items() if clusters == most) if most > 0 else None
    return EpsAdvice(quantiles, trials, best, collapse_text(nn, k2, share=0.5))


def look_at_sample(v: Csr, kept: Tensor, k: int) -> tuple[Tensor, dict[float, float]]:
    """Distances of evenly spread rows to all rows, a few rows at a time.

    Args:
        v: the encoding.
        kept: [N] bool, the rows whose pairs count.
        k: which neighbour.

    Returns:
        [sample] distance to the k-th nearest row, self included; radius -> pairs among the kept rows, estimated.
    """
    rows = kept.shape[0]
    length = max(1, -(-min(SAMPLE, rows) // RANGES))
    starts = range(0, rows, length) if rows <= SAMPLE else [i * (rows - length) // (RANGES - 1) for i in range(RANGES)]
    nearest = v[2].new_ones(length * len(starts))  # written in place: what is kept would pin the heap between ranges
    seen, found = 0, torch.zeros(len(RADII), dtype=torch.int64, device=kept.device)
    radii = torch.tensor(RADII, device=kept.device)
    for number, begin in enumerate(starts):
        end = min(begin + length, rows)
        indptr, indices, values = torch.ops.ise_fast.jaccard_graph(*v, WIDEST, begin, end)
        for row, (a, b) in enumerate(itertools.pairwise(indptr.tolist()), start=number * length):
            if b - a >= k:  # else 1, as for pairs that share nothing
                nearest[row] = values[a:b].kthvalue(k).values
        counted = kept[begin:end].repeat_interleave(indptr.diff()) & kept[indices]
        found += torch.searchsorted(values[counted].sort().values, radii, right=True)
        seen += int(kept[begin:end].sum())
    scale = int(kept.sum()) / max(seen, 1)
    return nearest[: number * length + end - begin].clamp_max(1.0), {
        eps: count * scale for eps, count in zip(RADII, found.tolist(), strict=True)
    }


def try_radii(v: Csr, radii: list[float], min_samples: int) -> dict[float, int]:
    """Clusters at each radius; one graph, of the largest radius that has few enough pairs, serves all below."""
    rows = v[0].shape[0] - 1
    while radii:
        try:
            graph = CSRGraph(*torch.ops.ise_fast.jaccard_graph(*v, radii[-1], 0, rows, 2 * MOST_PAIRS))
        except ValueError:  # the sample misled: more pairs than that
            radii = radii[:-1]
            continue
        labels = {eps: ops.dbscan(within(graph, eps), eps, min_samples).labels for eps in radii}
        return {eps: int(found.max()) + 1 for eps, found in labels.items()}
    return {}


def within(graph: CSRGraph, eps: float) -> CSRGraph:
    """The pairs of a graph that are within a smaller radius."""
    keep = graph.values <= eps
    counts = torch.cat((keep.new_zeros(1, dtype=torch.int64), keep.cumsum(0)))
    return CSRGraph(counts[graph.indptr], graph.indices[keep], graph.values[keep], graph.shape)
