"""Processes that are forked from one that has imported everything, and computed nothing: torch takes seconds."""

from __future__ import annotations

import multiprocessing
import os
from typing import Any

import torch


def forking() -> Any:
    """The context of multiprocessing; its server starts with the first process."""
    context = multiprocessing.get_context("forkserver")
    # torch's optimisers import torch._dynamo when they are made
    context.set_forkserver_preload(["ise_fast.train", "torch._dynamo", "pytest"])
    return context


def begin_forked(threads: int, said: str) -> None:
    """What such a process does first: as many threads as the server need not have, and its words go to that file."""
    torch.set_num_threads(threads)
    for stream in (1, 2):
        os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
