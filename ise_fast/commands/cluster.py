"""Labels for a file of features: `ise-fast cluster FILE -o labels.csv`."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

from ise_fast.commands.command import Parser, check_count, check_suffix, check_target, finish, user_path
from ise_fast.commands.feature_file import SUFFIXES, read_features, write_columns
from ise_fast.engine.console import say

PROG = "ise-fast cluster"
OUTPUTS = (".csv", ".json", ".npz", ".npy", ".parquet")
SAMPLE, PART = 256, 65536  # rows that are looked at to estimate pairs, and how many they are compared with at once
SMALL, LARGE = 1e-12, 1e18  # between these, the length of a row is right in float32
UNIT = 1e-3  # a row whose length differs by more is not of unit length


def parser() -> Parser:
    result = Parser(
        prog=PROG,
        description="Cluster features by DBSCAN, exactly and without an N x N matrix: on the k-reciprocal Jaccard "
        "distance of unit rows, which suits embeddings, or on a plain distance.",
    )
    result.add_argument("file", type=user_path, help=f"[n, d] numbers: {', '.join(SUFFIXES)}")
    result.add_argument(
        "--distance", choices=["jaccard", "cosine", "euclidean"], default="jaccard",
        help="jaccard and cosine bring the rows to unit length first; euclidean takes them as they are",
    )  # fmt: skip
    result.add_argument(
        "--eps",
        type=float,
        nargs="+",
        help="radius; several: all from one graph (default: 0.6 for jaccard; else advice)",
    )
    result.add_argument("--min-samples", type=int, default=4, help="neighbours that make a core point, self included")
    result.add_argument("--k1", type=int, default=30, help="jaccard: neighbours of the encoding")
    result.add_argument("--k2", type=int, default=6, help="jaccard: neighbours of the query expansion")
    result.add_argument(
        "--max-pairs", type=int, default=1000, help="refuse graphs of more pairs a row than this, on average"
    )
    result.add_argument("-o", "--output", type=user_path, help=f"labels, -1 is noise: {', '.join(OUTPUTS)}")
    result.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:N")
    return result


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0 done, 2 wrong arguments or features."""
    return finish(PROG, lambda: _run(parser().parse_args(argv)))


def _run(options: Any) -> None:
    if options.output is not None:
        check_suffix("--output", options.output, OUTPUTS)
        check_target("--output", options.output)
        if len(set(options.eps or [])) > 1 and options.output.suffix.lower() == ".npy":
            raise ValueError("--output: .npy holds the labels of one --eps; several fit .csv, .npz, .json or .parquet")
        if options.eps is None and options.distance != "jaccard":
            raise ValueError(
                f"--eps: the {options.distance} distance has no usual radius, so labels for --output need one; "
                "without --output there is advice"
            )
    check_suffix("FILE", options.file, SUFFIXES)
    _check_numbers(options)
    from ise_fast import ops

    x, columns = _features(options)
    if options.eps is None and options.distance != "jaccard":
        print(_advice(x, options))
        return
    radii = sorted(set(options.eps or [0.6]))
    from ise_fast._search_progress import announce_search, search_bar

    if text := announce_search(x, min(options.k1, len(x))):
        say(text)
    begin = time.perf_counter()
    with search_bar(len(x)):
        graph = _graph(x, radii[-1], options)
    seconds = time.perf_counter() - begin
    pairs = graph.indices.numel() / len(x)
    say(f"{len(x)} rows x {x.shape[1]}: {pairs:.1f} pairs a row within {radii[-1]:g}, {seconds:.1f} s")
    results = [ops.dbscan(graph, radius, options.min_samples).labels.cpu() for radius in radii]
    if options.output is not None:  # first: the reader of what follows may end
        names = ["label"] if len(radii) == 1 else [f"label_{_name(radius)}" for radius in radii]
        rows = columns if columns else {"row": list(range(len(x)))}
        labels = {name: values.numpy() for name, values in zip(names, results, strict=True)}
        write_columns(options.output, {**rows, **labels})
    print("    eps  clusters   largest     noise")
    for radius, values in zip(radii, results, strict=True):
        sizes = values[values >= 0].bincount()
        largest = int(sizes.max()) if len(sizes) else 0
        print(f"{_name(radius):>7s} {len(sizes):9d} {largest:9d} {int((values < 0).sum()):9d}")


