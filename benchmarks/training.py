"""python -m benchmarks.training: train each method from several seeds and record what came of it.

    python -m benchmarks.training omniglot --data-dir DIR --out benchmarks/results/omniglot.json
    python -m benchmarks.training synthetic --out benchmarks/results/synthetic.json

Each run is `python -m ise_fast.train --dataset NAME --method M --seed S`, with the preset's settings; further arguments
after `--` go to it. The record holds mAP and rank 1 of every epoch, epoch 0 being the untrained network.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks import machine

METHODS = ("cluster-contrast", "ise")


def train(dataset: str, method: str, seed: int, further: list[str]) -> list[dict[str, Any]]:
    """One run in a process of its own; its epochs.

    Raises:
        subprocess.CalledProcessError: if the run fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [sys.executable, "-m", "ise_fast.train", "--dataset", dataset, "--method", method]
        command += ["--seed", str(seed), "--logs-dir", str(run), "--no-progress", "--no-report", *further]
        subprocess.run(command, check=True)
        return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("dataset")
    parser.add_argument("--data-dir")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("further", nargs="*", help="arguments of ise_fast.train, after --")
    options = parser.parse_args()
    further = [*(["--data-dir", options.data_dir] if options.data_dir else []), *options.further]
    runs = []
    for seed in options.seeds:  # methods in turn, so that a cut-off run compares them from the same seeds
        for method in METHODS:
            runs.append({"method": method, "seed": seed, "epochs": train(options.dataset, method, seed, further)})
    record = {
        "dataset": options.dataset,
        "data_dir": options.data_dir is not None,
        "arguments": options.further,
        "machine": machine.describe(torch.device("cuda" if torch.cuda.is_available() else "cpu")),
        "runs": runs,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
