"""Pseudo labels on many processes: what they cost here, and what a model says of many GPUs.

python -m benchmarks.scale                      predicted: 1, 10 and 100 million rows on 1, 8 and 64 GPUs (needs nvcc)
python -m benchmarks.scale --measure 20000 256  1, 2 and 4 processes on this machine
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from benchmarks.data import clustered_features
from benchmarks.profile.model import GPUS, Gpu
from benchmarks.profile.predict import Measured, measure_all
from benchmarks.profile.predict import predict as predict_operator
from benchmarks.profile.workloads import WORKLOADS
from benchmarks.profile.workloads.shards import SET
from ise_fast.sharded import HeldRows, Peers
from ise_fast.sharded.density import own_dbscan
from ise_fast.sharded.encoding import encode_own
from ise_fast.sharded.jaccard import own_jaccard
from ise_fast.sharded.neighbours import own_neighbours

T = TypeVar("T")

# Assumed; nothing of this was timed on GPUs by this project. What kernels do is counted (benchmarks/profile).
NVLINK = 370e9  # bytes/s from GPU to GPU of one machine
NETWORK = 45e9  # bytes/s of a GPU to another machine: 400 Gb/s
ENTRIES = 100  # of a row of V', on hard data, for what is held and sent; the counts are of rows with 42
ROUNDS = 3  # of minima over the processes, the most that was seen
K1, K2, EPS, MIN_SAMPLES = 30, 6, 0.6, 4
EXTRACTED = 5000  # images a second and GPU
#: whose counts the model takes; a process has the even rows of N, or Q rows among N
COUNTED = (
    "knn", "pattern_products", "reciprocal_bits", "expanded_sets", "softmax_rows", "average_rows", "jaccard_pairs",
    "unite_",
)  # fmt: skip


@dataclass(frozen=True)
class Cost:
    """What one process of `gpus` takes for rows x width."""

    rows: int
    width: int
    gpus: int
    search: float
    encoding: float
    jaccard: float
    dbscan: float
    network: float
    memory: float
    sent: float

    @property
    def seconds(self) -> float:
        return self.search + self.encoding + self.jaccard + self.dbscan + self.network


def predict(rows: int, width: int, gpus: int, counted: Mapping[str, Measured], card: Gpu = GPUS["H100"]) -> Cost:
    """Seconds of each part, none overlapping another; bytes of memory and network, for each process.

    Operators of torch between ours (sorts of pairs, gathers) are left out.

    Args:
        rows: of all processes together.
        width: columns.
        gpus: processes, one each.
        counted: `measure_all` of the operators in COUNTED.
        card: the GPU.
    """
    own = rows / gpus

    def seconds(name: str, **shape: float) -> float:
        whole = {dimension: max(1, round(size)) for dimension, size in shape.items()}
        return predict_operator(counted[name], whole, card).seconds

    # Workloads of two processes: each row finds half of its entries in the block at hand.
    half = seconds("pattern_products", N=2 * own, d=width)
    again = half * K1 / (SET / 2)  # float64 distances of the nearest in a block
    nothing = 8 * K1 * rows / card.memory  # neighbours of all are checked twice
    sets = sum(seconds(name, N=2 * own) for name in ("reciprocal_bits", "expanded_sets", "softmax_rows"))
    foreign = rows - own
    turn, lists = foreign * width * 4, foreign * (4 * K1 + 2)
    sent = 2 * turn + foreign * ENTRIES * 8 + lists + (ROUNDS * 4 * rows if gpus > 1 else 0)
    blocks = 3 if gpus > 1 else 1
    return Cost(
        rows, width, gpus,
        search=gpus * (seconds("knn", Q=own, N=own, d=width) + again),
        encoding=2 * half + nothing + sets + seconds("average_rows", N=2 * own),
        jaccard=gpus * seconds("jaccard_pairs", N=2 * own),
        dbscan=(ROUNDS if gpus > 1 else 1) * seconds("unite_", N=rows),
        network=sent / (NVLINK if gpus <= 8 else NETWORK),
        memory=blocks * own * width * 4 + rows * (4 * K1 + 2) + own * (ENTRIES * 8 * 3 + 1400),
        sent=sent,
    )  # fmt: skip


def sensible(width: int, counted: Mapping[str, Measured], card: Gpu = GPUS["H100"]) -> int:
    """Rows up to which the exact search costs no more than extracting the features does."""
    rows = 10**7  # so many that all but pairs of rows is little
    search = predict_operator(counted["knn"], {"Q": rows, "N": rows, "d": width}, card).seconds
    return int(rows**2 / (EXTRACTED * search))


def table(counted: Mapping[str, Measured]) -> str:
    """Markdown of the predictions."""
    lines = [
        "| rows x width | GPUs | search s | encoding s | jaccard s | dbscan s | network s | total s | GB a process "
        "| GB sent |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for rows in (10**6, 10**7, 10**8):
        for width in (2048, 256):
            for gpus in (1, 8, 64):
                cost = predict(rows, width, gpus, counted)
                times = (cost.search, cost.encoding, cost.jaccard, cost.dbscan, cost.network, cost.seconds)
                name = f"{rows // 10**6}M x {width:,}"
                numbers = " | ".join(f"{value:.3g}" for value in (*times, cost.memory / 1e9, cost.sent / 1e9))
                lines.append(f"| {name} | {gpus} | {numbers} |")
    limits = ", ".join(f"{sensible(width, counted) / 1e6:.0f}M rows at {width:,}" for width in (2048, 256))
    lines += ["", f"The exact search costs as much as extracting the features at {limits}."]
    return "\n".join(lines)


def count() -> dict[str, Measured]:
    """The counts that the model takes."""
    return {found.operator: found for found in measure_all({name: WORKLOADS[name].small for name in COUNTED})}


def measure(rows: int, width: int) -> str:
    """Markdown of the stages on 1, 2 and 4 processes of one thread each."""
    lines = [
        "| processes | seconds (processor) neighbours | encoding | jaccard | dbscan | MB sent | MB at most |",
        "|---|---|---|---|---|---|---|",
    ]
    # Every large buffer is the system's: what malloc keeps of the drawing of the rows would hide some of what follows.
    os.environ["MALLOC_MMAP_THRESHOLD_"] = str(128 << 10)
    for size in (1, 2, 4):
        with tempfile.TemporaryDirectory() as folder, multiprocessing.get_context("spawn").Pool(size) as pool:
            arguments = [(folder, rank, size, rows, width) for rank in range(size)]
            answers = pool.starmap(_process, arguments, chunksize=1)
        stages = [max(answer["seconds"][stage] for answer in answers) for stage in answers[0]["seconds"]]
        times = " | ".join(f"{seconds:.2f}" for seconds in stages)
        sent, most = (max(answer[name] for answer in answers) / 1e6 for name in ("sent", "most"))
        lines.append(f"| {size} | {times} | {sent:.1f} | {most:.1f} |")
    return "\n".join(lines)


def _memory(line: str) -> int:
    """Bytes of this process: VmRSS now, VmHWM at most since `_forget_peak`."""
    found = re.search(rf"^{line}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found, f"the system does not tell {line}"
    return int(found[1]) << 10


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


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
    _forget_peak()
    before = _memory("VmRSS") - x.nbytes  # libraries; the rows themselves count
    near = stage("neighbours", lambda: own_neighbours(features, K1))
    v = stage("encoding", lambda: encode_own(features, near, K2))
    graph = stage("jaccard", lambda: own_jaccard(features, v, near, K2, EPS, 10**9))
    stage("dbscan", lambda: own_dbscan(graph, EPS, MIN_SAMPLES))
    dist.barrier()
    dist.destroy_process_group()
    return {"seconds": seconds, "sent": peers.sent, "most": _memory("VmHWM") - before}


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
    print(measure(*arguments.measure) if arguments.measure else table(count()))


if __name__ == "__main__":
    main()
