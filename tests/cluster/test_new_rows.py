"""Labels of several eps from one graph, of graphs that the user made, and of rows that were not fitted."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse
from sklearn.cluster import HDBSCAN
from sklearn.exceptions import NotFittedError

from ise_fast import ops
from ise_fast.cluster import DBSCAN, JaccardDBSCAN
from ise_fast.reference.k_reciprocal import half_width
from ise_fast.types import CSRGraph

EYE = np.eye(3, dtype=np.float32)


def blobs(seed: int, n: int, spread: float = 0.25) -> np.ndarray:
    """[n, 8] unit rows around six directions, the same for every seed."""
    rng = np.random.default_rng(seed)
    directions = np.random.default_rng(99).normal(size=(6, 8))
    x = directions[rng.integers(0, 6, n)] + spread * rng.normal(size=(n, 8))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("kind", ["graph", "sparse", "dense"])
def test_a_precomputed_graph_gives_the_labels_of_the_features(kind: str) -> None:
    x = torch.from_numpy(blobs(0, 120))
    graph = ops.jaccard_graph(x, 10, 3, eps=0.5)
    distances = {"graph": graph, "sparse": graph.to_scipy(), "dense": ops.jaccard_distance(x, 10, 3)}[kind]
    expected = JaccardDBSCAN(0.5, k1=10, k2=3).fit(x)
    found = JaccardDBSCAN(0.5, metric="precomputed").fit(distances)
    assert expected.labels_.max() > 1
    np.testing.assert_array_equal(np.asarray(found.labels_), expected.labels_.numpy())
    np.testing.assert_array_equal(np.asarray(found.core_sample_indices_), expected.core_sample_indices_.numpy())
    core = expected.core_sample_indices_
    if kind == "graph":
        assert isinstance(found.components_, CSRGraph)
        np.testing.assert_array_equal(found.components_.to_scipy().toarray(), graph.to_scipy()[core.numpy()].toarray())


def same_graph(a: CSRGraph, b: CSRGraph) -> bool:
    return a.shape == b.shape and all(getattr(a, p).equal(getattr(b, p)) for p in ("indptr", "indices", "values"))


def test_a_graph_is_copied_and_pickled_with_what_holds_it() -> None:
    graph = ops.radius_graph(torch.from_numpy(blobs(1, 40)), 0.5)
    part = CSRGraph(graph.indptr[:11], graph.indices[: graph.indptr[10]], graph.values[: graph.indptr[10]], (10, 40))
    for clone in (copy.copy, copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))):
        assert same_graph(clone(part), part)
        fitted = clone(JaccardDBSCAN(0.5, 1, metric="precomputed").fit(graph))
        assert same_graph(fitted.components_, graph)
        assert fitted.predict(part).tolist() == fitted.labels_[:10].tolist()
    assert copy.copy(part).values is part.values
    assert copy.deepcopy(part).values.data_ptr() != part.values.data_ptr()


@pytest.mark.parametrize("dtype", [bool, np.int64, np.uint8, np.float32])
def test_a_graph_of_any_numbers(dtype: type) -> None:
    distances = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]], dtype=dtype)
    graph = CSRGraph.from_scipy(sparse.csr_array(distances))
    assert graph.values.dtype == (torch.float32 if dtype == np.float32 else torch.float64)
    assert ops.dbscan(graph, 1.0, 3).core_mask.tolist() == [False, True, False]


def test_dbscan_takes_a_graph() -> None:
    x = torch.from_numpy(blobs(1, 100))
    graph = ops.radius_graph(x, 0.5)
    expected = DBSCAN(0.5).fit(x).labels_
    assert DBSCAN(0.5, metric="precomputed").fit(graph).labels_.equal(expected)
    weights = np.arange(100) % 2 / 2
    weighted = DBSCAN(0.5, metric="precomputed").fit(graph, sample_weight=weights).labels_
    assert weighted.equal(DBSCAN(0.5).fit(x, sample_weight=weights).labels_)
    assert not weighted.equal(expected)


@pytest.mark.parametrize("estimator", [JaccardDBSCAN(k1=8, k2=3), DBSCAN(min_samples=4)])
def test_one_graph_serves_several_radii(estimator: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ise_fast.ops._copies.USUAL_TERMS", 0)  # copies are left out however few
    x = np.concatenate([blobs(2, 150, spread=0.35), np.repeat(blobs(3, 2), 40, axis=0)])
    radii = [0.6, 0.1, 0.4]
    path = estimator.eps_path(x, radii)
    assert isinstance(path, np.ndarray)
    assert path.shape == (3, 230)
    assert not hasattr(estimator, "labels_")
    for radius, labels in zip(radii, path, strict=True):
        alone = type(estimator)(**{**estimator.get_params(), "eps": radius})
        np.testing.assert_array_equal(labels, alone.fit_predict(x))
    assert len({tuple(labels) for labels in path.tolist()}) == 3
    assert isinstance(estimator.eps_path(torch.from_numpy(x), radii), torch.Tensor)


def test_eps_path_leaves_a_fitted_estimator_alone() -> None:
    x = blobs(4, 60)
    estimator = DBSCAN(0.5).fit(x)
    before = dict(vars(estimator))
    estimator.eps_path(x[:, :3], [0.1])
    assert vars(estimator) == before


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "cosine"])
def test_dbscan_predicts_the_nearest_core_sample(metric: str) -> None:
    x, new = blobs(5, 150, spread=0.3), blobs(6, 80, spread=0.6)
    eps = {"euclidean": 0.45, "sqeuclidean": 0.2, "cosine": 0.1}[metric]
    estimator = DBSCAN(eps, 6, metric).fit(x)
    core = estimator.core_sample_indices_
    distance = ((new[:, None].astype(float) - x[core]) ** 2).sum(-1)
    distance = {"euclidean": np.sqrt(distance), "sqeuclidean": distance, "cosine": distance / 2}[metric]
    expected = np.where(distance.min(1) <= eps, estimator.labels_[core][distance.argmin(1)], -1)
    assert len(set(expected)) > 2
    assert -1 in expected
    np.testing.assert_array_equal(estimator.predict(new), expected)
    np.testing.assert_array_equal(estimator.predict(x[core]), estimator.labels_[core])
    np.testing.assert_array_equal(estimator.predict(torch.from_numpy(new)).numpy(), expected)


def test_predict_of_rows_far_from_zero() -> None:
    x = np.concatenate([blobs(5, 60, spread=0.1), blobs(6, 60, spread=0.1) + 40]).astype(float) + 1.6e9
    estimator = DBSCAN(0.5, 4).fit(x)
    core = estimator.core_sample_indices_
    np.testing.assert_array_equal(estimator.predict(x[core]), estimator.labels_[core])


@pytest.mark.parametrize("kind", ["dense", "sparse", "graph"])
def test_predict_by_distances(kind: str) -> None:
    """Of equal distances the first core sample counts; samples that are no core do not, however near."""
    fitted = np.array([[0, 1, 9, 9, 3], [1, 0, 9, 9, 9], [9, 9, 0, 1, 9], [9, 9, 1, 0, 9], [3, 9, 9, 9, 0.0]])
    new = np.array([[1, 9, 1, 9, 9], [9, 9, 0.5, 1, 0], [9, 9, 9, 9, 0], [2, 9, 9, 1.5, 9], [9, 9, 2.5, 9, 9]])
    estimator = DBSCAN(2, 2, "precomputed").fit(fitted)
    assert estimator.labels_.tolist() == [0, 0, 1, 1, -1]
    given = {
        "dense": lambda: new,
        "sparse": lambda: sparse.csr_array(np.where(new < 9, new, 0)),
        "graph": lambda: CSRGraph.from_scipy(sparse.csr_array(new)),
    }[kind]()
    expected = [0, 1, -1, 1, -1]
    assert estimator.predict(given).tolist() == expected


def plain_jaccard_labels(estimator: JaccardDBSCAN, x: np.ndarray, new: np.ndarray) -> list[int]:
    """The definition in the class's docstring, one new row at a time, with sets."""
    n = len(x)
    k1 = min(estimator.k1, n)
    half = half_width(k1)
    distance = ((x[:, None].astype(float) - x) ** 2).sum(-1)
    order = np.argsort(distance, axis=1, kind="stable")
    reach = np.take_along_axis(distance, order, 1)[:, k1 - 1]

    def weights(members: set[int], row: np.ndarray) -> np.ndarray:
        v = np.zeros(n)
        for j in members:
            v[j] = np.exp(2 * row.astype(float) @ x[j] - 2)
        return v / max(v.sum(), 1e-300)

    near = [set(row[:k1]) for row in order]
    near_half = [set(row[:half]) for row in order]
    r = [{j for j in near[i] if i in near[j]} for i in range(n)]
    h = [{j for j in near_half[i] if i in near_half[j]} for i in range(n)]

    def expanded(base: set[int]) -> set[int]:
        return base.union(*(h[c] for c in base if 3 * len(h[c] & base) > 2 * len(h[c])))

    v = [weights(expanded(r[i]), x[i]) for i in range(n)]
    averaged = [np.mean([v[j] for j in order[i][: estimator.k2]], axis=0) for i in range(n)]
    labels = []
    core_labels = estimator.labels_[estimator.core_sample_indices_]
    for row in new:
        to = ((x.astype(float) - row) ** 2).sum(1)
        nearest = np.argsort(to, kind="stable")
        own = {j for j in nearest[:k1] if to[j] <= reach[j] or estimator.k1 > n}
        mine = np.mean([weights(expanded(own), row), *(v[j] for j in nearest[: estimator.k2 - 1])], axis=0)
        shared = [np.minimum(mine, averaged[i]).sum() for i in estimator.core_sample_indices_]
        least, label = min(zip([1 - s / (2 - s) for s in shared], core_labels, strict=True), key=lambda pair: pair[0])
        labels.append(int(label) if own and least <= estimator.eps else -1)
    return labels


