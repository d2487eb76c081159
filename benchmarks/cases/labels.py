"""Pseudo labels: neighbours, encoding, Jaccard, DBSCAN, and the whole way from features to labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import checks
from benchmarks.cases.setting import Setting, identities, missing
from benchmarks.data import clustered_features, real_like_features
from benchmarks.measure import Case, Variant, WrongResult
from benchmarks.published import labels as published
from ise_fast import ops, reference
from ise_fast.types import CSRGraph

K1, K2, EPS, MIN_SAMPLES = 30, 6, 0.6, 4


def _features(n: int, d: int, setting: Setting) -> Tensor:
    return clustered_features(n, d, identities(n)).to(setting.device)


def knn(setting: Setting) -> Iterator[Case]:
    """The 30 nearest neighbours of every row, self included."""
    for n, d in setting.label_sizes():
        x = _features(n, d, setting)
        truth = ops.knn(x, K1).indices
        loose, strict = (partial(checks.same_neighbours, truth, exact=exact) for exact in (False, True))
        small, cpu = n <= setting.slow_limit, x.device.type == "cpu"
        variants = [Variant("fused", partial(_neighbours, ops, x))]
        peers = [  # name, modules it needs, whether it suits this device and size
            ("faiss", ("faiss",), small and cpu, partial(published.neighbours, x, K1)),
            ("scikit-learn", ("sklearn",), small and cpu, partial(_sklearn_neighbours, x)),
            ("cuML", ("cuml",), not cpu, partial(_cuml_neighbours, x)),
            ("cuVS", ("cuvs",), not cpu, partial(_cuvs_neighbours, x)),
        ]
        if n <= setting.reference_limit:
            variants.append(Variant("reference", partial(_neighbours, reference, x), strict))
        if small:
            variants.append(Variant("torch matmul + topk", partial(_matmul_topk, x), loose))
            variants.append(Variant("yardstick: x @ x.T", partial(torch.matmul, x, x.T)))
        variants += [Variant(name, run, loose) for name, modules, fits, run in peers if fits and not missing(*modules)]
        yield Case(
            operator="knn",
            shape={"N": n, "d": d, "k": K1},
            variants=variants,
            flops=float(n) * n * d,  # each pair once
            bytes=n * d * 4 + n * K1 * 12,
            device=x.device,
            skipped={name: missing(*modules) for name, modules, fits, _ in peers if fits and missing(*modules)},
        )


def _neighbours(implementation: ModuleType, x: Tensor) -> Tensor:
    indices: Tensor = implementation.knn(x, K1).indices
    return indices


def _matmul_topk(x: Tensor) -> Tensor:
    squares = x.square().sum(1)
    return (squares[:, None] + squares[None, :] - 2 * (x @ x.T)).topk(K1, largest=False).indices


def _sklearn_neighbours(x: Tensor) -> Any:
    from sklearn.neighbors import NearestNeighbors

    return NearestNeighbors(n_neighbors=K1, algorithm="brute").fit(x.numpy()).kneighbors(x.numpy())[1]


def _cuml_neighbours(x: Tensor) -> Any:
    from cuml.neighbors import NearestNeighbors

    return NearestNeighbors(n_neighbors=K1, algorithm="brute").fit(x).kneighbors(x, return_distance=False)


def _cuvs_neighbours(x: Tensor) -> Any:
    from cuvs.neighbors import brute_force

    return brute_force.search(brute_force.build(x), x, K1)[1].copy_to_host()


def radius_graph(setting: Setting) -> Iterator[Case]:
    """All pairs within a Euclidean radius, about 20 a row."""
    for n, d in setting.label_sizes():
        x = _features(n, d, setting)
        eps = float(ops.knn(x, 20).distances[:, -1].sqrt().median())
        truth = ops.radius_graph(x, eps)
        variants = [Variant("fused", partial(ops.radius_graph, x, eps))]
        if n <= setting.reference_limit:
            check = partial(checks.same_graph, truth)
            variants.append(Variant("reference", partial(reference.radius_graph, x, eps), check))
        if n <= setting.slow_limit and x.device.type == "cpu" and not missing("sklearn"):
            variants.append(Variant("scikit-learn", partial(_sklearn_radius, x, eps), partial(_same_pairs, truth)))
        yield Case(
            operator="radius_graph",
            shape={"N": n, "d": d},
            variants=variants,
            flops=float(n) * n * d,
            bytes=n * d * 4 + truth.nnz * 8,
            device=x.device,
            skipped={"scikit-learn": reason} if (reason := missing("sklearn")) else {},
        )


def _sklearn_radius(x: Tensor, eps: float) -> Any:
    from sklearn.neighbors import NearestNeighbors

    return NearestNeighbors(radius=eps, algorithm="brute").fit(x.numpy()).radius_neighbors_graph(x.numpy())


def _same_pairs(truth: CSRGraph, got: Any) -> str:
    mine = truth.to_scipy()
    mine.data = np.ones_like(mine.data)  # a distance of zero is a pair too
    extra = abs(mine - got).nnz
    if extra > 1e-5 * truth.nnz:
        raise WrongResult(f"{extra} of {truth.nnz} pairs differ")
    return f"{extra} of {truth.nnz} pairs differ" if extra else ""


def k_reciprocal_encoding(setting: Setting) -> Iterator[Case]:
    """Reciprocal sets, their expansion, softmax weights and query expansion; neighbours included."""
    for n, d in setting.label_sizes():
        x = _features(n, d, setting)
        truth = ops.k_reciprocal_encoding(x, K1, K2)
        variants = [Variant("fused", partial(ops.k_reciprocal_encoding, x, K1, K2))]
        if n <= setting.reference_limit:
            check = partial(checks.same_graph, truth)
            variants.append(Variant("reference", partial(reference.k_reciprocal_encoding, x, K1, K2), check))
        variants.append(Variant("its neighbours alone", partial(ops.knn, x, K1)))
        yield Case(
            operator="k_reciprocal_encoding",
            shape={"N": n, "d": d, "k1": K1, "k2": K2},
            variants=variants,
            flops=float(n) * n * d,
            bytes=n * d * 4 + truth.nnz * 8,
            device=x.device,
        )


def jaccard_graph(setting: Setting) -> Iterator[Case]:
    """Every pair with a Jaccard distance of at most eps; neighbours and encoding included."""
    for n, d in setting.label_sizes():
        x = _features(n, d, setting)
        truth = ops.jaccard_graph(x, K1, K2, eps=EPS)
        variants = [Variant("fused", partial(ops.jaccard_graph, x, K1, K2, eps=EPS))]
        if n <= setting.reference_limit:
            check = partial(checks.same_graph, truth)
            variants.append(Variant("reference", partial(reference.jaccard_graph, x, K1, K2, eps=EPS), check))
        variants.append(Variant("its encoding alone", partial(ops.k_reciprocal_encoding, x, K1, K2)))
        yield Case(
            operator="jaccard_graph",
            shape={"N": n, "d": d, "k1": K1, "k2": K2},
            variants=variants,
            flops=float(n) * n * d,
            bytes=n * d * 4 + truth.nnz * 8,
            device=x.device,
        )


def dbscan(setting: Setting) -> Iterator[Case]:
    """Labels from the sparse graph; scikit-learn takes the dense matrix, as the published programs give it."""
    for n, d in setting.label_sizes():
        x = _features(n, d, setting)
        graph = ops.jaccard_graph(x, K1, K2, eps=EPS)
        truth = ops.dbscan(graph, EPS, MIN_SAMPLES).labels
        exact = partial(checks.same_labels, truth, exact=True)
        variants = [Variant("fused", partial(_cluster, ops, graph))]
        skipped = {}
        if n <= setting.slow_limit:
            variants.append(Variant("reference", partial(_cluster, reference, graph), exact))
        if reason := missing("sklearn"):
            skipped["scikit-learn"] = reason
        else:
            from sklearn.neighbors import sort_graph_by_row_values

            sparse = graph.to("cpu").to_scipy()
            sparse = sort_graph_by_row_values(sparse, copy=True, warn_when_not_sorted=False)
            variants.append(Variant("scikit-learn, sparse", partial(_sklearn_dbscan, sparse), exact))
            if n <= setting.slow_limit:
                dense = ops.jaccard_distance(x, K1, K2).cpu().numpy()
                variants.append(Variant("scikit-learn, dense", partial(_sklearn_dbscan, dense), exact))
        yield Case(
            operator="dbscan",
            shape={"N": n, "pairs": graph.nnz},
            variants=variants,
            bytes=graph.nnz * 8 + n * 17,
            device=x.device,
            skipped=skipped,
        )


def _cluster(implementation: ModuleType, graph: CSRGraph) -> Tensor:
    labels: Tensor = implementation.dbscan(graph, EPS, MIN_SAMPLES).labels
    return labels


def _sklearn_dbscan(distance: Any) -> Any:
    from sklearn.cluster import DBSCAN

    return DBSCAN(eps=EPS, min_samples=MIN_SAMPLES, metric="precomputed", n_jobs=-1).fit_predict(distance)


def features_to_labels(setting: Setting) -> Iterator[Case]:
    """The whole way, features to pseudo labels: what a user waits for, so at one size more than its stages."""
    sizes = setting.label_sizes()
    if not (setting.quick or setting.sizes):
        sizes.append((32_621, 2048))
    for n, d in sizes:
        x = _features(n, d, setting)
        truth = _labels(ops, x)
        variants = [Variant("fused", partial(_labels, ops, x))]
        skipped = {}
        if n <= setting.reference_limit:
            variants.append(
                Variant("reference", partial(_labels, reference, x), partial(checks.same_labels, truth, exact=True))
            )
        variants.append(Variant("yardstick: x @ x.T", partial(torch.matmul, x, x.T)))
        if n <= setting.slow_limit:
            if reason := missing("sklearn"):
                skipped["published"] = reason
            else:
                check = partial(checks.same_labels, truth, exact=False)
                variants.append(
                    Variant("published", partial(published.pseudo_labels, x.cpu(), K1, K2, EPS, MIN_SAMPLES), check)
                )
        yield _whole_way(n, d, x, variants, skipped)
    for n, d in setting.growth_sizes():
        x = _features(n, d, setting)
        yield _whole_way(n, d, x, [Variant("fused", partial(_labels, ops, x))], {}, axis="N")


def _whole_way(n: int, d: int, x: Tensor, variants: list[Variant], skipped: dict[str, str], axis: str = "") -> Case:
    return Case(
        operator="features_to_labels",
        shape={"N": n, "d": d, "k1": K1, "k2": K2},
        variants=variants,
        flops=float(n) * n * d,
        bytes=n * d * 4 + n * 8,
        axis=axis,
        device=x.device,
        skipped=skipped,
    )


def _labels(implementation: ModuleType, x: Tensor) -> Tensor:
    return _cluster(implementation, implementation.jaccard_graph(x, K1, K2, eps=EPS))


def real_like_labels(setting: Setting) -> Iterator[Case]:
    """The whole way, with principal axes and without, on a real network's spectrum and on isotropic features."""
    for n, d in setting.label_sizes():
        for name, x in (
            ("real-like", real_like_features(n, d, identities(n)).to(setting.device)),
            ("isotropic", _isotropic(n, d, setting)),
        ):
            truth = _labels(ops, x)
            exact = partial(checks.same_labels, truth, exact=True)
            variants = [
                Variant("fused", partial(_labels, ops, x)),
                Variant("without principal axes", partial(_labels_without_axes, x), exact),
                Variant("yardstick: x @ x.T", partial(torch.matmul, x, x.T)),
            ]
            skipped = {}
            if reason := missing("sklearn"):
                skipped["published"] = reason
            elif n <= setting.slow_limit and name == "real-like":
                loose = partial(checks.same_labels, truth, exact=False)
                variants.append(
                    Variant("published", partial(published.pseudo_labels, x.cpu(), K1, K2, EPS, MIN_SAMPLES), loose)
                )
            case = _whole_way(n, d, x, variants, skipped)
            yield replace(case, operator=f"real_like_labels: {name}")


