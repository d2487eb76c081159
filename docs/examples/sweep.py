"""Train with several radii and tabulate the last epoch."""

import json
import sys
import tempfile
from pathlib import Path

from ise_fast.train import main

SHORT = ["--preset", "synthetic", "--epochs", "1", "--iters", "2", "--no-report", "--no-tensorboard", "--no-progress"]
FLAGS = sys.argv[1:] or SHORT

with tempfile.TemporaryDirectory() as folder:
    rows = []
    for eps in (0.4, 0.5, 0.6):
        run = f"{folder}/eps-{eps}"
        if main([*FLAGS, "--eps", str(eps), "--logs-dir", run, "--data-dir", f"{folder}/data"]) == 0:
            last = json.loads(Path(run, "metrics.json").read_text())["last"]
            rows.append(f"{eps:4} {last['clusters']:9d} {last['mAP']:7.1%}")
print(" eps  clusters     mAP", *rows, sep="\n")
