"""Pseudo labels of an epoch that can be trained on, or those of the epoch before, or an error that says what to do."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from ise_fast.data import FramePairSampler, PKSampler, ShuffleSampler, SinglesSampler
from ise_fast.engine.config import TrainConfig
from ise_fast.engine.errors import ClusteringError
from ise_fast.engine.features import check_features
from ise_fast.engine.plan import Plan
from ise_fast.methods import Need, NoLabels, PseudoLabels, cluster_centroids, follow_tracklets
from ise_fast.sharded import HeldRows, Peers
from ise_fast.sharded.centroids import shared_centroids

SAMPLERS: dict[str, type[PKSampler]] = {
    "pk": PKSampler, "pk-singles": SinglesSampler, "shuffle": ShuffleSampler, "frame-pairs": FramePairSampler,
}  # fmt: skip
#: Features that one process takes to look for a better eps, once there are too few clusters.
MOST_TO_ADVISE = 50_000
log = logging.getLogger(__name__)


class Labelling:
    """Makes the labels of a run: on the first process, or on all together.

    Args:
        config: the settings.
        plan: the method.
        cams: [N] int64 cameras of the training images on the CPU, or None.
        tracklets: [N] int64 tracklets of the training images on the CPU, -1 for none, or None.
    """

    def __init__(self, config: TrainConfig, plan: Plan, cams: Tensor | None, tracklets: Tensor | None = None) -> None:
        self.config = config
        self.labeller = plan.labeller
        self.need = plan.objective.need
        self.sampler = SAMPLERS[plan.method.sampler]
        self.groups = plan.method.groups
        self.cams = cams
        used = config.plan.tracklets != "ignore" or config.plan.tracklet_epochs > 0
        self.tracklets = tracklets if used else None

    def __call__(self, features: Tensor, epoch: int, previous: Tensor | None) -> PseudoLabels:
        """Labels of all training images, or those of the epoch before where there is too little to train on.

        Args:
            features: [N, d] float32 unit rows.
            epoch: from 0.
            previous: [N] labels of the epoch before.

        Raises:
            ClusteringError: if there are none from before, or the run is to stop.
        """
        check_features(features, f"features at the start of epoch {epoch + 1}")
        cams = None if self.cams is None else self.cams.to(features.device)
        return self._usable(
            lambda: self._constrained(features, cams, epoch), lambda: self.labeller.advice(features),
            lambda labels: cluster_centroids(features, labels.to(features.device)), epoch, previous,
        )  # fmt: skip

    def shared(self, rows: Tensor, peers: Peers, epoch: int, previous: Tensor | None) -> PseudoLabels:
        """The same by all processes together, of which none has all features.

        Args:
            rows: [n, d] float32 unit rows of this process.
            peers: the processes.
            epoch: from 0.
            previous: [N] labels of the epoch before.

        Raises:
            ClusteringError: on every process.
            PeerError: where another process failed.
        """
        where = f"features of process {peers.rank} at the start of epoch {epoch + 1}"
        peers.together(lambda: check_features(rows, where))
        features = HeldRows("features", rows, peers)
        own = slice(features.first, features.first + features.own)

        def advice() -> str:
            if features.rows > MOST_TO_ADVISE:
                return "try other values of --eps"
            every = peers.gather(features.x, features.counts)
            return peers.together(lambda: self.labeller.advice(every))

        return self._usable(
            lambda: self.labeller.shared(features, epoch).cpu(), advice,
            lambda labels: shared_centroids(features, labels[own]), epoch, previous,
        )  # fmt: skip

    def _usable(
        self,
        make: Callable[[], PseudoLabels],
        advise: Callable[[], str],
        centroids_of: Callable[[Tensor], Tensor],
        epoch: int,
        previous: Tensor | None,
    ) -> PseudoLabels:
        """What `make` gives, if that can be trained on."""
        seconds: dict[str, float] = {}
        try:
            result = self._grouped(make())
        except NoLabels as error:
            found, advice = f"epoch {epoch + 1}: {error}", error.advice
        else:
            lacking = self._lacking(result)
            if not lacking:
                return result
            found = f"epoch {epoch + 1}: {lacking}"
            seconds, advice = result.seconds, advise()
        if previous is None or self.config.plan.on_few_clusters == "stop":
            need = self._need_of_loss()
            remedy = "lower --batch-size / raise --num-instances" if need is None else need.remedy
            raise ClusteringError(f"{found}; {advice}; or {remedy}")
        log.warning("%s: going on with the labels of the epoch before; %s", found, advice)
        return self._grouped(PseudoLabels(previous, centroids_of(previous).cpu(), seconds=seconds))

    def _constrained(self, features: Tensor, cams: Tensor | None, epoch: int) -> PseudoLabels:
        """Labels that keep the images of a tracklet together, if asked for; in the first epochs, tracklets alone."""
        plan, tracklets = self.config.plan, self.tracklets
        if tracklets is not None and epoch < plan.tracklet_epochs:
            return PseudoLabels(follow_tracklets(tracklets, tracklets))  # numbered without holes
        result = self.labeller(features, cams, epoch).cpu()
        if tracklets is None or plan.tracklets == "ignore":
            return result
        return replace(result, labels=follow_tracklets(result.labels, tracklets), centroids=None)

    def _grouped(self, pseudo: PseudoLabels) -> PseudoLabels:
        """With what the method balances batches over, unless the labeller says it."""
        if self.groups is None or pseudo.groups is not None:
            return pseudo
        return replace(pseudo, groups=self.groups(pseudo.labels, self.cams))

    def _lacking(self, pseudo: PseudoLabels) -> str:
        """What there is too little of to train on; nothing if there is enough."""
        need, optim = self._need_of_loss(), self.config.optim
        if need is not None and pseudo.clusters < need.clusters:
            return f"{pseudo.clusters} clusters, {need.clusters} needed {need.purpose}"
        return self.sampler.lacking(pseudo.drawn.numpy(), optim.batch_size, optim.num_instances)

    def _need_of_loss(self) -> Need | None:
        """Where the loss needs more clusters than a batch has."""
        in_batch = self.config.optim.batch_size // self.config.optim.num_instances
        return self.need if self.need is not None and self.need.clusters > in_batch else None
