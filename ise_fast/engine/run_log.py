"""What a run leaves behind: log, settings, environment, metrics, TensorBoard events and a figure, all in one folder."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ise_fast.data.files import is_utf8, publish
from ise_fast.engine.checkpoint import CheckpointFolder
from ise_fast.engine.config import TrainConfig, to_yaml
from ise_fast.engine.console import consoles

log = logging.getLogger(__name__)

Record = dict[str, Any]  # one epoch


class LogFile(logging.FileHandler):
    """train.log. A line that cannot be written is kept for the next attempt; the first one is reported, once."""

    failed = False

    def handleError(self, record: logging.LogRecord) -> None:
        if not self.failed:
            self.failed = True
            log.warning("%s cannot be written: %s", self.baseFilename, sys.exc_info()[1])

    def close(self) -> None:
        with contextlib.suppress(OSError):  # reported when it was logged
            super().close()


class RunLog:
    """The folder of a run. Only rank 0 may open it and write; a file that cannot be written raises `RunError`.

    Args:
        folder: of the run.
        checkpoints: of the run; errors name the newest.
    """

    def __init__(self, folder: Path, checkpoints: CheckpointFolder) -> None:
        self.folder = folder
        self.checkpoints = checkpoints
        self._files = contextlib.ExitStack()
        self._writer: Any = None

    def open(self, config: TrainConfig, history: Sequence[Record] = ()) -> None:
        """Create the folder and its files.

        Args:
            config: written as config.yaml, which `--config` reads back, unless the run has more epochs already.
            history: epochs of a resumed run; the metrics file then holds exactly these, whatever came after the
                checkpoint.
        """
        with self._writing("train.log"):
            self.folder.mkdir(parents=True, exist_ok=True)
            mode = "w" if config.run.resume is None else "a"
            handler = LogFile(self.folder / "train.log", mode, encoding="utf-8", errors="backslashreplace")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logging.getLogger("ise_fast").addHandler(handler)
        self._files.callback(handler.close)
        self._files.callback(logging.getLogger("ise_fast").removeHandler, handler)
        for console in consoles():
            console.say_gone()
        done = history[-1]["epoch"] if history else 0
        if config.optim.epochs >= done or not (self.folder / "config.yaml").exists():  # else nothing is trained
            self._write("config.yaml", to_yaml(config))
        self._write("environment.json", json.dumps(environment(), indent=2) + "\n")
        self._write("metrics.jsonl", "".join(json.dumps(record) + "\n" for record in history))
        with self._writing("tensorboard"):
            self._writer = self._tensorboard(len(history)) if config.run.tensorboard else None

    def _tensorboard(self, epoch: int) -> Any:
        if not is_utf8(str(self.folder)):
            log.warning("no event files: TensorBoard takes no folder whose name is not UTF-8, such as %s", self.folder)
            return None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            log.warning("TensorBoard is not installed: no event files (pip install tensorboard)")
            return None
        return SummaryWriter(str(self.folder / "tensorboard"), purge_step=epoch)

    def epoch(self, record: Record) -> None:
        """Append an epoch's figures."""
        with self._writing("metrics.jsonl"), (self.folder / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(record) + "\n")
        if self._writer is not None:
            with self._writing("tensorboard"):
                for name, value in _scalars(record):
                    self._writer.add_scalar(name, value, record["epoch"])
                self._writer.flush()

    def finish(self, summary: Mapping[str, Any], history: Sequence[Record]) -> None:
        """Write the summary as metrics.json and the figure of quality and clusters over the epochs."""
        self._write("metrics.json", json.dumps(summary, indent=2) + "\n")
        from ise_fast.engine.figure import draw_curves

        with self._writing("curves.png"):
            draw_curves(history, self.folder / "curves.png")

    def close(self) -> None:
        self._files.close()
        if self._writer is not None:
            with contextlib.suppress(OSError):  # reported when it was written
                self._writer.close()

    def _write(self, name: str, text: str) -> None:
        """Whole or not at all: a reader never sees half a file, and a full disk leaves the old one."""
        with self._writing(name), publish(self.folder / name) as temporary:
            temporary.write_text(text)

    @contextlib.contextmanager
    def _writing(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self.checkpoints.cannot_write(self.folder / name, error) from error


def _scalars(record: Mapping[str, Any]) -> list[tuple[str, float]]:
    pairs = []
    for name, value in record.items():
        if isinstance(value, Mapping):
            pairs += [(f"{name}/{inner}", x) for inner, x in _scalars(value)]
        elif isinstance(value, (int, float)) and name != "epoch":
            pairs.append((name, value))
    return pairs


def epoch_line(record: Mapping[str, Any], epochs: int, parts: Sequence[str] = (), figures: Sequence[str] = ()) -> str:
    """The line that users of this field read: is the number of clusters healthy, does mAP rise, where does time go.

    Args:
        record: of the epoch.
        epochs: of the run.
        parts: names of the parts of the loss in it.
        figures: names of the method's own figures in it.
    """
    words = [
        f"epoch {record['epoch']:>{len(str(epochs))}}/{epochs}",
        f"{record['clusters']} clusters of {record['smallest']}-{record['largest']}, {record['outliers']} outliers",
        f"loss {record['loss']:.3f}",
    ]
    if parts:
        words[-1] += " (" + ", ".join(f"{name.replace('_', ' ')} {record[name]:.3f}" for name in parts) + ")"
    words += [f"{name.replace('_', ' ')} {_short(record[name])}" for name in figures if name in record]
    if "quality" in record:
        found = record["quality"]
        agreement = " ".join(f"{name} {found[name]:.3f}" for name in ("ARI", "NMI", "purity", "precision", "recall"))
        words.append(f"{found['identities']} identities: {agreement}")
    if "mAP" in record:
        words.append(f"mAP {record['mAP']:.1%} rank-1 {record['rank1']:.1%}")
    words.append(", ".join(f"{stage} {seconds:.1f}s" for stage, seconds in record["seconds"].items()))
    return " | ".join(words)


def _short(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.3f}"


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
        "ise_fast": ise_fast.__version__,
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