def _isotropic(n: int, d: int, setting: Setting) -> Tensor:
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.normalize(x, dim=1).to(setting.device)


def _labels_without_axes(x: Tensor) -> Tensor:
    native = torch.ops.ise_fast
    v = native.k_reciprocal_encoding(x, native.knn(x, K1, None, "sqeuclidean", 0, -1)[1], K2)
    return _cluster(ops, CSRGraph(*native.jaccard_graph(*v, EPS, 0, len(x))))


def few_columns(setting: Setting) -> Iterator[Case]:
    """DBSCAN of points in the plane and in space, and with 16 columns, against scikit-learn."""
    if missing("sklearn") or setting.device.type != "cpu":
        return
    sizes = [(400, 2)] if setting.quick else [(20_000, 2), (20_000, 3), (20_000, 16), (150_000, 2), (150_000, 3)]
    if setting.growth:
        sizes += [(1_000_000, 2), (1_000_000, 3)]
    for n, d in sizes:
        yield _against_sklearn("few_columns", {"N": n, "d": d}, *_blobs(n, d))


def many_neighbours(setting: Setting) -> Iterator[Case]:
    """The same where each point has hundreds or thousands of neighbours: points anywhere in the unit cube."""
    if missing("sklearn") or setting.device.type != "cpu":
        return
    n = 400 if setting.quick else 20_000
    for d, eps in ((1, 0.01), (1, 0.05), (2, 0.1), (2, 0.2), (3, 0.2)):
        x = np.random.default_rng(0).random((n, d))
        neighbours = ops.radius_graph(torch.from_numpy(x), eps).nnz // n
        yield _against_sklearn("many_neighbours", {"N": n, "d": d, "neighbours": neighbours}, x, eps)


