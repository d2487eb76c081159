"""Labels of the estimators against scikit-learn and the published numbers; kinds of arrays; bad input."""

from __future__ import annotations

import math
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import sklearn.cluster
import torch
from golden_data import load, names
from scipy.sparse import csr_array
from sklearn.exceptions import NotFittedError

from ise_fast import ops
from ise_fast.cluster import DBSCAN, BottomUp, JaccardDBSCAN, KMeans
from ise_fast.cluster.arrays import floats


def assert_same_clustering(found: Any, expected: Any) -> None:
    np.testing.assert_array_equal(found.labels_, expected.labels_)
    np.testing.assert_array_equal(found.core_sample_indices_, expected.core_sample_indices_)
    np.testing.assert_array_equal(found.components_, expected.components_)


def features(seed: int, n: int, d: int) -> np.ndarray:
    """Blobs for even seeds; integers, with many ties and duplicates, for odd ones."""
    rng = np.random.default_rng(seed)
    if seed % 2:
        return rng.integers(-4, 5, (n, d)).astype(np.float64)
    return rng.normal(size=(8, d))[rng.integers(0, 8, n)] + 0.2 * rng.normal(size=(n, d))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("seed", range(8))
def test_dbscan_equals_sklearn(seed: int, metric: str, dtype: type) -> None:
    x = features(seed, 150, 3 if seed % 2 else 12).astype(dtype)
    eps = (1.0 if seed % 2 else 0.7) if metric == "euclidean" else 0.05
    if metric == "cosine" and seed % 2:
        x = x[~(x == 0).all(1)] + dtype(0.25)  # at ties of a cosine with eps, theirs rounds either way
    for min_samples in (1, 4):
        for algorithm in ("brute", "auto"):
            theirs = sklearn.cluster.DBSCAN(eps=eps, min_samples=min_samples, metric=metric, algorithm=algorithm).fit(x)
            assert_same_clustering(DBSCAN(eps, min_samples, metric, algorithm=algorithm).fit(x), theirs)


@pytest.mark.parametrize("algorithm", ["auto", "brute", "kd_tree", "ball_tree"])
@pytest.mark.parametrize(("samples", "columns"), [(10, 1), (12, 1), (500, 1), (500, 15), (500, 16)])
def test_float32_is_compared_as_sklearn_does(samples: int, columns: int, algorithm: str) -> None:
    """Steps of a tenth, which is no float32 number: a tree compares them in float64, brute force does not."""
    x = np.zeros((samples, columns), dtype=np.float32)
    x[:, 0] = np.arange(samples) * 0.1
    theirs = sklearn.cluster.DBSCAN(eps=0.1, min_samples=3, algorithm=algorithm).fit(x)
    assert_same_clustering(DBSCAN(0.1, 3, algorithm=algorithm).fit(x), theirs)


