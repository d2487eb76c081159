"""The training loop: every epoch extract, cluster, train against the memory, evaluate, save."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ise_fast._progress import Stage, stage
from ise_fast._stopwatch import Stopwatch
from ise_fast.data import BatchAugment, Mixing
from ise_fast.engine.assemble import Plan, TrainingImages
from ise_fast.engine.batches import TrainingBatches
from ise_fast.engine.checkpoint import CheckpointFolder
from ise_fast.engine.config import TrainConfig
from ise_fast.engine.distributed import World
from ise_fast.engine.errors import Interrupted, NonFiniteError, RunError
from ise_fast.engine.features import FeatureExtractor
from ise_fast.engine.interrupt import InterruptGuard
from ise_fast.engine.labelling import Labelling
from ise_fast.engine.loss_step import split_parts
from ise_fast.engine.optimizer import learning_rate, set_learning_rate
from ise_fast.engine.run_log import RunLog, epoch_line
from ise_fast.engine.state import Progress, TrainState
from ise_fast.engine.step import LossLog, TrainStep
from ise_fast.methods import PseudoLabels
from ise_fast.sharded import PeerError, Peers

log = logging.getLogger(__name__)


class Trainer:
    """Trains one network on images without identities.

    Args:
        config: the settings.
        plan: the method.
        training: the images, and their cameras, which steer the sampler.
        step: forward, loss, backward, update.
        state: what checkpoints hold; it says where to start.
        extract: images -> features, with the same network.
        judge: pseudo labels -> how they agree with what the evaluator knows of the training images, or None.
        evaluate: figures of the network on the test split, or None if the data set has none. It alone sees identities.
        checkpoints: where states are saved.
        run_log: what the run leaves behind; the first rank writes it.
        world: this process among its peers.
        guard: remembers SIGTERM and Ctrl-C.
    """

    def __init__(
        self,
        config: TrainConfig,
        plan: Plan,
        training: TrainingImages,
        step: TrainStep,
        state: TrainState,
        extract: FeatureExtractor,
        judge: Callable[[Tensor], dict[str, float]] | None,
        evaluate: Callable[[], dict[str, float]] | None,
        checkpoints: CheckpointFolder,
        run_log: RunLog,
        world: World,
        guard: InterruptGuard,
    ) -> None:
        self.config = config
        self.images = training.images
        self.cams = None if training.cams is None else torch.from_numpy(training.cams)
        self.labeller = plan.labeller
        self.objective = plan.objective
        tracklets = None if training.tracklets is None else torch.from_numpy(training.tracklets)
        self.label = Labelling(config, plan, self.cams, tracklets)
        plan.labeller.know(self.cams, None if training.frames is None else torch.from_numpy(training.frames))
        self.views = training.views
        self.singles_apart = plan.method.sampler == "pk-singles"
        self.step = step
        self.state = state
        self.extract = extract
        self.judge = judge
        self.evaluate = evaluate
        self.checkpoints = checkpoints
        self.run_log = run_log
        self.world = world
        self.guard = guard
        self.augment = BatchAugment(flip=config.data.flip, pad=config.data.padding, erase=config.data.erase)
        self.mixing = self._make_mixing()
        extract.before_batch = self._stop_if_alone_and_asked

    @property
    def progress(self) -> Progress:
        return self.state.progress

    def run(self) -> None:
        """Train up to the configured number of epochs.

        Raises:
            Interrupted: after SIGTERM or Ctrl-C, with the state saved.
            RunError: too few clusters, NaN, or a file that cannot be written.
        """
        try:
            if not self.progress.history and self.progress.iteration == 0:
                self._evaluate_untrained()
            while self.progress.epoch < self.config.optim.epochs:
                self._epoch()
        except _StopRequested:
            path = self._save()
            message = f"stopped on request; saved {path}; go on with the same command and --resume auto"
            raise Interrupted(self.guard.signum or 15, message) from None

    def _evaluate_untrained(self) -> None:
        if self.evaluate is None or self.config.run.eval_step == 0:
            return
        record: dict[str, Any] = {"epoch": 0, **self.evaluate()}
        log.info("untrained network: mAP %.1f%% rank-1 %.1f%%", 100 * record["mAP"], 100 * record["rank1"])
        self.progress.history.append(record)
        self._publish(record)

    def _epoch(self) -> None:
        watch = Stopwatch(self.world.device)
        progress, epochs = self.progress, self.config.optim.epochs
        if progress.iteration == 0:
            self._begin(watch)
        if progress.iteration < self._iterations_of_epoch():
            with watch.stage("train"):
                self._iterations()
        assert progress.losses is not None  # left by _begin and _iterations, or by the checkpoint
        means = progress.losses.double().mean(dim=0).tolist()
        names = ("loss", *self.objective.parts)  # older versions wrote more columns
        progress.record.update(zip(names, means, strict=False))
        every, number = self.config.run.eval_step, progress.epoch + 1
        if self.evaluate is not None and every and (number % every == 0 or number == epochs):
            with watch.stage("evaluate"):
                progress.record.update(self.evaluate())
        if self.judge is not None and every and progress.labels is not None:
            progress.record["quality"] = self.judge(progress.labels)
        record = {"epoch": number, **progress.record}
        record["seconds"] = {**progress.record["seconds"], **watch.seconds}
        best = "mAP" in record and (progress.best is None or record["mAP"] > progress.best["mAP"])
        if best:
            progress.best = record
        progress.epoch, progress.iteration, progress.losses, progress.record = number, 0, None, {}
        progress.history.append(record)
        self._save(best=best)  # first: what is published here is written anew from the checkpoint on resuming
        figures = (*self.labeller.figures, *self.objective.figures)
        line = epoch_line(record, epochs, self.objective.parts, figures)
        log.info("%s%s", line, " (best)" if best else "")
        self._publish(record)

    def _publish(self, record: dict[str, Any]) -> None:
        self.world.on_main(lambda: self.run_log.epoch(record))

    def _begin(self, watch: Stopwatch) -> None:
        """Start the record of an epoch, with new labels where they are due."""
        progress, seconds = self.progress, watch.seconds
        if progress.labels is None or self.state.needs_labels or self.labeller.due(progress.epoch):
            result = self._new_pseudo_labels(watch)
        else:
            result = PseudoLabels(progress.labels)
        last = self._iterations_of_epoch() - 1
        progress.losses = torch.empty((0, 1 + len(self.objective.parts)))
        progress.record = {
            **result.summary(singles_apart=self.singles_apart),
            "lr": learning_rate(self.config.optim, progress.epoch),
            "seconds": {**seconds, **result.seconds},
            **result.figures,
            **self.objective.figures_at(self._training_progress(last)),
        }
        seconds.clear()

    def _new_pseudo_labels(self, watch: Stopwatch) -> PseudoLabels:
        """Label all training images and begin the memory's part."""
        progress, memory = self.progress, self.step.memory
        features = memory.rows
        alone = features is not None or memory.reads_features or not self._may_share()
        if features is None and self.labeller.reads_features:
            share = self.world.share(len(self.images))  # what this process extracts
            extract = self.extract if alone else self.extract.own
            with watch.stage("extract"), self._watched(share.stop - share.start, "extract", "img") as watched:
                features = extract(self.images, watched.update, with_parts=True)
        elif features is None:
            width = int(self.state.model.num_features) * (1 + self.config.model.parts)  # type: ignore[arg-type]
            features = torch.zeros(len(self.images), width, device=self.world.device)
        (rows, parts), previous = split_parts(features, self.config.model.parts), progress.labels
        if alone:  # the first process labels
            result = self.world.on_main(lambda: self.label(rows, progress.epoch, previous))
        else:  # all together: none ever has all features
            result = self._label_together(rows)
        progress.labels, progress.groups = result.labels, result.groups
        result = replace(result, parts=parts)
        self.step.memory.begin(rows, result, None if self.cams is None else self.cams.to(rows.device))
        self.state.needs_labels = False
        if self.config.optim.reset_optimizer:
            self.step.optimizer.state.clear()
        return result

    def _may_share(self) -> bool:
        """Whether processes can make the labels together, each with its own features."""
        constrained = self.label.tracklets is not None or self.config.model.parts > 0
        return self.world.size > 1 and self.labeller.shares and not constrained

    def _label_together(self, rows: Tensor) -> PseudoLabels:
        try:
            return self.label.shared(rows, Peers(dist.group.WORLD), self.progress.epoch, self.progress.labels)
        except PeerError as error:
            raise RunError(str(error)) from None

    def _iterations_of_epoch(self) -> int:
        """As many as asked for, or those of one pass over the labelled images."""
        optim, drawn = self.config.optim, self.progress.drawn
        return optim.iters or max(1, int((drawn >= 0).sum()) // optim.batch_size)

    def _training_progress(self, iteration: int) -> float:
        """t / T at an iteration of this epoch: iterations done, of all of the run."""
        count = self._iterations_of_epoch()
        return (self.progress.epoch * count + iteration) / (count * self.config.optim.epochs)

    def _iterations(self) -> None:
        """Run the iterations of the epoch that are left."""
        config, progress, optim = self.config, self.progress, self.config.optim
        count = self._iterations_of_epoch()
        losses = LossLog(self.objective.parts, count, self.world.device, progress.losses)
        check_every = 1 if self.world.device.type == "cpu" else config.run.print_freq
        batches = self._batches().iterate(progress.iteration)
        self.step.model.train()
        set_learning_rate(self.step.optimizer, learning_rate(optim, progress.epoch))
        description = f"epoch {progress.epoch + 1}/{optim.epochs}"
        try:
            with self._watched(count, description, "iterations", progress.iteration) as watched:
                for images, batch in batches:
                    done_share = self._training_progress(progress.iteration)
                    losses.put(progress.iteration, self.step(images, batch, done_share))
                    progress.iteration += 1
                    done = progress.iteration
                    save = config.run.checkpoint_step and done % config.run.checkpoint_step == 0 and done < count
                    stop = (self.world.size == 1 or done % config.run.print_freq == 0) and self.world.any(
                        self.guard.asked
                    )
                    if save or stop or done % check_every == 0 or done == count:
                        progress.losses = losses.read(done)
                    if done % config.run.print_freq == 0 and progress.losses is not None:
                        watched.note(f"loss {float(progress.losses[-1, 0]):.3f}")
                    watched.update()
                    if stop:
                        raise _StopRequested
                    if save:
                        self._save()
        except NonFiniteError as error:
            raise NonFiniteError(
                f"epoch {progress.epoch + 1}, iteration {progress.iteration + 1}: {error}; lower --lr, set "
                "--clip-grad 1 or use --precision fp32, and go on from the last checkpoint with --resume auto"
            ) from None
        finally:
            batches.close()
            self.step.loss.release()

    def _batches(self) -> TrainingBatches:
        optim, labels = self.config.optim, self.progress.labels
        assert labels is not None  # set by _new_pseudo_labels, or by the checkpoint
        across = labels if self.label.sampler.across_labels else self.cams
        sampler = self.label.sampler(
            self.progress.drawn.numpy(), None if across is None else across.numpy(), optim.batch_size,
            optim.num_instances, self._iterations_of_epoch(), self.config.run.seed, optim.sampler,
        )  # fmt: skip
        sampler.set_epoch(self.progress.epoch)
        return TrainingBatches(
            self.images, sampler, labels, self.cams, self.augment, self.mixing, self.world,
            channels_last=optim.channels_last, views=self.views,
        )  # fmt: skip

    def _make_mixing(self) -> Mixing | None:
        """Mixtures of images that one BatchNorm sees together."""
        mix, local = self.config.mix, self.config.optim.batch_size // self.world.size
        if mix.mix == "none":
            return None
        return Mixing(mix.mix, mix.mix_alpha, mix.mix_probability, min(self.config.model.bn_chunk or local, local))

    def _save(self, *, best: bool = False) -> Path | None:
        """Write a checkpoint of this moment; every rank must call it, the first writes."""
        state = self.state.pack()
        return self.world.on_main(lambda: self.checkpoints.save(state, best=best))

    def _stop_if_alone_and_asked(self) -> None:
        """Between batches of extraction. Several processes could not agree there without a collective: they go on."""
        if self.world.size == 1 and self.guard.asked:
            raise _StopRequested

    def _watched(self, total: int, description: str, unit: str, done: int = 0) -> AbstractContextManager[Stage]:
        """A stage with a progress bar on the first rank, or lines in the log."""
        return stage(total, description, unit, bar=self.config.run.bars and self.world.is_main, done=done)


class _StopRequested(Exception):
    """SIGTERM or Ctrl-C came, and this is a safe place to stop."""
