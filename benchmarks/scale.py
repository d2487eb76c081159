"""Pseudo labels on many processes: what they cost here, and what a model says of many GPUs.

python -m benchmarks.scale                      predicted: 1, 10 and 100 million rows on 1, 8 and 64 GPUs
python -m benchmarks.scale --measure 20000 256  1, 2 and 4 processes on this machine
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from benchmarks.data import clustered_features
from benchmarks.profile.model import GPUS
from ise_fast.sharded import HeldRows, Peers
from ise_fast.sharded.density import own_dbscan
from ise_fast.sharded.encoding import encode_own
from ise_fast.sharded.jaccard import own_jaccard
from ise_fast.sharded.neighbours import own_neighbours

T = TypeVar("T")

# Assumed unless a comment says otherwise; nothing of this was timed on GPUs by this project.
NVLINK = 370e9  # bytes/s from GPU to GPU of one machine
NETWORK = 45e9  # bytes/s of a GPU to another machine: 400 Gb/s
SCORE = 8  # bytes a pair: a float32 score is written and read once
ENTRIES = 100  # of a row of V', on hard data; clustered features have 40
LATER = 100e-6  # thread seconds a row of the stages on the CPU; --measure gives them for its data
THREADS = 16  # of the CPU for each GPU
K1, K2, EPS, MIN_SAMPLES = 30, 6, 0.6, 4
EXTRACTED = 5000  # images a second and GPU


@dataclass(frozen=True)
class Cost:
    """What one process of `gpus` takes for rows x width."""

    rows: int
    width: int
    gpus: int
    product: float
    select: float
    ring: float
    later: float
    memory: float
    sent: float

    @property
    def seconds(self) -> float:
        return self.product + self.select + self.ring + self.later


def predict(rows: int, width: int, gpus: int, gpu: str = "H100") -> Cost:
    """Seconds of each part, none overlapping another; bytes of memory and network, for each process."""
    card, own = GPUS[gpu], rows / gpus
    pairs, foreign = rows * own, rows - own
    turn = foreign * width * 4
    encoded = foreign * ENTRIES * 8
    lists = foreign * (4 * K1 + 2)
    link = NVLINK if gpus <= 8 else NETWORK
    sent = 2 * turn + encoded + lists
    blocks = 3 if gpus > 1 else 1
    memory = blocks * own * width * 4 + rows * (4 * K1 + 2) + own * (ENTRIES * 8 * 3 + 1400)
    return Cost(
        rows, width, gpus,
        product=2 * width * pairs / card.half_flops,
        select=SCORE * pairs / card.memory,
        ring=sent / link,
        later=LATER * own / THREADS,
        memory=memory,
        sent=sent,
    )  # fmt: skip


def sensible(width: int, gpu: str = "H100") -> int:
    """Rows up to which the exact search costs no more than extracting the features does."""
    card = GPUS[gpu]
    return int(1 / (EXTRACTED * (2 * width / card.half_flops + SCORE / card.memory)))


def table() -> str:
    """Markdown of the predictions."""
    lines = [
        "| rows x width | GPUs | product s | select s | network s | later s | total s | GB a process | GB sent |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for rows in (10**6, 10**7, 10**8):
        for width in (2048, 256):
            for gpus in (1, 8, 64):
                cost = predict(rows, width, gpus)
                times = (cost.product, cost.select, cost.ring, cost.later, cost.seconds)
                name = f"{rows // 10**6}M x {width:,}"
                numbers = " | ".join(f"{value:.3g}" for value in (*times, cost.memory / 1e9, cost.sent / 1e9))
                lines.append(f"| {name} | {gpus} | {numbers} |")
    limits = ", ".join(f"{sensible(width) / 1e6:.0f}M rows at {width:,}" for width in (2048, 256))
    lines += ["", f"The exact search costs as much as extracting the features at {limits}."]
    return "\n".join(lines)


def measure(rows: int, width: int) -> str:
    """Markdown of the stages on 1, 2 and 4 processes of one thread each."""
    lines = [
        "| processes | seconds (processor) neighbours | encoding | jaccard | dbscan | MB sent |",
        "|---|---|---|---|---|---|",
    ]
    for size in (1, 2, 4):
        with tempfile.TemporaryDirectory() as folder, multiprocessing.get_context("spawn").Pool(size) as pool:
            arguments = [(folder, rank, size, rows, width) for rank in range(size)]
            answers = pool.starmap(_process, arguments, chunksize=1)
        stages = [max(answer["seconds"][stage] for answer in answers) for stage in answers[0]["seconds"]]
        times = " | ".join(f"{seconds:.2f}" for seconds in stages)
        lines.append(f"| {size} | {times} | {max(answer['sent'] for answer in answers) / 1e6:.1f} |")
    return "\n".join(lines)


def _process(folder: str, rank: int, size: int, rows: int, width: int) -> dict[str, Any]:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=size)
    peers = Peers(dist.group.WORLD)
    x = clustered_features(rows, width, rows // 17)[rows * rank // size : rows * (rank + 1) // size].clone()
    seconds: dict[str, float] = {}

    def stage(name: str, function: Callable[[], T]) -> T:
        dist.barrier()
        start = time.process_time()
        result = function()
        seconds[name] = time.process_time() - start
        return result

    features = HeldRows("x", x, peers)
    own_dbscan_of_few(peers)
    near = stage("neighbours", lambda: own_neighbours(features, K1))
    v = stage("encoding", lambda: encode_own(features, near, K2))
    graph = stage("jaccard", lambda: own_jaccard(features, v, near, K2, EPS, 10**9))
    stage("dbscan", lambda: own_dbscan(graph, EPS, MIN_SAMPLES))
    dist.barrier()
    dist.destroy_process_group()
    return {"seconds": seconds, "sent": peers.sent}


def own_dbscan_of_few(peers: Peers) -> None:
    """Connections and libraries are there before anything is counted."""
    few = HeldRows("x", torch.eye(8), peers)
    near = own_neighbours(few, 3)
    v = encode_own(few, near, 2)
    own_dbscan(own_jaccard(few, v, near, 2, EPS, 10**6), EPS, 2)
    peers.sent = 0


def main() -> None:
    parser = argparse.ArgumentParser("python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--measure", nargs=2, type=int, metavar=("ROWS", "WIDTH"), help="run it on this machine")
    arguments = parser.parse_args()
    print(measure(*arguments.measure) if arguments.measure else table())


if __name__ == "__main__":
    main()
