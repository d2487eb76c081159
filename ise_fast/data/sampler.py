"""P x K batches: P clusters, K images of each, drawn across cameras by the published rule or by a balanced one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

Rule = Literal["published", "balanced"]


class PKSampler:
    """Batches of P = batch_size / num_instances clusters with K = num_instances images each, as lists of indices.

    * Clusters: passes over a random permutation of all clusters; the P clusters of a batch are distinct, and no cluster
      comes twice in a pass (fewer than P clusters left at its end are left out of this pass).
    * Images of a cluster, rule "published" (Cluster Contrast, ISE, SpCL): one random image, then K - 1 of *other
      cameras* than its own, or, where there are none, of the rest of the cluster: without replacement if there are at
      least K of these, else with. So the first image's camera comes once, and images of rare cameras come often.
    * Rule "balanced": one of every camera before a second of any, random otherwise; fewer than K images are repeated
      evenly.
    * A cluster of one image fills its group with copies of it, which are augmented each anew. (The published programs
      put in the one image alone, and all groups behind it in the batch are then misaligned.)

    Batch i of epoch e depends on (labels, cams, seed, e, i) only and not on what was drawn before. Resuming in the
    middle of an epoch is therefore `set_epoch(e, start=i)`.

    Args:
        labels: [N] int, cluster of each image; -1 is noise and never drawn.
        cams: [N] int, camera of each image, or None.
        batch_size: images in a batch, a multiple of num_instances.
        num_instances: K, images of a cluster in a batch.
        iterations: batches in an epoch.
        seed: of all randomness.
        rule: how the images of a cluster are drawn.

    Raises:
        ValueError: for wrong shapes or sizes, another rule, or fewer clusters than a batch needs.
    """

    #: Whether images of a cluster are drawn across the labels of a run in place of cameras, clusters being its groups.
    across_labels: ClassVar[bool] = False

    def __init__(
        self,
        labels: ArrayLike,
        cams: ArrayLike | None,
        batch_size: int,
        num_instances: int,
        iterations: int,
        seed: int = 0,
        rule: Rule = "published",
    ) -> None:
        label_array = np.asarray(labels)
        if label_array.ndim != 1 or not np.issubdtype(label_array.dtype, np.integer):
            raise ValueError(f"labels: expected [N] integers, got shape {label_array.shape} of {label_array.dtype}")
        cam_array = None if cams is None else np.asarray(cams)
        if cam_array is not None and cam_array.shape != label_array.shape:
            raise ValueError(f"cams: expected shape {label_array.shape} like labels, got {cam_array.shape}")
        if num_instances < 1:
            raise ValueError(f"num_instances: expected at least 1, got {num_instances}")
        if batch_size < 1 or batch_size % num_instances:
            raise ValueError(f"batch_size: expected a multiple of num_instances ({num_instances}), got {batch_size}")
        if iterations < 0:
            raise ValueError(f"iterations: expected 0 or more, got {iterations}")
        if seed < 0:
            raise ValueError(f"seed: expected 0 or more, got {seed}")
        if rule not in get_args(Rule):
            raise ValueError(f"rule: expected one of {', '.join(get_args(Rule))}, got {rule!r}")
        self.clusters_per_batch = batch_size // num_instances
        self.num_instances = num_instances
        self.iterations = iterations
        self.seed = seed
        self.rule = rule
        self.epoch = 0
        self.start = 0
        self._cams = cam_array
        self._members = _members(label_array)
        if self.lacking(label_array, batch_size, num_instances):
            raise ValueError(_too_few_clusters(len(self._members), batch_size, num_instances))

    @classmethod
    def lacking(cls, labels: NDArray[Any], batch_size: int, num_instances: int) -> str:
        """What there is too little of to fill a batch; nothing if there is enough."""
        found, needed = len(np.unique(labels[labels >= 0])), batch_size // num_instances
        return "" if found >= needed else f"{found} clusters, {needed} needed to fill a batch"

    def __len__(self) -> int:
        return self.iterations

    def __iter__(self) -> Iterator[list[int]]:
        """The batches of the epoch from `start` on."""
        for iteration in range(self.start, self.iterations):
            yield self.batch(iteration)

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Choose the epoch, and the iteration of it at which iterating begins."""
        self.epoch = epoch
        self.start = start

    def state_dict(self) -> dict[str, Any]:
        """Epoch and first iteration. A trainer that stops after i batches saves its own i as `start`."""
        return {"epoch": self.epoch, "start": self.start, "seed": self.seed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch, self.start, self.seed = int(state["epoch"]), int(state["start"]), int(state["seed"])

    def batch(self, iteration: int) -> list[int]:
        """The indices of one batch: K images of the first cluster, K of the second, ...."""
        batches_per_pass = len(self._members) // self.clusters_per_batch
        number, place = divmod(iteration, batches_per_pass)
        # The last word keeps the stream of a pass apart from that of an iteration with the same number.
        order = np.random.default_rng((self.seed, self.epoch, number, 0)).permutation(len(self._members))
        chosen = order[place * self.clusters_per_batch : (place + 1) * self.clusters_per_batch]
        random = np.random.default_rng((self.seed, self.epoch, iteration, 1))
        draw = self._draw_published if self.rule == "published" else self._draw_balanced
        groups = [draw(self._members[cluster], random) for cluster in chosen]
        return [int(index) for group in groups for index in group]

    def _draw_published(self, members: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.int64]:
        place = int(random.integers(len(members)))
        first, others = members[place], np.delete(members, place)
        if self._cams is not None:
            elsewhere = others[self._cams[others] != self._cams[first]]
            others = elsewhere if len(elsewhere) else others
        if len(others) == 0:
            return np.full(self.num_instances, first)
        enough = len(others) >= self.num_instances  # published: K of them, where K - 1 would do
        return np.concatenate([[first], random.choice(others, self.num_instances - 1, replace=not enough)])

    def _draw_balanced(self, members: NDArray[np.int64], random: np.random.Generator) -> NDArray[np.int64]:
        shuffled = random.permutation(members)
        if self._cams is not None:
            # Order by how often the image's camera came before it: all first images of a camera, all second ones, ....
            # A stable sort keeps the random order inside a round, hence among cameras too.
            shuffled = shuffled[np.argsort(occurrence(self._cams[shuffled]), kind="stable")]
        return np.resize(shuffled, self.num_instances)


def _members(labels: NDArray[Any]) -> list[NDArray[np.int64]]:
    """Indices of the images of each cluster, clusters by ascending label; noise left out."""
    order = np.argsort(labels, kind="stable")
    order = order[labels[order] >= 0]
    boundaries = np.flatnonzero(np.diff(labels[order])) + 1
    return np.split(order, boundaries) if len(order) else []


def occurrence(values: NDArray[Any]) -> NDArray[np.int64]:
    """For each entry the number of equal entries before it."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    first = np.searchsorted(ordered, ordered, side="left")
    occurrence = np.empty(len(values), dtype=np.int64)
    occurrence[order] = np.arange(len(values)) - first
    return occurrence


def _too_few_clusters(found: int, batch_size: int, num_instances: int) -> str:
    needed = batch_size // num_instances
    remedy = f"lower --batch-size to {found * num_instances} or less, raise --num-instances, or change --eps"
    if found == 0:
        remedy = "everything is noise: raise --eps or lower --min-samples"
    have = f"{found} clusters, {needed} needed for a batch ({batch_size} images / {num_instances} instances)"
    return f"labels: {have}: {remedy}"
