"""Searches for neighbours."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from benchmarks.profile.workloads.base import Call, Shape, Workload, generator, images, unit_rows

NEIGHBOURS = 30  # k1 of the pseudo labels
RADIUS = 0.6  # cosine
TILES = 8  # of radius_graph where rows are many: its products are half of the square, and half a tile more
ALL_COLUMNS = -1  # no prefixes, whose choice depends on results that a dry run does not have


def _knn(shape: Shape, dry: bool) -> Call:
    """Few queries among many rows, so that the pass over the scores outweighs what every query starts with.

    A buffer of 2,048 keys is filled and sorted before the first threshold is known; fewer rows never leave this phase,
    and to extrapolate it made a million rows look twice as slow as they are.
    """
    x = images(shape["N"], shape["d"], dry)
    queries = images(shape["N"], shape["d"], dry, seed=1)[:: shape["N"] // shape["Q"]][: shape["Q"]].contiguous()
    return lambda ops: ops.knn(x, NEIGHBOURS, queries, "cosine", 0, ALL_COLUMNS)


def _mixed(rows: Tensor) -> Tensor:
    """In random order: near rows in one block would give limits that nobody else is below."""
    return rows if not rows.numel() else rows[torch.randperm(len(rows), generator=generator(4))]


def _knn_half(shape: Shape, dry: bool) -> Call:
    """Rows among each other in blocks of T, smaller ones where rows are fewer.

    A pair costs the same, and so does a row of a tile on the diagonal; what the list of a row receives grows with the
    logarithm of the number of blocks.
    """
    x = images(shape["N"], shape["d"], dry)
    x = x if dry else _mixed(x)
    return lambda ops: ops.knn(x, NEIGHBOURS, None, "cosine", shape["T"], ALL_COLUMNS)


#: rows that bounds of a quarter of the columns do not tell from the 30 nearest: so many of a million x 2,048 of the
#: real-like set (`benchmarks.data.real_like_features`), about half of 32,621
LEFT = 120


def _few_axes(n: int, d: int, dry: bool) -> Tensor:
    """Unit rows in groups of LEFT that are all as near, on an eighth of the axes but for half a percent."""
    if dry:
        return torch.empty(n, d)
    kinds = unit_rows(-(-n // LEFT), d // 8, 1)[torch.arange(n) // LEFT]
    seen = kinds + 0.1 * unit_rows(n, d // 8, 2)
    return normalize(torch.cat([seen, 0.07 * unit_rows(n, d - d // 8, 3)], dim=1), dim=1)


def _knn_by_prefixes(shape: Shape, dry: bool) -> Call:
    """The search as it is chosen for many rows with few axes: here the width is forced."""
    x, width = _few_axes(shape["N"], shape["d"], dry), shape["d"] // 4 - 1
    x = x if dry else _mixed(x)
    return lambda ops: ops.knn(x, NEIGHBOURS, None, "cosine", shape["T"], width)


def _block(n: int) -> int:
    """Rows of a tile of radius_graph: few rows in as many tiles as many rows are in by its own choice."""
    return -(-n // TILES) if n <= 4096 else 0


def _radius(shape: Shape, dry: bool) -> Call:
    x = images(shape["N"], shape["d"])
    return lambda ops: ops.radius_graph(x, RADIUS, "cosine", _block(shape["N"]), ALL_COLUMNS)


#: half of LEFT rows are within it, and bounds of a quarter of the columns leave all of them
SMALL_RADIUS = 0.0148


def _radius_by_prefixes(shape: Shape, dry: bool) -> Call:
    x = _few_axes(shape["N"], shape["d"], dry)
    return lambda ops: ops.radius_graph(x, SMALL_RADIUS, "cosine", _block(shape["N"]), shape["d"] // 4 - 1)


def _in_blocks(*sizes: int) -> tuple[Shape, ...]:
    """With blocks as they are chosen (block_rows in csrc/cuda/candidate_lists.cuh)."""
    return tuple({"N": n, "T": min(max(-(-(n // 8) // 256) * 256, 2816), 4096), "d": 2048} for n in sizes)


WORKLOADS = {
    "knn": Workload(
        _knn,
        {"Q": 4, "N": 8192, "d": 64},
        ({"Q": 3368, "N": 15_913, "d": 2048},),
        lambda s: 2.0 * s["Q"] * s["N"] * s["d"],
        lambda s: (s["N"] + s["Q"]) * 4.0 * s["d"] + 12.0 * NEIGHBOURS * s["Q"],
        dry=True,
        terms=("1", "Q", "N", "Q*N", "Q*d", "N*d", "Q*log N"),
    ),
    "knn_half": Workload(
        _knn_half,
        {"N": 1024, "T": 256, "d": 64},
        _in_blocks(12_936, 32_621, 1_000_000),
        lambda s: 1.0 * s["N"] ** 2 * s["d"],
        lambda s: s["N"] * 4.0 * s["d"] + 12.0 * NEIGHBOURS * s["N"],
        dry=True,
        terms=("1", "N", "N*T", "N^2", "N*d", "N*log N/T"),
        smaller={"N": 512, "T": 128, "d": 64},
    ),
    "knn_by_prefixes": Workload(
        _knn_by_prefixes,
        {"N": 1024, "T": 256, "d": 64},
        _in_blocks(32_621, 1_000_000),
        lambda s: 1.0 * s["N"] ** 2 * s["d"] / 4,
        lambda s: s["N"] * 4.0 * s["d"] + 12.0 * NEIGHBOURS * s["N"],
        dry=True,
        terms=("1", "N", "N*T", "N^2", "N*d", "N*log N/T", "d^2", "d^3"),
        smaller={"N": 512, "T": 128, "d": 64},
    ),
    "radius_graph": Workload(
        _radius,
        {"N": 256, "d": 128},
        tuple({"N": n, "d": 2048} for n in (12_936, 32_621, 1_000_000)),
        lambda s: 1.0 * s["N"] ** 2 * s["d"],
        lambda s: 4.0 * s["N"] * s["d"],
        terms=("1", "N", "N^2", "N*d"),
    ),
    "radius_by_prefixes": Workload(
        _radius_by_prefixes,
        {"N": 256, "d": 64},
        tuple({"N": n, "d": 2048} for n in (32_621, 1_000_000)),
        lambda s: 1.0 * s["N"] ** 2 * s["d"] / 4,
        lambda s: 4.0 * s["N"] * s["d"],
        terms=("1", "N", "N^2", "N*d", "d^2", "d^3"),
    ),
}