def _against_sklearn(operator: str, shape: dict[str, float], x: Any, eps: float) -> Case:
    truth = torch.from_numpy(_fitted("ours", x, eps))
    theirs = partial(_fitted, "scikit-learn", x, eps)
    return Case(
        operator=operator,
        shape=shape,
        variants=[
            Variant("DBSCAN", partial(_fitted, "ours", x, eps)),
            Variant("scikit-learn", theirs, partial(checks.same_labels, truth, exact=True)),
        ],
        bytes=x.nbytes + len(x) * 8,
    )


def _blobs(n: int, d: int) -> tuple[Any, float]:
    """[n, d] float64 points, 500 around each of many centres of one density, and a radius."""
    numbers = np.random.default_rng(0)
    crowds = max(1, n // 500)
    centres = numbers.random((crowds, d)) * 6 * crowds ** (1 / d)
    x = centres[numbers.integers(0, crowds, n)] + 0.6 * numbers.standard_normal((n, d))
    return x, {2: 0.2, 3: 0.3}.get(d, 2.2)


def _fitted(whose: str, x: Any, eps: float) -> Any:
    import sklearn.cluster

    from ise_fast import cluster

    estimator = cluster.DBSCAN if whose == "ours" else sklearn.cluster.DBSCAN
    return estimator(eps=eps, min_samples=10).fit(x).labels_


def label_stages(setting: Setting) -> Iterator[Case]:
    """Each stage by itself, given the result of the one before: only the search for neighbours may grow as N^2."""
    native = torch.ops.ise_fast
    for n, d in setting.growth_sizes() or setting.label_sizes()[:1]:
        x = _features(n, d, setting)
        nn = ops.knn(x, K1).indices
        v = native.k_reciprocal_encoding(x, nn, K2)
        pairs = native.jaccard_graph(*v, EPS, 0, n)
        stages = [
            ("knn", partial(ops.knn, x, K1), float(n) * n * d, n * d * 4 + n * K1 * 12),
            ("encoding", partial(native.k_reciprocal_encoding, x, nn, K2), 0, n * (d * 4 + K1 * 8) + len(v[1]) * 8),
            ("jaccard graph", partial(native.jaccard_graph, *v, EPS, 0, n), 0, (len(v[1]) + len(pairs[1])) * 8),
            ("dbscan", partial(native.dbscan, *pairs, EPS, MIN_SAMPLES), 0, len(pairs[1]) * 8 + n * 17),
        ]
        for name, run, flops, size in stages:
            yield Case(
                operator=f"label_stages: {name}",
                shape={"N": n, "d": d},
                variants=[Variant("fused", run)],
                flops=flops,
                bytes=size,
                axis="N",
                device=x.device,
            )
