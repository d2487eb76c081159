"""Train with several radii and tabulate the last epoch."""

import sys
import tempfile

from ise_fast.train import run

SHORT = ["--preset", "synthetic", "--height", "32", "--width", "16", "--epochs", "1", "--iters", "2", "--no-report"]
FLAGS = sys.argv[1:] or SHORT

with tempfile.TemporaryDirectory() as folder:
    rows = []
    for eps in (0.4, 0.5, 0.6):
        where = ["--logs-dir", f"{folder}/eps-{eps}", "--data-dir", f"{folder}/data"]
        last = run([*FLAGS, "--eps", str(eps), *where]).summary["last"]
        rows.append(f"{eps:4} {last['clusters']:9d} {last['mAP']:7.1%}")
print(" eps  clusters     mAP", *rows, sep="\n")
