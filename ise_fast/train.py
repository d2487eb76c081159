"""Train: `python -m ise_fast.train`, or under `torchrun` for several GPUs. `--help` lists the settings."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from ise_fast.engine import assemble, distributed, run_folder
from ise_fast.engine.checkpoint import CheckpointFolder
from ise_fast.engine.cluster_quality import judge_of
from ise_fast.engine.config import TrainConfig, parse
from ise_fast.engine.console import console_level, say, start_console
from ise_fast.engine.distributed import World
from ise_fast.engine.errors import Interrupted, RunError, UsageError
from ise_fast.engine.features import FeatureExtractor
from ise_fast.engine.interrupt import InterruptGuard
from ise_fast.engine.precision import allow_tf32
from ise_fast.engine.report import DATA, PAGE, write_report
from ise_fast.engine.report_data import ReportData
from ise_fast.engine.report_samples import sample_run
from ise_fast.engine.result import TrainResult
from ise_fast.engine.run_log import RunLog
from ise_fast.engine.trainer import Trainer

PROG = "python -m ise_fast.train"
FIGURES = {"mAP": "mAP", "rank1": "rank-1", "rank5": "rank-5", "rank10": "rank-10", "mINP": "mINP"}
RESULTS = (
    *(PAGE, "metrics.json", "metrics.jsonl", "curves.png", "config.yaml", "environment.json", "train.log"),
    *("tensorboard/", "checkpoints/"),
)
log = logging.getLogger("ise_fast.train")


def main(argv: Sequence[str] | None = None, prog: str = PROG) -> int:
    """Run the command line; returns the exit status: 0 done, 1 the run failed, 2 wrong arguments, 128 + n signal n."""
    try:
        run(sys.argv[1:] if argv is None else argv, prog)
    except UsageError as error:
        say(f"{prog}: error: {error}")
        return error.exit_status
    except RunError as error:
        return error.exit_status  # train has logged it, in the run's log file too
    except Interrupted as stop:
        say(f"{prog}: {stop}")
        return stop.exit_status
    except KeyboardInterrupt:  # before the run has a folder, or a second Ctrl-C
        say(f"{prog}: interrupted")
        return 130
    return 0


def run(argv: Sequence[str], prog: str = PROG) -> TrainResult:
    """Train from Python, with the flags of the command line, and get the figures back.

    Args:
        argv: such as ["--preset", "synthetic", "--epochs", "3"].
        prog: how --help calls the program.

    Raises:
        UsageError: (a ValueError) for wrong arguments, or a run that cannot start.
        RunError: if the run failed.
        Interrupted: if a signal stopped it.

    Example:
        >>> from ise_fast.train import run  # doctest: +SKIP
        >>> run(["--preset", "synthetic", "--epochs", "3"]).epochs["mAP"]  # doctest: +SKIP
    """
    config = parse(argv, prog)
    try:
        return train(config, _start(config))
    finally:
        distributed.stop()


def _start(config: TrainConfig) -> World:
    allow_tf32(config.optim.tf32)
    if config.run.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it starts
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
    try:
        world = distributed.start(config.run.device)
    except (ValueError, RuntimeError) as error:
        raise UsageError(f"--device: {error}") from error
    start_console(console_level(quiet=config.run.quiet, is_main=world.is_main))
    return world


def train(config: TrainConfig, world: World) -> TrainResult:
    """Train as configured.

    Raises:
        UsageError: before anything is written, if the run cannot start.
        RunError, Interrupted: see `Trainer.run`.
    """
    with contextlib.ExitStack() as held:  # the lock of the run's folder
        return _train(config, world, held)


def _train(config: TrainConfig, world: World, held: contextlib.ExitStack) -> TrainResult:
    log.info(
        "preset %s, method %s, seed %d, device %s", config.preset, config.plan.method, config.run.seed, world.device
    )
    assemble.require_same_settings(config, world)
    place = world.on_main(lambda: run_folder.choose(config, held))
    dataset = assemble.check_test_images(assemble.open_dataset(config.data, world), config.run.eval_step)
    log.info("%s", dataset.table())
    config = assemble.with_image_size(config, dataset)
    plan = assemble.make_plan(config)
    config = assemble.with_parts(config, plan)
    assemble.check_plan(config, plan, dataset.training_images)
    # The network before the images: a wrong --arch or weight file is found in seconds, decoding may take minutes.
    allow_tf32(config.optim.tf32)
    step, state = assemble.build_step_and_state(config, plan, world)
    assemble.check_image_size(state.model, assemble.image_size(config.data, dataset), world.device)
    training = assemble.open_training_images(config.data, dataset, world, progress=config.run.bars)
    assemble.check_sizes(config, plan, len(training.images), world)
    test = assemble.open_test_images(config.data, dataset, world, progress=config.run.bars)
    state.images = training.signature
    if place.content is not None:
        content = place.content
        world.together(lambda: state.unpack(content))
    folder = world.on_main(lambda: run_folder.claim(place, held))
    checkpoints = CheckpointFolder(folder / "checkpoints", config.run.keep_checkpoints)
    if place.path is not None:
        log.info(
            "resumed from %s: epoch %d, iteration %d", place.path, state.progress.epoch + 1, state.progress.iteration
        )
        if state.progress.epoch >= config.optim.epochs:
            log.info("%d epochs are done already: nothing is left to train", state.progress.epoch)
    if test is None:
        log.info("no queries with identities: nothing is evaluated, the last epoch counts")

    extract = FeatureExtractor(
        state.model, world, state.precision, config.run.test_batch_size, channels_last=config.optim.channels_last
    )
    evaluate = None if test is None else test.evaluator(extract, world, progress=config.run.bars)
    # Identities of training images, where known, are for figures alone: the trainer gets a function of labels.
    ids = None if dataset.train.ids is None else dataset.train.ids[training.images.kept]
    judge = None if ids is None else judge_of(ids)
    with InterruptGuard() as guard:  # from the first file on, so that a signal finds somebody who answers
        run_log = RunLog(folder, checkpoints)
        trainer = Trainer(
            config, plan, training, step, state, extract, judge, evaluate, checkpoints, run_log, world, guard
        )
        try:
            history = state.progress.history
            if config.run.resume == "auto":
                world.on_main(lambda: checkpoints.complete(place.path, place.content))
            world.on_main(lambda: run_log.open(config, history))
            trainer.run()
            summary = summarise(history, state.progress.best)
            world.on_main(lambda: run_log.finish(summary, history))
            if config.run.report:
                _report(folder, lambda: sample_run(extract, test, training, state.progress.labels, world, ids), world)
            if world.is_main:
                _say_where(folder, summary)
        except RunError as error:
            log.error("%s", error)
            raise
        finally:
            run_log.close()
    return TrainResult(folder, summary, tuple(history))


def _report(folder: Path, sample: Callable[[], ReportData], world: World) -> None:
    """Write report.html; the run is done and safe, so whatever goes wrong here is only a warning."""
    try:
        data = sample()
        if world.is_main:
            data.save(folder / DATA)
            write_report(folder)
    except Exception as error:
        why = " ".join(str(error).split()) or type(error).__name__
        log.warning("no report: %s; the run itself is complete", why)


def summarise(history: Sequence[dict[str, Any]], best: dict[str, Any] | None) -> dict[str, Any]:
    """What metrics.json holds: untrained network, best and last epoch, and how the best was chosen."""
    untrained = next((record for record in history if record["epoch"] == 0), None)
    return {
        "untrained": untrained,
        "best": best,
        "last": history[-1] if history else None,
        "note": "the best epoch was chosen on the test split: for a fair comparison use the last one",
    }


def _say_where(folder: Path, summary: dict[str, Any]) -> None:
    for name in ("untrained", "best", "last"):
        record = summary[name]
        if record is not None and "mAP" in record:
            chosen = " (chosen on the test split)" if name == "best" else ""
            figures = " ".join(f"{label} {record[key]:.1%}" for key, label in FIGURES.items())
            log.info("%-9s epoch %3d: %s%s", name, record["epoch"], figures, chosen)
    log.info("results are in %s: %s", folder, " ".join(name for name in RESULTS if (folder / name).exists()))


if __name__ == "__main__":
    sys.exit(main())
