"""The model of time: constants of GPUs, and how counts become seconds.

A launch takes the largest of: bytes over the bandwidth of memory (each touched sector once) and of the L2 cache (what
the multiprocessor's own does not have), and, on the multiprocessors that its blocks can occupy, the clocks of each
pipe, of the load/store unit, of the passes over shared memory, and of waiting: the interpreter follows each warp's
chain of instructions that wait for each other (tests/ptx/timeline.h), a block takes as long as its slowest warp, and a
multiprocessor works on as many blocks at once as it has room for. Launches and read-backs add their latency, products
take their FLOPs over the rate of their type or their bytes over the bandwidth.

What it cannot see: what caches keep from one block to the next, how well the libraries' kernels fit a shape, clocks
that fall under load, ptxas (the counts are of PTX). It is right about what is moved and computed, and no clock: read
ratios and orders of magnitude, not percents.

Sources of the constants: V = the vendor's data sheet or programming guide (its table "Throughput of Native Arithmetic
Instructions"), quoted from memory; M = measured elsewhere and published, or by this project's authors on such a card;
A = assumed here. On an H100 this project has since measured 2.95 TB/s, 705 and 50.9 TFLOP/s; docs/performance.md says
what else the clock showed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.profile.counts import FREE, GLOBAL, SHARED, Counts, Kernel, product_flops


@dataclass(frozen=True)
class Gpu:
    """Rates are lanes (results) a clock and multiprocessor unless a unit says otherwise."""

    name: str
    multiprocessors: int  # V
    clock: float  # Hz under load: A, between base and boost clock (V)
    memory: float  # bytes/s that copies reach: M
    cache: float  # bytes/s of the L2 cache: M, A where nobody published it
    half_flops: float  # f16 in, f32 out, by the library: M
    single_flops: float  # f32 without TF32, by the library: M
    float32: float  # V
    float64: float  # V
    integer32: float  # V
    convert64: float  # between 64-bit types and others: V
    special: float  # V


GPUS: dict[str, Gpu] = {
    # V: 132 SMs, 1.98 GHz boost, 3.35 TB/s, 989 TFLOP/s dense f16, 67 f32
    "H100": Gpu("H100 SXM", 132, 1.755e9, 3.0e12, 5.5e12, 650e12, 50e12, 128, 64, 64, 16, 16),
    # V: as H100 with 4.8 TB/s; 788 TFLOP/s and 4.3 TB/s measured
    "H200": Gpu("H200 SXM", 132, 1.755e9, 4.3e12, 5.5e12, 788e12, 50e12, 128, 64, 64, 16, 16),
    # V: 108 SMs, 1.41 GHz boost, 2.04 TB/s (80 GB), 312 TFLOP/s dense f16, 19.5 f32
    "A100": Gpu("A100 SXM 80 GB", 108, 1.41e9, 1.75e12, 4.0e12, 250e12, 18e12, 64, 32, 64, 16, 16),
    # V: 128 SMs, 2.52 GHz boost, 1.01 TB/s, 165 TFLOP/s dense f16 with f32 sums, 82.6 f32; float64 1/64 of float32
    "RTX4090": Gpu("GeForce RTX 4090", 128, 2.5e9, 0.92e12, 5.0e12, 150e12, 60e12, 128, 2, 64, 2, 16),
}

ISSUE = 4  # V: instructions a clock and multiprocessor
START = 1.2e-6  # M: seconds that the smallest kernels take by the driver's profiler
LAUNCH = 1.5e-6  # M: of a kernel in a CUDA graph, its start included; one by one the host takes 5, which is not here
READ_BACK = 12e-6  # A: a copy to the host, and the wait for it
CUB_CALL = 8e-6  # A: launches of a scan or sort
CUB_BYTES = 2 * 8 * 2  # A: bytes an element and pass of 8 bits of a sort: key and value, read and written
SCAN_BYTES = 2 * 8  # A: bytes an element of a scan, read and written once
UNALIGNED = 7.0  # M: times as long, a float16 product with a row that begins at no multiple of 16 bytes (41.6, 5.9 ms)

# A: what one PTX instruction becomes: instructions that are issued, and of them those of the pipe of its type
EXPANSION = {"integer64": 2.0, "special": 8.0, "special64": 20.0, "divide": 16.0, "divide64": 70.0}


@dataclass(frozen=True)
class Resources:
    """What a kernel needs, added over its launches. Linear in the counts, so it can be added, scaled and fitted."""

    launches: float = 0
    blocks: float = 0
    memory_bytes: float = 0
    cache_bytes: float = 0
    requests: float = 0
    shared_waves: float = 0
    issued: float = 0
    float32: float = 0  # warp instructions of each pipe
    float64: float = 0
    integer32: float = 0
    convert64: float = 0
    special: float = 0
    longest_block: float = 0  # clocks that the slowest block waits, and all blocks over those at once
    occupied: float = 0

    def values(self) -> dict[str, float]:
        return dict(vars(self))


def resources(kernel: Kernel) -> Resources:
    """The counts of a kernel in the units of the model."""
    of = {kind: float(kernel.total("warps", (kind,))) for kind in {line.kind for line in kernel.lines}}
    issued = sum(n * EXPANSION.get(kind, 1.0) for kind, n in of.items() if kind not in FREE)
    get = lambda *kinds: sum(of.get(kind, 0.0) * EXPANSION.get(kind, 1.0) for kind in kinds)  # noqa: E731
    # The unit moves 128 bytes a clock: a request of scattered lanes takes it more than once.
    moved = sum(max(line.warps, line.sectors / 4) for line in kernel.lines if line.kind in GLOBAL)
    return Resources(
        launches=kernel.launches,
        blocks=kernel.blocks,
        memory_bytes=32.0 * kernel.touched,
        cache_bytes=32.0 * kernel.fetched,
        requests=moved + kernel.total("warps", SHARED),
        shared_waves=kernel.total("waves"),
        issued=issued,
        float32=get("float32", "special"),
        float64=get("float64", "special64"),
        integer32=get("integer32", "integer64", "predicate", "divide", "divide64"),
        convert64=get("convert64"),
        special=of.get("special", 0.0) + of.get("special64", 0.0) + of.get("convert", 0.0),
        longest_block=kernel.longest_block,
        occupied=kernel.occupied,
    )


def bounds(need: Resources, gpu: Gpu) -> dict[str, float]:
    """Seconds that each resource takes at least, over all launches of the kernel, without the launches' latency."""
    occupied = min(gpu.multiprocessors, max(need.blocks / max(need.launches, 1), 1))
    clocks = {
        "load/store": need.requests,
        "shared memory": need.shared_waves,
        "issue": need.issued / ISSUE,
        "float32": need.float32 * 32 / gpu.float32,
        "float64": need.float64 * 32 / gpu.float64,
        "integer": need.integer32 * 32 / gpu.integer32,
        "conversions": need.convert64 * 32 / gpu.convert64,
        "special": need.special * 32 / gpu.special,
        "latency": need.occupied,
    }
    seconds = {name: value / occupied / gpu.clock for name, value in clocks.items()}
    seconds["memory"] = need.memory_bytes / gpu.memory
    seconds["L2"] = need.cache_bytes / gpu.cache
    seconds["one block"] = need.longest_block / gpu.clock
    return seconds