def _check_numbers(options: Any) -> None:
    for name in ("min_samples", "k1", "k2", "max_pairs"):
        check_count("--" + name.replace("_", "-"), getattr(options, name))
    if options.k2 > options.k1:
        raise ValueError(f"--k2: expected at most --k1 = {options.k1}, got {options.k2}")
    for eps in options.eps or []:
        if not 0 <= eps < math.inf:  # also NaN
            raise ValueError(f"--eps: expected a number from 0, got {eps:g}")
        if options.distance == "jaccard" and eps >= 1:
            raise ValueError(f"--eps: expected less than 1 for --distance jaccard, got {_name(eps)}")


def _name(radius: float) -> str:
    """As few digits as tell it from every other one."""
    return short if float(short := f"{radius:g}") == radius else repr(radius)


def _features(options: Any) -> tuple[Any, dict[str, Any]]:
    """[n, d] float32 tensor on the device, of unit length where the distance needs it, and the other columns."""
    import torch

    from ise_fast._checks import check_features
    from ise_fast.engine.distributed import choose_device

    numbers, columns = read_features(options.file)
    x = check_features(str(options.file), torch.tensor(numbers, dtype=torch.float32))
    if options.distance != "euclidean":
        lengths = torch.linalg.vector_norm(x, dim=1, dtype=torch.float64)  # squares may leave float32
        if not bool((lengths > 0).all()):
            raise ValueError(f"{options.file}: row {int((lengths == 0).nonzero()[0])} is zero and has no direction")
        if bool((lengths - 1).abs().max() > UNIT):
            shortest, longest = float(lengths.min()), float(lengths.max())
            say(f"rows have lengths {shortest:.3g} to {longest:.3g}: brought to unit length")
            if not SMALL < shortest <= longest < LARGE:
                x = x / x.abs().amax(dim=1, keepdim=True)
            x = torch.nn.functional.normalize(x)
    return x.to(choose_device(options.device)), columns


def _graph(x: Any, eps: float, options: Any) -> Any:
    from ise_fast import ops
    from ise_fast.types import TooManyPairs

    if options.distance == "jaccard":
        k1 = min(options.k1, len(x))
        try:
            return ops.jaccard_graph(x, k1, min(options.k2, k1), eps=eps, max_pairs=options.max_pairs * len(x))
        except TooManyPairs as error:
            raise ValueError(f"--max-pairs: {str(error).removeprefix('max_pairs: ')}") from None
    _check_pairs(x, eps, options)
    return ops.radius_graph(x, eps, metric=options.distance)


def _check_pairs(x: Any, eps: float, options: Any) -> None:
    """Refuses what would fill the memory: pairs of some rows with all others tell how many there are."""
    import torch

    rows, pairs = x[torch.linspace(0, len(x) - 1, min(len(x), SAMPLE), device=x.device).long()], 0
    for part in x.split(PART):
        distance = 1 - rows @ part.T if options.distance == "cosine" else torch.cdist(rows, part)
        pairs += int((distance <= eps).sum())
    mean = pairs / len(rows)
    if mean > options.max_pairs:
        raise ValueError(
            f"--max-pairs: expected at most {options.max_pairs} pairs a row within --eps {eps:g}, got about {mean:.3g} "
            f"(by {len(rows)} rows); lower --eps or raise --max-pairs"
        )


def _advice(x: Any, options: Any) -> str:
    """Which eps to try: the distance to the neighbour that makes a row a core point, at a few quantiles."""
    import torch

    from ise_fast import ops

    k = min(options.min_samples, len(x))
    rows = x[torch.linspace(0, len(x) - 1, min(len(x), 2000)).long()]
    reach = ops.knn(x, k, y=rows, metric=options.distance).distances[:, -1].cpu()
    shares = (0.1, 0.25, 0.5, 0.75, 0.9)
    quantiles = torch.quantile(reach, torch.tensor(shares)).tolist()
    lines = [
        f"  {share:4.0%} of rows are core points from eps = {q:.4g} on"
        for share, q in zip(shares, quantiles, strict=True)
    ]
    return "\n".join([f"--eps: the {options.distance} distance has no usual radius. By {len(rows)} rows:", *lines])