@pytest.mark.parametrize(("k1", "k2"), [(12, 4), (7, 1), (99, 6)])
def test_jaccard_predicts_as_it_is_defined(k1: int, k2: int) -> None:
    x, new = blobs(7, 70, spread=0.3), blobs(7, 40, spread=0.5)
    estimator = JaccardDBSCAN(0.5, k1=k1, k2=k2).fit(x)
    expected = plain_jaccard_labels(estimator, x, new)
    assert len(set(expected)) > (2 if k1 < 70 else 0)
    assert estimator.predict(new).tolist() == expected
    assert [int(estimator.predict(row[None])[0]) for row in new[:5]] == expected[:5]


def test_jaccard_predicts_identities_it_has_seen_and_no_others() -> None:
    rng = np.random.default_rng(8)
    people = np.linalg.qr(rng.normal(size=(32, 32)))[0]
    ids, new_ids = np.repeat(np.arange(20), 12), np.arange(24)

    def images(of: np.ndarray) -> torch.Tensor:
        x = people[of] + 0.08 * rng.normal(size=(len(of), 32))
        return torch.nn.functional.normalize(torch.from_numpy(x).float())

    estimator = JaccardDBSCAN(0.5, k1=12, k2=4).fit(images(ids))
    found = estimator.predict(images(new_ids))
    assert found[:20].tolist() == estimator.labels_[::12].tolist() == list(range(20))
    assert (found[20:] == -1).all()


