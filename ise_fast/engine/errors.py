"""Faults that a run reports in one line instead of a traceback; the command lines turn them into an exit status."""

from __future__ import annotations


class UsageError(ValueError):
    """Something the user asked for cannot be done: exit status 2, before anything is written."""

    exit_status = 2


class RunError(RuntimeError):
    """A run that started cannot go on: exit status 1; the last checkpoint stays usable."""

    exit_status = 1


class ClusteringError(RunError):
    """Too few clusters to fill a batch, and no earlier pseudo labels to go on with."""


class NonFiniteError(RunError):
    """NaN or infinity in a tensor of the training step."""


class Interrupted(Exception):
    """SIGTERM or Ctrl-C: the iteration was finished and saved."""

    def __init__(self, signum: int, message: str) -> None:
        super().__init__(message)
        self.exit_status = 128 + signum