@pytest.mark.parametrize("kind", ["features", "dense", "sparse"])
@pytest.mark.parametrize("seed", range(20))
@pytest.mark.filterwarnings("ignore:.*not sorted by row values")
def test_weights_equal_sklearn(kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = features(seed, 80, 3)
    if kind != "features":
        x = rng.integers(0, 11, (40, 40)) / 4.0  # asymmetric, and the diagonal may exclude self
        if kind == "sparse":
            stored = rng.random((40, 40)) < 0.3
            x = csr_array((x[stored], np.nonzero(stored)), shape=x.shape)
    weights = rng.integers(-2, 5, x.shape[0]) / 2
    metric = "euclidean" if kind == "features" else "precomputed"
    for min_samples in (1, 3):
        theirs = sklearn.cluster.DBSCAN(eps=1.0, min_samples=min_samples, metric=metric, algorithm="brute")
        theirs.fit(x, sample_weight=weights)
        ours = DBSCAN(1.0, min_samples, metric).fit(x, sample_weight=weights)
        np.testing.assert_array_equal(ours.labels_, theirs.labels_)
        np.testing.assert_array_equal(ours.core_sample_indices_, theirs.core_sample_indices_)


@pytest.mark.parametrize("metric", ["euclidean", "precomputed"])
def test_weights_are_added_as_sklearn_does(metric: str) -> None:
    """A total that meets min_samples only in one order of the sum: ten of 0.1, and many more."""
    rng = np.random.default_rng(0)
    x = np.sort(rng.random(400))[:, None] * 40
    x = np.abs(x - x.T) if metric == "precomputed" else x
    for weights in (np.full(400, 0.1), rng.choice([0.1, 0.2, 0.7], 400)):
        for min_samples in (1, 2, 3):
            theirs = sklearn.cluster.DBSCAN(eps=0.5, min_samples=min_samples, metric=metric, algorithm="brute")
            theirs.fit(x, sample_weight=weights)
            assert_same_clustering(DBSCAN(0.5, min_samples, metric).fit(x, sample_weight=weights), theirs)
    ten = DBSCAN(1, 1).fit(np.zeros((10, 1)), sample_weight=0.1)
    assert ten.labels_.tolist() == [0] * 10


@pytest.mark.parametrize("weight", [2, 0.5, np.float32(2), torch.tensor(2.0)])
def test_one_weight_is_that_of_every_sample(weight: Any) -> None:
    x = features(0, 40, 3)
    one, each = (DBSCAN(0.7).fit(x, sample_weight=w).labels_ for w in (weight, np.full(40, float(weight))))
    np.testing.assert_array_equal(one, each)


@pytest.mark.parametrize("name", names("jaccard"))
def test_jaccard_golden_labels(name: str) -> None:
    g = load(name)
    estimator = JaccardDBSCAN(g["eps"], g["min_samples"], g["k1"], g["k2"])
    assert estimator.fit_predict(g["features"]).equal(g["labels"])
    np.testing.assert_array_equal(estimator.fit_predict(g["features"].numpy()), g["labels"].numpy())


def test_jaccard_with_fewer_samples_than_k1() -> None:
    x = np.repeat(np.eye(3, dtype=np.float32), 4, axis=0)
    expected = ops.dbscan(ops.jaccard_graph(torch.from_numpy(x), 12, 6, eps=0.6), 0.6, 4).labels
    np.testing.assert_array_equal(JaccardDBSCAN().fit_predict(x), expected.numpy())
    assert JaccardDBSCAN(min_samples=1).fit_predict(x[:1]).tolist() == [0]


class Foreign:
    """An array of a library that we have never heard of, on the CPU."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    def __dlpack__(self, **options: Any) -> Any:
        return self.values.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self.values.__dlpack_device__()


@pytest.fixture
def foreign(monkeypatch: pytest.MonkeyPatch) -> type[Foreign]:
    library = ModuleType("foreign_arrays")
    library.from_dlpack = lambda x: Foreign(np.from_dlpack(x))  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "foreign_arrays", library)
    monkeypatch.setattr(Foreign, "__module__", "foreign_arrays")
    return Foreign


@pytest.mark.parametrize("estimator", [DBSCAN(0.7, 4), JaccardDBSCAN(k1=10, k2=3)])
def test_the_kind_of_array_that_comes_goes_back(estimator: Any, foreign: type[Foreign]) -> None:
    x = features(0, 60, 6).astype(np.float32)
    expected = {name: np.copy(getattr(estimator.fit(x), name)) for name in ("labels_", "core_sample_indices_")}
    assert expected["labels_"].dtype == np.intp
    assert expected["labels_"].max() > 0
    for name, values in expected.items():
        of_torch = getattr(estimator.fit(torch.from_numpy(x)), name)
        assert isinstance(of_torch, torch.Tensor)
        np.testing.assert_array_equal(of_torch.numpy(), values)
        of_foreign = getattr(estimator.fit(foreign(x)), name)
        assert isinstance(of_foreign, Foreign)
        np.testing.assert_array_equal(of_foreign.values, values)
    np.testing.assert_array_equal(estimator.components_.values, x[expected["core_sample_indices_"]])
    assert estimator.n_features_in_ == 6


@pytest.mark.filterwarnings("ignore:X has feature names")
@pytest.mark.parametrize("estimator", [DBSCAN(0.7, 4), KMeans(3)])
def test_names_of_columns_go_with_their_table(estimator: Any) -> None:
    x = features(0, 30, 4)
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(x, columns=list("abcd"))
    assert estimator.fit(table).feature_names_in_.tolist() == list("abcd")
    estimator.fit(torch.from_numpy(x[:, :3].copy()))
    assert estimator.n_features_in_ == 3
    assert not hasattr(estimator, "feature_names_in_")
    assert len(estimator.predict(pandas.DataFrame(x[:, :3], columns=list("xyz")))) == 30


def test_tensors_share_memory_and_keep_their_values() -> None:
    x = torch.from_numpy(features(0, 30, 4)).requires_grad_()
    before = x.detach().clone()
    assert DBSCAN(0.7).fit(x).labels_.equal(DBSCAN(0.7).fit(before).labels_)
    assert x.detach().equal(before)


@pytest.mark.parametrize("layout", ["reversed", "transposed", "read-only"])
def test_layouts(layout: str) -> None:
    x = features(0, 40, 5)
    expected = DBSCAN(0.7).fit_predict(x)
    if layout == "reversed":
        np.testing.assert_array_equal(DBSCAN(0.7).fit_predict(x[:, ::-1]), expected)
    elif layout == "transposed":
        np.testing.assert_array_equal(DBSCAN(0.7).fit_predict(np.asfortranarray(x)), expected)
    else:
        x.flags.writeable = False
        np.testing.assert_array_equal(DBSCAN(0.7).fit_predict(x), expected)


X = np.eye(3)


@pytest.mark.parametrize(
    ("estimator", "x", "message"),
    [
        (DBSCAN(eps=-1), X, r"eps: expected a finite number in \[0, inf\), got -1"),
        (DBSCAN(min_samples=0), X, "min_samples: expected"),
        (DBSCAN(metric="manhattan"), X, "metric: expected one of .* got 'manhattan'"),
        (DBSCAN(metric="precomputed"), X[:2], "graph: expected a square"),
        (DBSCAN(metric="precomputed"), -X, "graph: expected .* at least 0"),
        (DBSCAN(), torch.zeros(0, 2), "X: expected at least one sample"),
        (DBSCAN(), torch.zeros(3), "X: expected 2 dimensions"),
        (DBSCAN(), torch.full((3, 2), math.nan), "X: expected finite values"),
        (DBSCAN(), np.full((3, 2), math.inf), "Input X contains infinity"),
        (JaccardDBSCAN(k1=0), X, "k1: expected an integer of at least 1, got 0"),
        (JaccardDBSCAN(k2=31), X, r"k2: expected an integer in \[1, 30\] \(k1\), got 31"),
        (JaccardDBSCAN(eps=1.0), X, r"eps: expected a number in \[0, 1\), got 1"),
        (JaccardDBSCAN(min_samples=-1), X, "min_samples: expected"),
    ],
)
def test_bad_input(estimator: Any, x: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        estimator.fit(x)


@pytest.mark.parametrize("weights", [[1.0], [1.0, math.nan, 1.0], [[1.0], [1.0], [1.0]], math.nan])
def test_bad_weights(weights: Any) -> None:
    with pytest.raises(ValueError, match="sample_weight"):
        DBSCAN().fit(X, sample_weight=weights)


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool])
def test_tensors_without_a_point_are_taken_as_those_of_numpy(dtype: torch.dtype) -> None:
    x = torch.from_numpy(features(1, 60, 3)).abs().to(dtype)
    for estimator in (DBSCAN(1), JaccardDBSCAN(k1=9, k2=3), KMeans(3, random_state=0), BottomUp(3)):
        assert estimator.fit_predict(x).tolist() == estimator.fit_predict(x.numpy()).tolist()
    assert DBSCAN(1).fit(x).components_.dtype == dtype
    assert DBSCAN(1).fit(x).predict(x[:3]).dtype == torch.int64
    assert floats(x.to("meta")).dtype == torch.float32  # of a GPU, whose kernels take no float64
    with pytest.raises(TypeError, match=r"X: expected dtype float32 .* got complex64"):
        DBSCAN(1).fit(x.to(torch.complex64))


@pytest.mark.parametrize("estimator", [DBSCAN(eps=-1), KMeans(99)])
def test_a_fit_that_failed_is_none(estimator: Any) -> None:
    with pytest.raises(ValueError, match=r"expected|should be"):
        estimator.fit(X)
    with pytest.raises(NotFittedError):
        estimator.predict(X)


def test_eps_path_wants_several_numbers() -> None:
    for eps in (0.5, np.array(0.5)):
        with pytest.raises(TypeError, match=r"^eps: expected several numbers, got (array\()?0\.5"):
            DBSCAN().eps_path(X, eps)


@pytest.mark.parametrize("weights", [[0, 0, 0], [0.0, -0.0, 0.0]])
def test_weights_that_are_all_zero_are_refused(weights: list[float]) -> None:
    """scikit-learn 1.9 wants it so; one weight is enough."""
    x = np.eye(3, dtype=np.float32)
    for estimator in (DBSCAN(), JaccardDBSCAN()):
        with pytest.raises(ValueError, match=r"^sample_weight: expected at least one weight that is not zero"):
            estimator.fit(x, sample_weight=weights)
        assert 2 in estimator.fit(x, sample_weight=[0, 0, 9]).core_sample_indices_
