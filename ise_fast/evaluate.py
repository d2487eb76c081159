"""Evaluate a checkpoint: `python -m ise_fast.evaluate --checkpoint C --dataset D --data-dir DIR [--rerank]`."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ise_fast.commands.command import check_target
from ise_fast.data import Split
from ise_fast.data.files import publish
from ise_fast.engine import assemble, distributed
from ise_fast.engine.config import TrainConfig
from ise_fast.engine.console import console_level, say, start_console
from ise_fast.engine.distributed import World
from ise_fast.engine.errors import UsageError
from ise_fast.engine.evaluator import evaluate
from ise_fast.engine.features import FeatureExtractor
from ise_fast.engine.flags import add_flags, expand_home, normalise, run_parser
from ise_fast.engine.inference import open_checkpoint
from ise_fast.engine.precision import Precision, allow_tf32
from ise_fast.engine.wording import make_parser
from ise_fast.methods import flag
from ise_fast.models import EmbeddingNet, build_model
from ise_fast.models.pretrained import embedding_options

PROG = "python -m ise_fast.evaluate"
EXAMPLES = """  {prog} --checkpoint logs/synthetic/checkpoints/best.pt
  {prog} --checkpoint best.pt -d market1501 --data-dir DATA --rerank --output figures.json
"""
EXIT_CODES = "exit codes: 0 done, 2 wrong arguments, or a checkpoint or images that cannot be read"
log = logging.getLogger("ise_fast.evaluate")


@dataclass(frozen=True)
class EvaluateConfig:
    """What to evaluate, and on which images; what is left out is as in training."""

    checkpoint: str | None = flag(
        None, "checkpoint of a training run, such as logs/NAME/checkpoints/best.pt", path=True
    )
    arch: str | None = flag(None, "take the checkpoint as weights of another program, of this architecture", "-a")
    dataset: str | None = flag(None, "data set; default: the one of training", "-d")
    data_dir: str | None = flag(None, "folder that holds the data set; default: as in training", path=True)
    rerank: bool = flag(False, "k-reciprocal re-ranking besides the plain distance")
    output: str | None = flag(None, "also write the figures to this JSON file", path=True)
    features: str | None = flag(
        None, "also write features, paths, ids and cams of query and gallery to this .npz file", path=True
    )
    height: int | None = flag(None, "image height")
    width: int | None = flag(None, "image width")
    identity_pattern: str | None = flag(None, "folder data set: regular expression with groups id and camera")
    labels_csv: str | None = flag(None, "folder data set: CSV file with columns path, id, camera, split", path=True)
    test_batch_size: int = flag(256, "images in a batch")
    workers: int = flag(2, "threads that decode images", "-j")
    device: str = flag("auto", "auto, cpu, cuda, cuda:N")
    quiet: bool = flag(False, "warnings and errors alone; --output takes the figures")


def main(argv: Sequence[str] | None = None, prog: str = PROG) -> int:
    """Run the command line; returns the exit status: 0 done, 2 wrong arguments."""
    try:
        config = _parse(sys.argv[1:] if argv is None else argv, prog)
        try:
            world = distributed.start(config.device)
        except (ValueError, RuntimeError) as error:
            raise UsageError(f"--device: {error}") from error
        try:
            start_console(console_level(quiet=config.quiet, is_main=world.is_main))
            run(config, world)
        finally:
            distributed.stop()
    except UsageError as error:
        say(f"{prog}: error: {error}")
        return error.exit_status
    except KeyboardInterrupt:
        say(f"{prog}: interrupted")
        return 130
    return 0


def _parse(argv: Sequence[str], prog: str) -> EvaluateConfig:
    parser = make_parser(
        prog, EXAMPLES, EXIT_CODES, usage="%(prog)s --checkpoint FILE [flags]",
        description="Evaluate a trained network by retrieval.",
    )  # fmt: skip
    add_flags(parser, EvaluateConfig)
    config = EvaluateConfig(**expand_home(run_parser(parser, normalise(argv), EvaluateConfig), EvaluateConfig))
    if config.checkpoint is None:
        raise UsageError("--checkpoint: expected the path of a checkpoint, got none")
    for name, low in (("test_batch_size", 1), ("workers", 0), ("height", 1), ("width", 1)):
        value = getattr(config, name)
        if value is not None and value < low:
            raise UsageError(f"--{name.replace('_', '-')}: expected a number of at least {low}, got {value}")
    if config.arch is not None and config.dataset is None:
        raise UsageError("--dataset: expected the name of a data set, since weights of another program name none")
    return config


@dataclass(frozen=True)
class Network:
    """A trained network and what is known of its training."""

    model: EmbeddingNet
    config: TrainConfig
    epoch: int | None = None
    is_best: bool = False


def _open_network(config: EvaluateConfig) -> Network:
    path = Path(config.checkpoint or "").expanduser()
    if config.arch is not None:
        size = (config.height, config.width) if config.height and config.width else None
        try:
            model = build_model(config.arch, pretrained=str(path), size=size, **embedding_options(path))
        except (ValueError, FileNotFoundError, ImportError) as error:
            said = str(error)
            if said.startswith("pretrained: "):
                said = f"--checkpoint: {said.removeprefix('pretrained: ')}"
            raise UsageError(said) from error
        return Network(model, TrainConfig())
    model, trained, state = open_checkpoint(path)
    best = state["best"]
    return Network(model, trained, state["epoch"], best is not None and best["epoch"] == state["epoch"])


def run(config: EvaluateConfig, world: World) -> dict[str, Any]:
    """Evaluate and return the figures by name: "plain" and, if asked for, "rerank".

    Raises:
        UsageError: if the checkpoint or the data set cannot be used, or a file cannot be written.
    """
    world.on_main(lambda: _check_targets(config))
    network = world.together(lambda: _open_network(config))
    trained = network.config
    chosen = {f.name for f in dataclasses.fields(trained.data)} & {f.name for f in dataclasses.fields(config)}
    overrides = {name: getattr(config, name) for name in chosen if getattr(config, name) is not None}
    if (
        "labels_csv" in overrides
        or "identity_pattern" in overrides
        or overrides.get("dataset", trained.data.dataset) != "folder"
    ):
        overrides = {"labels_csv": None, "identity_pattern": None, **overrides}  # one says where labels are, not both
    data = dataclasses.replace(trained.data, **overrides)
    dataset = assemble.check_test_images(assemble.open_dataset(data, world))
    log.info("%s", dataset.table())
    assemble.check_image_size(network.model, assemble.image_size(data, dataset), torch.device("cpu"))
    test = assemble.open_test_images(data, dataset, world, progress=not config.quiet)
    if test is None:
        raise UsageError(
            f"--dataset: {data.dataset} has no queries and gallery with identities, so nothing can be evaluated"
        )

    allow_tf32(trained.optim.tf32)
    model = network.model.to(world.device)
    precision = Precision(trained.optim.precision, world.device)
    extract = FeatureExtractor(model, world, precision, config.test_batch_size)
    query, gallery = test.extract(extract, world, progress=not config.quiet)

    def measure() -> dict[str, Any]:
        results = {}
        for name in ("plain", "rerank") if config.rerank else ("plain",):
            try:
                result = evaluate(query, gallery, test.query, test.gallery, rerank=name == "rerank")
            except ValueError as error:  # NaN in the features, above all
                raise UsageError(f"--checkpoint: its features cannot be ranked: {error}") from error
            log.info("%-7s %s (%d queries)", name, result, result.queries)
            results[name] = result.as_dict()
        return results

    results: dict[str, Any] = {"checkpoint": config.checkpoint, "epoch": network.epoch, **world.on_main(measure)}
    if network.is_best and data.dataset == trained.data.dataset:
        log.info("note: this is the best epoch so far of its run, chosen on this test split")
    if world.is_main and config.output is not None:
        text = json.dumps(results, indent=2) + "\n"
        _write("--output", config.output, lambda file: file.write(text.encode()))
    if world.is_main and config.features is not None:
        arrays = {**_columns("query", query, test.query), **_columns("gallery", gallery, test.gallery)}
        _write("--features", config.features, lambda file: np.savez(file, **arrays))
    return results


def _columns(name: str, features: torch.Tensor, split: Split) -> dict[str, Any]:
    known = {"paths": [str(path) for path in split.paths], "ids": split.ids, "cams": split.cams}
    return {name: features.cpu().numpy(), **{f"{name}_{key}": v for key, v in known.items() if v is not None}}


def _check_targets(config: EvaluateConfig) -> None:
    if config.features is not None and not config.features.endswith(".npz"):
        raise UsageError(f"--features: expected a name that ends in .npz, got {config.features}")
    for name in ("output", "features"):
        target = getattr(config, name)
        check_target(f"--{name}", None if target is None else Path(target))


def _write(flag_name: str, target: str, write: Callable[[Any], object]) -> None:
    """Whole or not at all: what was there before stays where the new file cannot be written."""
    try:
        place = os.path.realpath(target) if os.path.isfile(target) else target  # a link stays one
        with publish(Path(place)) as temporary, temporary.open("wb") as file:
            write(file)
    except OSError as error:
        raise UsageError(f"{flag_name}: {target} cannot be written: {error.strerror or error}") from error


if __name__ == "__main__":
    sys.exit(main())
