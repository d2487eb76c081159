"""Communities of the neighbour graph by the map equation, as an estimator around the package infomap."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from ise_fast import ops
from ise_fast._checks import check_int, check_number
from ise_fast.cluster._clusterer import Clusterer
from ise_fast.cluster.arrays import Restore


class Infomap(Clusterer):
    """Two-level Infomap on the directed graph of nearest neighbours, weighted by cosine.

    Args:
        n_neighbors: neighbours of each sample, itself included, >= 1; all samples where there are fewer.
        min_similarity: least cosine of a link, in [-1, 1].
        max_noise_size: a community of at most this many samples is noise, >= 0.
        seed: of Infomap's search, >= 1; partitions may differ between seeds and versions where clusters overlap.
        trials: searches, of which the one with the shortest code is kept, >= 1.

    `fit` needs the package infomap (pip install infomap, 2.16 or later) and raises ImportError without it.

    Attributes:
        labels_: [n_samples] cluster of each sample, numbered by lowest sample; -1 is noise.
        codelength_: bits, 0 without any link.
        n_features_in_: number of columns seen by `fit`.

    Source: Rosvall & Bergstrom, PNAS 2008; for re-identification: Dai et al., Cluster Contrast, 2021.
    """

    def __init__(
        self,
        n_neighbors: int = 15,
        min_similarity: float = 0.5,
        max_noise_size: int = 4,
        *,
        seed: int = 123,
        trials: int = 1,
    ) -> None:
        self.n_neighbors = n_neighbors
        self.min_similarity = min_similarity
        self.max_noise_size = max_noise_size
        self.seed = seed
        self.trials = trials

    def _fit(self, x: Tensor, restore: Restore) -> None:
        small = check_int("max_noise_size", self.max_noise_size, 0)
        links, weights = neighbour_links(x, self.n_neighbors, self.min_similarity)
        modules, self.codelength_ = run_infomap(
            links, weights, check_int("seed", self.seed, 1), check_int("trials", self.trials, 1)
        )
        labels, number = [-1] * len(x), 0
        members: dict[int, list[int]] = {}
        for row in sorted(modules):
            members.setdefault(modules[row], []).append(row)
        for rows in members.values():
            if len(rows) > small:
                for row in rows:
                    labels[row] = number
                number += 1
        self.labels_ = restore(torch.tensor(labels, dtype=torch.int64, device=x.device))


def neighbour_links(x: Tensor, neighbours: int, min_similarity: float) -> tuple[Tensor, Tensor]:
    """Links i -> j to the nearest neighbours j != i with cosine >= min_similarity.

    Returns:
        ([L, 2] int64 by row, then falling cosine; [L] float64 cosines).

    Raises:
        TypeError, ValueError: naming the argument.
    """
    least = check_number("min_similarity", min_similarity, -1, 1)
    k = min(check_int("n_neighbors", neighbours, 1), len(x))
    distances, indices = ops.knn(x.float(), k, metric="cosine")
    row = torch.arange(len(x), device=x.device)[:, None].expand_as(indices)
    cosine = 1 - distances.double()
    linked = (cosine >= least) & (indices != row)
    return torch.stack([row[linked], indices[linked]], dim=1), cosine[linked]


def run_infomap(links: Tensor, weights: Tensor, seed: int = 123, trials: int = 1) -> tuple[dict[int, int], float]:
    """Module of each row that has a link, and the length of the code in bits.

    Raises:
        ImportError: without the package infomap.
    """
    try:
        import infomap
    except ImportError:
        raise ImportError("Infomap: expected the package infomap, got none installed (pip install infomap)") from None
    if len(links) == 0:
        return {}, 0.0
    search = infomap.Infomap(f"--two-level --directed --silent --seed {seed} --num-trials {trials}")
    for (i, j), weight in zip(links.tolist(), weights.tolist(), strict=True):
        search.add_link(i, j, weight)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # 2.16 announces names of 3.0
        result = search.run()
        source = search if result is None else result
        modules = source.modules() if callable(getattr(source, "modules", None)) else search.get_modules()
        codelength = float(source.codelength)
    return {int(row): int(module) for row, module in dict(modules).items()}, codelength
