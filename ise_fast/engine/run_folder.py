"""Where a run lives: a new folder, or the one that `--resume` goes on with; finished work is never overwritten."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ise_fast.engine import checkpoint
from ise_fast.engine.checkpoint import CheckpointFolder
from ise_fast.engine.config import TrainConfig
from ise_fast.engine.errors import UsageError

LOGS = Path("logs")


def choose_folder(config: TrainConfig) -> tuple[Path, str | None]:
    """The folder of the run and what to resume: None (a new run), "auto" or a checkpoint's path. Nothing is created.

    Without `--logs-dir`, runs of a preset are numbered: logs/NAME, logs/NAME-2, ...; `--resume auto` takes the newest.

    Raises:
        UsageError: if `--logs-dir` holds a run and `--resume` is not given.
    """
    resume = config.run.resume
    if resume not in (None, "auto"):
        path = Path(resume)
        folder = Path(config.run.logs_dir) if config.run.logs_dir else path.resolve().parent.parent
        return folder, resume
    if config.run.logs_dir is not None:
        folder = Path(config.run.logs_dir)
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"--logs-dir: expected a folder, got the file {folder}")
        if resume is None and _used(folder):
            raise UsageError(f"--logs-dir: {folder} holds a run; go on with --resume auto, or choose another folder")
        return folder, resume
    name = config.preset if config.loss.method in config.preset else f"{config.preset}-{config.loss.method}"
    taken = 0
    while _used(_numbered(name, taken + 1)):
        taken += 1
    if resume == "auto" and taken:
        return _numbered(name, taken), resume
    return _numbered(name, taken + 1), resume


def _numbered(name: str, number: int) -> Path:
    return LOGS / (name if number == 1 else f"{name}-{number}")


def _used(folder: Path) -> bool:
    return bool(CheckpointFolder(folder / "checkpoints").all())  # a run that failed before left nothing to lose


def find_checkpoint(folder: Path, resume: str | None) -> tuple[Path, dict[str, Any]] | None:
    """The checkpoint to go on from; None to start anew (also with "auto" where there is none yet).

    Raises:
        UsageError: if the checkpoint named, or every one in the folder, cannot be read.
    """
    if resume is None:
        return None
    if resume != "auto":
        return Path(resume), checkpoint.load(Path(resume))
    return CheckpointFolder(folder / "checkpoints").load_newest()
