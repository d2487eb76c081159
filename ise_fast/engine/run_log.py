"""What a run leaves behind: log, settings, environment, metrics, TensorBoard events and a figure, all in one folder."""

from __future__ import annotations

import json
import logging
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ise_fast.engine.config import TrainConfig, write_yaml

log = logging.getLogger(__name__)

Record = dict[str, Any]  # one epoch


class ConsoleHandler(logging.Handler):
    """Log lines on standard error that do not tear progress bars apart."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        tqdm.write(self.format(record), file=sys.stderr)


def start_console(*, quiet: bool = False) -> None:
    """Send the package's log to the console; `quiet` keeps it silent (every rank but the first)."""
    root = logging.getLogger("ise_fast")
    root.setLevel(logging.INFO)
    root.propagate = False
    for old in [h for h in root.handlers if isinstance(h, ConsoleHandler)]:
        root.removeHandler(old)
    handler = ConsoleHandler(logging.CRITICAL if quiet else logging.INFO)
    handler.setFormatter(logging.Formatter("%(message)s"))
    root.addHandler(handler)


class RunLog:
    """The folder of a run, written by rank 0 only.

    Args:
        folder: created if missing.
        config: written as config.yaml, which `--config` reads back.
        history: epochs of a resumed run; the metrics file then holds exactly these, whatever came after the checkpoint.
    """

    def __init__(self, folder: Path, config: TrainConfig, history: Sequence[Record] = ()) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._handler = logging.FileHandler(folder / "train.log", mode="a" if history else "w")
        self._handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logging.getLogger("ise_fast").addHandler(self._handler)
        write_yaml(config, folder / "config.yaml")
        (folder / "environment.json").write_text(json.dumps(environment(), indent=2) + "\n")
        self._write("metrics.jsonl", "".join(json.dumps(record) + "\n" for record in history))
        self._metrics = (folder / "metrics.jsonl").open("a")
        self._writer = self._tensorboard(len(history)) if config.run.tensorboard else None

    def _tensorboard(self, epoch: int) -> Any:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            log.warning("TensorBoard is not installed: no event files (pip install tensorboard)")
            return None
        return SummaryWriter(str(self.folder / "tensorboard"), purge_step=epoch)

    def epoch(self, record: Record) -> None:
        """Append an epoch's figures."""
        self._metrics.write(json.dumps(record) + "\n")
        self._metrics.flush()
        if self._writer is not None:
            for name, value in _scalars(record):
                self._writer.add_scalar(name, value, record["epoch"])
            self._writer.flush()

    def finish(self, summary: Mapping[str, Any], history: Sequence[Record]) -> None:
        """Write the summary as metrics.json and the figure of quality and clusters over the epochs."""
        self._write("metrics.json", json.dumps(summary, indent=2) + "\n")
        from ise_fast.engine.figure import draw_curves

        draw_curves(history, self.folder / "curves.png")

    def close(self) -> None:
        logging.getLogger("ise_fast").removeHandler(self._handler)
        self._handler.close()
        self._metrics.close()
        if self._writer is not None:
            self._writer.close()

    def _write(self, name: str, text: str) -> None:
        """Whole or not at all: a reader never sees half a file."""
        temporary = self.folder / f".{name}.tmp"
        with temporary.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self.folder / name)


def _scalars(record: Mapping[str, Any]) -> list[tuple[str, float]]:
    pairs = []
    for name, value in record.items():
        if isinstance(value, Mapping):
            pairs += [(f"{name}/{inner}", x) for inner, x in _scalars(value)]
        elif isinstance(value, (int, float)) and name != "epoch":
            pairs.append((name, value))
    return pairs


def epoch_line(record: Mapping[str, Any], epochs: int) -> str:
    """The line that users of this field read: is the number of clusters healthy, does mAP rise, where does time go."""
    parts = [
        f"epoch {record['epoch']:>{len(str(epochs))}}/{epochs}",
        f"{record['clusters']} clusters of {record['smallest']}-{record['largest']}, {record['outliers']} outliers",
        f"loss {record['loss']:.3f}",
    ]
    if "label_preserving" in record:
        parts[-1] += f" (contrastive {record['contrastive']:.3f}, label preserving {record['label_preserving']:.3f})"
        parts.append(f"degree {record['degree']:.3f}")
    if "mAP" in record:
        parts.append(f"mAP {record['mAP']:.1%} rank-1 {record['rank1']:.1%}")
    parts.append(", ".join(f"{stage} {seconds:.1f}s" for stage, seconds in record["seconds"].items()))
    return " | ".join(parts)


def environment() -> dict[str, Any]:
    """Versions, hardware, git commit and command line: what a reader needs to judge or repeat the figures."""
    import numpy

    import ise_fast

    values: dict[str, Any] = {
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "ise_fast": getattr(ise_fast, "__version__", "0"),
        "git_commit": _git_commit(Path(ise_fast.__file__).parent),
        "cpu": {
            "count": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "capability": torch.backends.cpu.get_cpu_capability(),
        },
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
    }
    if torch.cuda.is_available():
        values["cuda"] = torch.version.cuda
        values["gpus"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return values


def _git_commit(folder: Path) -> str | None:
    try:
        answer = subprocess.run(
            ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None  # installed from a wheel, or no git
    return answer.stdout.strip()