def kernel_seconds(need: Resources, gpu: Gpu, launch: float = LAUNCH) -> tuple[float, str]:
    """Predicted seconds with what a launch takes, and what bounds the kernel."""
    name, seconds = max(bounds(need, gpu).items(), key=lambda item: item[1])
    latency = need.launches * launch
    return seconds + latency, name if seconds > latency else "launches"


def product_seconds(flops: float, moved: float, kind: str, gpu: Gpu, aligned: bool = True) -> float:
    """Seconds of matrix products of one type: `flops` in all, `moved` bytes of factors and results."""
    half = gpu.half_flops if aligned else gpu.half_flops / UNALIGNED
    return max(flops / (half if kind == "float16" else gpu.single_flops), moved / gpu.memory)


def unaligned(call: Mapping[str, int]) -> list[str]:
    """What of a product has rows that begin at no multiple of 16 bytes, for which libraries have slower kernels."""
    sizes = {"pitch of a": call["pitch_a"] * call["bytes"], "pitch of b": call["pitch_b"] * call["bytes"]}
    sizes |= {"pitch of the result": call["pitch_out"] * 4}
    return [name for name, size in sizes.items() if size % 16]


def product_bytes(call: Mapping[str, int]) -> int:
    """Bytes of both factors and the float32 result, each once."""
    once = call["bytes"] * call["k"] * (call["m"] + call["n"]) + 4 * call["m"] * call["n"]
    return once * call.get("count", 1)


def cub_bytes(call: Mapping[str, Any]) -> float:
    """Bytes that a scan or a sort moves. Bits count by themselves, not in whole passes: keys of 18 bits instead of 16
    are one pass more, which at sizes that were not run would be taken for growth with the square."""
    return float(call["n"] * (SCAN_BYTES if call["name"] == "exclusive_sum" else CUB_BYTES * call["bits"] / 8))


def other_seconds(counts: Counts, gpu: Gpu) -> dict[str, float]:
    """Seconds of what is neither kernel nor product."""
    cub = counts.calls("cub")
    filled = sum(call["bytes"] for call in counts.calls("fill"))
    return {
        "read-backs": READ_BACK * len(counts.calls("read_back")),
        "CUB": CUB_CALL * len(cub) + sum(map(cub_bytes, cub)) / gpu.memory,
        "fills": LAUNCH * len(counts.calls("fill")) + filled / gpu.memory,
        "products": sum(
            LAUNCH + product_seconds(product_flops(call), product_bytes(call), call["name"], gpu, not unaligned(call))
            for call in counts.calls("product")
        ),
    }


def floor_seconds(flops: float, moved: float, gpu: Gpu) -> float:
    """The least time: the products that the problem needs on tensor cores, or its bytes once through memory."""
    return max(flops / gpu.half_flops, moved / gpu.memory)
