"""KMeans, SelfPacedDBSCAN, BottomUp and Infomap: what they compute, kinds of input, refusals."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
import sklearn.cluster
import torch
from golden_data import load
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from ise_fast import ops, reference
from ise_fast.cluster import DBSCAN, BottomUp, Infomap, JaccardDBSCAN, KMeans, SelfPacedDBSCAN
from ise_fast.cluster.infomap import neighbour_links, run_infomap


def blobs(n: int = 90, seed: int = 0) -> np.ndarray[Any, np.dtype[np.float32]]:
    random = np.random.default_rng(seed)
    centres = random.normal(size=(6, 12))
    x = centres[np.arange(n) % 6] + 0.2 * random.normal(size=(n, 12))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def same_partition(a: Any, b: Any) -> bool:
    a, b = np.asarray(a), np.asarray(b)
    return bool(((a[:, None] == a) == (b[:, None] == b)).all())


@pytest.mark.parametrize(
    "estimator", [KMeans(6, n_init=3, random_state=1), SelfPacedDBSCAN(0.5, 0.05, 4, 12, 3), BottomUp(6), Infomap()]
)
def test_finds_blobs_in_every_kind_of_input(estimator: Any) -> None:
    if isinstance(estimator, Infomap):
        pytest.importorskip("infomap")
    x = blobs()
    labels = estimator.fit_predict(x)
    assert isinstance(labels, np.ndarray)
    assert same_partition(labels, np.arange(90) % 6)
    tensor = estimator.fit(torch.from_numpy(x)).labels_
    assert isinstance(tensor, torch.Tensor)
    assert tensor.tolist() == labels.tolist()
    assert estimator.n_features_in_ == 12
    with pytest.raises(ValueError, match=r"^X: expected at least one sample"):
        estimator.fit(torch.ones(0, 3))


ESTIMATORS = [
    DBSCAN(0.5),
    JaccardDBSCAN(k1=12, k2=3),
    KMeans(6, init=blobs()[:6]),
    SelfPacedDBSCAN(0.5, 0.05, 4, 12, 3),
]


@pytest.mark.parametrize("estimator", [*ESTIMATORS, BottomUp(6)])
def test_a_default_device_is_for_other_tensors(estimator: Any) -> None:
    x = blobs()
    expected = estimator.fit_predict(x)
    with torch.device("meta"):
        assert estimator.fit_predict(x).tolist() == expected.tolist()
        assert estimator.fit_predict(torch.from_numpy(x)).tolist() == expected.tolist()


@pytest.mark.parametrize("metric", ["euclidean", "precomputed"])
def test_a_default_device_is_not_for_weights(metric: str) -> None:
    x = np.random.default_rng(0).random((30, 30))
    with torch.device("meta"):
        labels = DBSCAN(0.5, 1, metric).fit(x, sample_weight=np.arange(30)).labels_
    assert labels.tolist() == DBSCAN(0.5, 1, metric).fit(x, sample_weight=np.arange(30)).labels_.tolist()


def test_kmeans_is_the_operator() -> None:
    x = torch.from_numpy(blobs())
    start = x[:7]
    ours, run = KMeans(7, init=start).fit(x), ops.kmeans(x, start)
    assert ours.labels_.equal(run.labels)
    assert ours.cluster_centers_.equal(run.centres)
    assert (ours.inertia_, ours.n_iter_) == (run.inertia, run.iterations)
    assert ours.predict(x).equal(run.labels)
    best = KMeans(7, n_init=4, random_state=2).fit(x).inertia_
    random = np.random.RandomState(2)
    starts = [ops.kmeans_start(x, 7, torch.Generator().manual_seed(int(random.randint(2**31 - 1)))) for _ in range(4)]
    assert best == min(ops.kmeans(x, x[s]).inertia for s in starts)


def table_of(x: np.ndarray[Any, Any]) -> Any:
    return pytest.importorskip("pandas").DataFrame(x)


@pytest.mark.parametrize("of", [lambda x: x[::-1].copy()[::-1], np.ndarray.tolist, table_of, torch.from_numpy])
def test_kmeans_starts_from_any_table(of: Any) -> None:
    x, start = blobs(), blobs()[5:8].copy()
    expected = KMeans(3, init=start, max_iter=1).fit(x).cluster_centers_
    found = KMeans(3, init=of(start), max_iter=1).fit(x).cluster_centers_
    np.testing.assert_array_equal(found, expected)


def test_kmeans_draws_rows_to_start_from() -> None:
    x = blobs()
    fitted = KMeans(90, init="random", random_state=0).fit(x)  # as many as rows: each is drawn once
    assert fitted.labels_.tolist() == list(range(90))
    runs = [KMeans(7, init="random", random_state=seed).fit(x).inertia_ for seed in range(3)]
    assert len(set(runs)) > 1
    assert KMeans(7, init="random", random_state=1).fit(torch.from_numpy(x)).inertia_ == runs[1]


@pytest.mark.parametrize(("init", "runs"), [("random", 10), ("k-means++", 1), (blobs()[:7], 1)])
def test_kmeans_chooses_a_number_of_runs(init: Any, runs: int) -> None:
    auto, told = (KMeans(7, init=init, n_init=n, random_state=1).fit(blobs()) for n in ("auto", runs))
    np.testing.assert_array_equal(auto.cluster_centers_, told.cluster_centers_)
    with pytest.raises(TypeError, match="n_init: expected an integer, got 'many'"):
        KMeans(7, n_init="many").fit(blobs())


def test_kmeans_transforms_and_scores_as_sklearn() -> None:
    x = blobs().astype(np.float64)
    ours = KMeans(6, random_state=0).fit(x)
    theirs = sklearn.cluster.KMeans(6, init=ours.cluster_centers_, n_init=1).fit(x)
    np.testing.assert_allclose(ours.transform(x), theirs.transform(x), rtol=0, atol=1e-7)  # they take products
    np.testing.assert_array_equal(ours.transform(x).argmin(1), ours.labels_)
    assert ours.score(x[:50]) == pytest.approx(theirs.score(x[:50]))
    assert ours.score(x) == -ours.inertia_
    rows = torch.from_numpy(x[:5]).float()
    assert ours.transform(rows).dtype == torch.float32
    assert ours.transform(rows).shape == (5, 6)
    assert list(ours.get_feature_names_out()) == [f"kmeans{i}" for i in range(6)]
    kinds = make_pipeline(KMeans(6, random_state=0), LogisticRegression()).fit(x, np.arange(90) % 6)
    assert kinds.score(x, np.arange(90) % 6) == 1
    search = GridSearchCV(KMeans(random_state=0, n_init=4), {"n_clusters": [2, 4, 6]}).fit(x)
    assert search.best_params_ == {"n_clusters": 6}


def test_self_paced_is_the_published_rule() -> None:
    g = load("method_spcl_reliability")
    theta = None
    for epoch, x in enumerate(g["features"]):
        fitted = SelfPacedDBSCAN(g["eps"], g["eps_gap"], g["min_samples"], g["k1"], g["k2"], threshold=theta).fit(x)
        theta = fitted.threshold_
        assert fitted.groups_.equal(g["refined_openunreid"][epoch])
        alone = fitted.groups_.bincount()[fitted.groups_] == 1
        assert (fitted.labels_ == -1).equal(alone)
        assert same_partition(fitted.labels_[~alone], fitted.groups_[~alone])


@pytest.mark.parametrize("penalty", [0.0, 0.003, 0.05])
def test_merge_rows_needs_no_pair_that_it_leaves_out(penalty: float) -> None:
    x = torch.from_numpy(blobs(60, 3))
    ours = expected = torch.arange(60)
    for merges in (3, 20, 30, 40):
        out, truth = ops.merge_rows(x, ours, penalty, merges), reference.merge_rows(x, expected, penalty, merges)
        assert out.labels.equal(truth.labels)
        assert out.pairs.equal(truth.pairs)
        ours, expected = out.labels, truth.labels
    assert ours.max() == 0


def test_bottom_up_steps() -> None:
    x = blobs(50)
    fitted = BottomUp(17, penalty=0.01, merge_share=0.1).fit(x)
    labels = torch.arange(50)
    for merges in (5, 5, 5, 5, 5, 5, 3):
        labels = ops.merge_rows(torch.from_numpy(x), labels, 0.01, merges).labels
    assert fitted.labels_.tolist() == labels.tolist()
    assert fitted.n_steps_ == 7


@pytest.mark.parametrize("name", ["infomap", "infomap_mixed"])
def test_infomap_golden(name: str) -> None:
    g = load(f"method_{name}")
    links, weights = neighbour_links(g["features"], g["k1"], g["min_similarity"])
    assert links.equal(g["links"])
    torch.testing.assert_close(weights, g["weights"], rtol=0, atol=1e-6)
    pytest.importorskip("infomap")
    fitted = Infomap(g["k1"], g["min_similarity"], g["largest_outlier_group"]).fit(g["features"])
    assert fitted.codelength_ <= 1.02 * g["codelength"]
    if g["stable"]:
        assert same_partition(fitted.labels_, g["labels"])
        assert (fitted.labels_ == -1).equal(g["labels"] == -1)


def test_infomap_without_its_package_or_any_link(monkeypatch: pytest.MonkeyPatch) -> None:
    none = torch.empty(0, 2, dtype=torch.int64)
    monkeypatch.setitem(sys.modules, "infomap", None)
    with pytest.raises(ImportError, match=r"^Infomap: expected the package infomap, got none installed"):
        run_infomap(none, torch.empty(0))


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (KMeans(91), "n_clusters: n_samples=90 should be >= n_clusters=91"),
        (KMeans(0), "n_clusters: expected an integer of at least 1"),
        (KMeans(2, init="best"), r"init: expected k-means\+\+, random or an array of centres, got 'best'"),
        (KMeans(2, init=blobs), r"init: expected k-means\+\+, random or an array of centres, got <function blobs"),
        (KMeans(2, init=np.full((2, 12), np.nan)), "init: expected finite values, got NaN or infinity in row 0"),
        (KMeans(2, init=np.ones((3, 12))), r"init: expected shape \(2, 12\), got \(3, 12\)"),
        (BottomUp(91), "n_clusters: n_samples=90 should be >= n_clusters=91"),
        (BottomUp(merge_share=0), "merge_share: expected a finite number"),
        (BottomUp(penalty=-1), "penalty: expected a finite number"),
        (SelfPacedDBSCAN(eps_gap=0.7), "eps_gap: expected a finite number"),
        (SelfPacedDBSCAN(k2=31), "k2: expected an integer"),
        (Infomap(min_similarity=2), "min_similarity: expected a finite number"),
        (Infomap(max_noise_size=-1), "max_noise_size: expected an integer"),
    ],
)
def test_refusals(estimator: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        estimator.fit(blobs())
