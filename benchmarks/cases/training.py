"""A whole training epoch on the synthetic data set, once with the operators and once with their reference."""

from __future__ import annotations

import json
import logging
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path
from unittest import mock

import torch
from torch import Tensor

from benchmarks import checks
from benchmarks.cases.setting import Setting, missing
from benchmarks.measure import Case, Variant
from ise_fast import ops, reference


def training_epoch(setting: Setting) -> Iterator[Case]:
    """From the start of a run to its first checkpoint: open images, extract, cluster, train. No evaluation."""
    if missing("torchvision", "jsonargparse"):
        return
    epochs = [("small", 4 if setting.quick else 30)] if setting.device.type == "cpu" else [("resnet50", 100)]
    for arch, iterations in epochs:
        run = partial(_epoch, arch, iterations, setting.device)
        truth = run(fused=True)
        check = partial(checks.close, truth, tolerance=1e-2)  # a training amplifies the last bit
        yield Case(
            operator="training_epoch",
            shape={"iterations": iterations},
            variants=[
                Variant("fused", partial(run, fused=True), partial(checks.close, truth, tolerance=0.0)),
                Variant("reference", partial(run, fused=False), check),
            ],
            device=setting.device,
        )


def _epoch(arch: str, iterations: int, device: torch.device, *, fused: bool) -> Tensor:
    """Mean loss, clusters and outliers of the epoch.

    Raises:
        RuntimeError: if the run fails.
    """
    from ise_fast import train

    with tempfile.TemporaryDirectory() as folder, ExitStack() as swaps:
        if not fused:
            for name in reference.__all__:
                swaps.enter_context(mock.patch.object(ops, name, getattr(reference, name)))
        arguments = ["--arch", arch, "--iters", str(iterations), "--epochs", "1", "--eval-step", "0"]
        arguments += ["--logs-dir", folder, "--no-progress", "--no-report", "--no-tensorboard", "--device", str(device)]
        try:
            with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
                status = train.main(arguments)
        finally:
            logging.getLogger("ise_fast").handlers.clear()
        if status:
            raise RuntimeError(f"python -m ise_fast.train {' '.join(arguments)}: exit status {status}")
        record = json.loads((Path(folder) / "metrics.jsonl").read_text().splitlines()[-1])
    return torch.tensor([record["loss"], record["clusters"], record["outliers"]], dtype=torch.float64)
