"""Gloo processes, four and fewer, against the operators on all rows: every stage, `==`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ise_fast import ops
from ise_fast.cluster import DBSCAN, JaccardDBSCAN, KMeans
from ise_fast.methods import cluster_centroids
from ise_fast.methods.kmeans_labels import KMeansLabels, KMeansSettings
from ise_fast.ops.jaccard import encode
from tests.sharded.shapes import PLAIN, SIZE, Case, cases, groupings, sizes

CASES = cases()
GROUPINGS = groupings()
RUNS = [(name, size) for number, name in enumerate(CASES) for size in sizes(number)]
GROUPING_RUNS = [(name, size) for number, name in enumerate(GROUPINGS) for size in sizes(number)]
Answers = list[dict[tuple[str, int], dict[str, Any]]]


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Answers:
    """What each process found: they are started once."""
    folder = tmp_path_factory.mktemp("processes")
    command = [sys.executable, str(Path(__file__).parent / "worker.py"), str(folder)]
    run = subprocess.run(command, stderr=subprocess.PIPE, text=True)
    assert run.returncode == 0, run.stderr
    return [torch.load(folder / f"answers-{rank}.pt", weights_only=False) for rank in range(SIZE)]


@pytest.fixture(scope="module")
def expected() -> dict[str, dict[str, Any]]:
    return {name: of_one_process(case) for name, case in CASES.items()}


@pytest.mark.filterwarnings("ignore::ise_fast.types.NotUnitRowsWarning")
def of_one_process(case: Case) -> dict[str, Any]:
    settings, k1 = case.settings, min(case.settings.k1, len(case.x))
    k2 = min(settings.k2, k1)
    nn, v = encode(case.x, k1, k2)
    graph = ops.jaccard_graph(case.x, k1, k2, eps=settings.eps)
    estimators = [JaccardDBSCAN(**vars(settings)).fit(case.x)]
    estimators += [DBSCAN(0.5, 4, metric).fit(case.x.numpy().astype(dtype)) for metric, dtype in PLAIN]
    labels, core = ops.dbscan(graph, settings.eps, settings.min_samples)
    return {
        "estimators": [(found.labels_, found.core_sample_indices_, found.components_) for found in estimators],
        "nn": nn.int(), "v": v, "graph": (graph.indptr, graph.indices, graph.values), "labels": labels, "core": core,
        "centroids": cluster_centroids(case.x, labels),
    }  # fmt: skip


def whole(parts: list[Any]) -> list[Tensor]:
    """Rows of all processes: of a tensor, or of a sparse matrix."""
    if isinstance(parts[0], Tensor):
        return [torch.cat(parts)]
    lengths = torch.cat([indptr.diff() for indptr, _, _ in parts])
    indptr = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
    return [indptr, torch.cat([indices for _, indices, _ in parts]), torch.cat([values for _, _, values in parts])]


@pytest.mark.parametrize(("name", "world"), RUNS)
def test_every_stage(name: str, world: int, answers: Answers, expected: dict[str, dict[str, Any]]) -> None:
    own = [answers[rank][name, world] for rank in range(world)]
    for stage in ("nn", "v", "graph", "labels", "core"):
        theirs = whole([expected[name][stage]])
        for ours, one in zip(whole([part[stage] for part in own]), theirs, strict=True):
            assert ours.dtype == one.dtype
            assert ours.equal(one), stage
    assert all(part["centroids"].equal(expected[name]["centroids"]) for part in own)


@pytest.mark.parametrize(("name", "world"), RUNS)
def test_estimators_of_a_group(name: str, world: int, answers: Answers, expected: dict[str, dict[str, Any]]) -> None:
    own = [answers[rank][name, world] for rank in range(world)]
    found = [[part["estimator"], *part["dbscan"]] for part in own]
    starts = CASES[name].bounds(world)
    for place, (labels, core, components) in enumerate(expected[name]["estimators"]):
        ours = [part[place] for part in found]
        assert np.concatenate([part[0] for part in ours]).tolist() == labels.tolist()
        assert np.concatenate([part[1] + starts[rank] for rank, part in enumerate(ours)]).tolist() == core.tolist()
        assert np.array_equal(np.concatenate([part[2] for part in ours]), components)


@pytest.mark.parametrize(("name", "world"), GROUPING_RUNS)
def test_kmeans(name: str, world: int, answers: Answers) -> None:
    case, own = GROUPINGS[name], [answers[rank][f"kmeans {name}", world] for rank in range(world)]
    start = case.centres
    if start is None:
        start = case.rows[ops.kmeans_start(case.rows, case.clusters, torch.Generator().manual_seed(1))]
    one = ops.kmeans(case.rows, start, iterations=case.iterations)
    assert torch.cat([part["found"].labels for part in own]).equal(one.labels)
    for part in own:
        assert part["start"].equal(start)
        assert part["found"].centres.equal(one.centres)
        assert part["found"].centres.dtype == case.dtype
        assert part["found"][2:] == one[2:]


@pytest.mark.parametrize(("name", "world"), GROUPING_RUNS)
def test_kmeans_of_a_group(name: str, world: int, answers: Answers) -> None:
    case = GROUPINGS[name]
    init = "k-means++" if case.centres is None else case.centres
    one = KMeans(case.clusters, init=init, n_init=2, random_state=3, max_iter=2).fit(case.rows)
    drawn = KMeans(case.clusters, init="random", random_state=4, max_iter=1).fit(case.rows)
    own = [answers[rank][f"kmeans {name}", world] for rank in range(world)]
    assert torch.cat([part["estimator"][0] for part in own]).equal(one.labels_)
    for part in own:
        assert part["estimator"][1].equal(one.cluster_centers_)
        assert part["estimator"][2:] == [one.inertia_, one.n_iter_]
        assert part["drawn"].equal(drawn.cluster_centers_)
        assert part["predicted"].equal(one.predict(case.rows[:20]))


@pytest.mark.parametrize(
    ("name", "world"), [(name, size) for name, size in GROUPING_RUNS if GROUPINGS[name].dtype == torch.float32]
)
def test_labels_of_kmeans(name: str, world: int, answers: Answers) -> None:
    case = GROUPINGS[name]
    labeller = KMeansLabels(KMeansSettings(case.clusters, kmeans_iters=2, warm_start=True), 1)
    for epoch in (0, 1):
        one = labeller(case.rows, None, epoch)
        for rank in range(world):
            labels, centroids, figures = answers[rank][f"kmeans {name}", world]["labelled"][epoch]
            assert labels.equal(one.labels)
            assert centroids.equal(one.centroids)
            assert figures == one.figures


def test_the_groupings_try_what_they_say() -> None:
    far = GROUPINGS["empty centres"]
    assert far.centres is not None
    assert int((ops.kmeans_step(far.rows, far.centres).counts == 0).sum()) == 2
    same = GROUPINGS["fewer different rows"]
    rows = ops.kmeans_start(same.rows, same.clusters, torch.Generator().manual_seed(1))
    assert len(same.rows[rows].unique(dim=0)) == 3 < len(rows.unique()) == same.clusters
    assert int((ops.kmeans_step(same.rows, same.rows[rows]).counts == 0).sum()) == 2
    for name, stopped in (("ties", True), ("until the end", False)):
        case = GROUPINGS[name]
        rows = ops.kmeans_start(case.rows, case.clusters, torch.Generator().manual_seed(1))
        found = ops.kmeans(case.rows, case.rows[rows])
        assert (found.iterations > case.iterations) == stopped


def test_the_cases_try_what_they_say(expected: dict[str, dict[str, Any]]) -> None:
    def noise(name: str) -> int:
        return int((expected[name]["labels"] < 0).sum())

    def border(name: str) -> int:
        return int(((expected[name]["labels"] >= 0) & ~expected[name]["core"]).sum())

    assert noise("ties") > 5
    assert border("ties") > 5
    own = torch.arange(len(CASES["copies"].x))[:, None]
    assert int((expected["copies"]["nn"] != own).all(1).sum()) > 100  # rows crowded out of their own lists
    largest = torch.bincount(expected["one giant cluster"]["labels"] + 1)[1:].max()
    assert int(largest) > 600
    assert len(expected["crowds"]["graph"][1]) > CASES["crowds"].settings.max_pairs
    assert border("hubs") > 5
    assert len(expected["hubs"]["graph"][1]) > 0.3 * 400**2
    assert CASES["unequal shares"].bounds(4) == [0, 10, 10, 912, 1003]
    assert CASES["fewer rows than processes"].bounds(4) == [0, 0, 1, 2, 3]
