"""SIZE processes over gloo: `python worker.py FOLDER`. Answers for all cases go to FOLDER."""

from __future__ import annotations

import multiprocessing
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2]))

from ise_fast.cluster import DBSCAN, JaccardDBSCAN, KMeans
from ise_fast.methods.kmeans_labels import KMeansLabels, KMeansSettings
from ise_fast.sharded import HeldRows, Peers, cluster, jaccard_rows
from ise_fast.sharded.centroids import shared_centroids
from ise_fast.sharded.encoding import encode_own
from ise_fast.sharded.kmeans import shared_kmeans
from ise_fast.sharded.kmeans_start import shared_kmeans_start
from ise_fast.sharded.neighbours import own_neighbours
from tests.sharded.shapes import PLAIN, SIZE, Case, Grouping, cases, groupings, sizes


def dbscan_by_estimator(x: Tensor, group: dist.ProcessGroup | None, metric: str, dtype: str) -> list[Any]:
    found = DBSCAN(0.5, 4, metric).fit(x.numpy().astype(dtype), group=group)
    return [found.labels_, found.core_sample_indices_, found.components_]


def answer(case: Case, group: dist.ProcessGroup | None, rank: int, size: int) -> dict[str, Any]:
    low, high = case.bounds(size)[rank : rank + 2]
    features = HeldRows("x", case.x[low:high].clone(), Peers(group))
    settings = case.settings
    k1 = min(settings.k1, features.rows)
    nn = own_neighbours(features, k1)
    v = encode_own(features, nn, min(settings.k2, k1))
    graph = jaccard_rows(features, replace(settings, max_pairs=None), settings.eps).rows
    labels, core = cluster(features, settings)
    estimator = JaccardDBSCAN(**vars(settings)).fit(case.x[low:high], group=group)
    return {
        "estimator": [estimator.labels_, estimator.core_sample_indices_, estimator.components_],
        "dbscan": [dbscan_by_estimator(case.x[low:high], group, *kind) for kind in PLAIN],
        "nn": nn, "v": v, "graph": (graph.indptr, graph.indices, graph.values), "labels": labels, "core": core,
        "centroids": shared_centroids(features, labels),
    }  # fmt: skip


def grouped(case: Grouping, group: dist.ProcessGroup | None, rank: int, size: int) -> dict[str, Any]:
    low, high = case.bounds(size)[rank : rank + 2]
    features = HeldRows("x", case.rows[low:high].clone(), Peers(group), keep_double=True)
    start = case.centres
    if start is None:
        start = shared_kmeans_start(features, case.clusters, torch.Generator().manual_seed(1))
    labeller = KMeansLabels(KMeansSettings(case.clusters, kmeans_iters=2, warm_start=True), 1)
    labelled = [labeller.shared(features, epoch) for epoch in (0, 1)] if case.dtype == torch.float32 else []
    estimator = KMeans(
        case.clusters, init="k-means++" if case.centres is None else case.centres, n_init=2, random_state=3, max_iter=2
    )
    estimator.fit(case.rows[low:high], group=group)
    drawn = KMeans(case.clusters, init="random", random_state=4, max_iter=1).fit(case.rows[low:high], group=group)
    return {
        "start": start, "found": shared_kmeans(features, start, case.iterations),
        "estimator": [estimator.labels_, estimator.cluster_centers_, estimator.inertia_, estimator.n_iter_],
        "labelled": [(pseudo.labels, pseudo.centroids, pseudo.figures) for pseudo in labelled],
        "drawn": drawn.cluster_centers_, "predicted": estimator.predict(case.rows[:20]),
    }  # fmt: skip


def work(folder: Path, rank: int) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=SIZE)
    groups = {size: dist.new_group(list(range(size))) if size > 1 else None for size in range(1, SIZE + 1)}
    answers = {}
    for number, (name, case) in enumerate(cases().items()):
        for size in sizes(number):
            if rank < size:
                answers[name, size] = answer(case, groups[size], rank, size)
    for number, (name, grouping) in enumerate(groupings().items()):
        for size in sizes(number):
            if rank < size:
                answers[f"kmeans {name}", size] = grouped(grouping, groups[size], rank, size)
    torch.save(answers, folder / f"answers-{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()


def main() -> None:
    """Importing torch is most of the work: the processes are copies of one that has."""
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=work, args=(Path(sys.argv[1]), rank)) for rank in range(SIZE)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    sys.exit(any(process.exitcode for process in processes))


if __name__ == "__main__":
    main()