def test_without_core_samples_everything_new_is_noise() -> None:
    for estimator in (DBSCAN(0.01), JaccardDBSCAN(0.01, k1=2, k2=1, min_samples=3)):
        assert estimator.fit(EYE).predict(EYE[:2]).tolist() == [-1, -1]


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (
            lambda: DBSCAN().fit(CSRGraph.from_scipy(sparse.eye_array(3))),
            "X: a CSRGraph .* metric='precomputed', got 'eu",
        ),
        (lambda: JaccardDBSCAN(metric="cosine").fit(EYE), "metric: expected one of jaccard, precomputed, got 'cosine'"),
        (lambda: JaccardDBSCAN(metric="precomputed").fit(EYE[:2]), "graph: expected a square"),
        (lambda: DBSCAN().eps_path(EYE, []), "eps: expected at least one number, got none"),
        (lambda: DBSCAN().eps_path(EYE, [0.5, -1]), r"eps: expected a finite number in \[0, inf\), got -1"),
        (lambda: JaccardDBSCAN().eps_path(EYE, [0.5, 1]), r"eps: expected a number in \[0, 1\), got 1"),
        (
            lambda: DBSCAN(3, 1).fit(torch.from_numpy(EYE)).predict(torch.ones(1, 2)),
            r"X: expected 3 columns .* \(1, 2\)",
        ),
        (lambda: DBSCAN(3, 1, "precomputed").fit(EYE).predict(-EYE), "X: expected distances of at least 0, got -1"),
    ],
)
def test_bad_arguments(act: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        act()


def test_predict_before_fit() -> None:
    for estimator in (DBSCAN(), JaccardDBSCAN()):
        with pytest.raises(NotFittedError):
            estimator.predict(EYE)


@pytest.mark.parametrize("wide", [torch.int32, torch.int64])
def test_a_graph_goes_into_compiled_code_of_others(wide: torch.dtype) -> None:
    """scikit-learn's HDBSCAN takes int32 indices alone."""
    graph = ops.radius_graph(torch.from_numpy(blobs(9, 60)), 2.0)
    matrix = CSRGraph(graph.indptr, graph.indices.to(wide), graph.values).to_scipy()
    assert (matrix.indices.dtype, matrix.indptr.dtype) == (np.int32, np.int32)
    assert np.shares_memory(matrix.data, graph.values.numpy())
    np.testing.assert_array_equal(matrix.indptr, graph.indptr.numpy())
    np.testing.assert_array_equal(matrix.indices, graph.indices.numpy())
    labels = HDBSCAN(min_cluster_size=4, metric="precomputed").fit(matrix.astype(np.float64)).labels_
    assert labels.max() > 0
