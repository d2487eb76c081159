"""One of several processes over gloo, on one of which things go wrong: `python faulty_worker.py FOLDER RANK SIZE`."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2]))

from ise_fast import ops
from ise_fast.cluster import DBSCAN, JaccardDBSCAN, KMeans
from ise_fast.sharded import PeerError
from tests.sharded.shapes import clustered, with_hubs

FAULTY = 1


def fails_at(call: int, fault: Callable[[], None]) -> Callable[..., Any]:
    """`ops.knn` with a fault at one call: between two blocks of the ring."""
    calls = 0

    def knn(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            fault()
        return original(*args, **kwargs)

    original = ops.knn
    return knn


def no_memory() -> None:
    raise MemoryError("out of memory: asked for 9 GiB")


def say(name: str, function: Callable[[], Any]) -> None:
    try:
        function()
    except (PeerError, ValueError, TypeError, MemoryError) as error:
        print(f"{name}|{type(error).__name__}|{error}", flush=True)
    else:
        print(f"{name}|none|", flush=True)


def main() -> None:
    folder, rank, size = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=size)
    world = dist.group.WORLD
    x = clustered(60, 8, 0)[20 * rank : 20 * rank + 20]
    bad: Tensor = x.clone()
    bad[3, 3] = torch.nan if rank == FAULTY else 0.5
    mine = rank == FAULTY

    say("NaN", lambda: JaccardDBSCAN().fit(bad, group=world))
    say("columns", lambda: DBSCAN().fit(x[:, :5] if mine else x, group=world))
    say("precision", lambda: DBSCAN().fit(x.double() if mine else x, group=world))
    say("settings", lambda: JaccardDBSCAN(eps=0.5 if mine else 0.6).fit(x, group=world))
    say("range", lambda: JaccardDBSCAN(k1=0 if mine else 30).fit(x, group=world))
    say("clusters", lambda: KMeans(9 if mine else 8).fit(x, group=world))
    say("too many clusters", lambda: KMeans(61).fit(x, group=world))
    say("start", lambda: KMeans(3, init=x[: 2 if mine else 3]).fit(x, group=world))
    hubs = with_hubs(60, 8, 0)[20 * rank : 20 * rank + 20]
    say("pairs", lambda: JaccardDBSCAN(eps=0.9, max_pairs=100).fit(hubs, group=world))
    healthy = ops.knn
    if mine:
        ops.knn = fails_at(2, no_memory)
    say("memory", lambda: JaccardDBSCAN().fit(x, group=world))
    ops.knn = healthy
    say("healthy again", lambda: JaccardDBSCAN().fit(x, group=world))
    if mine:
        ops.knn = fails_at(2, lambda: os.kill(os.getpid(), signal.SIGKILL))
    say("killed", lambda: JaccardDBSCAN().fit(x, group=world))
    os._exit(0)  # without a word to those who are gone


if __name__ == "__main__":
    main()
