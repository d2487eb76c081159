"""The tables that a person reads: kernels by predicted share, lines by what they waste, and predicted times."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.profile.counts import FREE, GLOBAL, SHARED, Counts, Kernel, Line, Shape
from benchmarks.profile.model import GPUS, Gpu, kernel_seconds, other_seconds, resources, unaligned
from benchmarks.profile.predict import Measured, Prediction, predict
from benchmarks.profile.workloads import TOGETHER, WORKLOADS

CANNOT_SEE = (
    "Counted, not timed: registers, what caches keep between blocks and the libraries' own kernels are not seen. "
    "Ratios and orders of magnitude, no clock."
)


def shape_text(shape: Shape) -> str:
    return " x ".join(f"{name}={size:,}" for name, size in shape.items())


def time_text(seconds: float) -> str:
    for unit, factor in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        if seconds * factor >= 1 or unit == "us":
            return f"{seconds * factor:.3g} {unit}"
    raise AssertionError


def profile(measured: Measured, gpu: Gpu, lines: int = 5) -> str:
    """Everything about one operator: as counted at the largest shape, and as predicted at the published ones."""
    shape, counts = max(
        zip(measured.shapes, measured.runs, strict=True),
        key=lambda run: sum(k.instructions for k in run[1].kernels.values()),
    )
    parts = [
        f"{measured.operator} at {shape_text(shape)}, counted",
        _calls(counts),
        _kernels(counts, gpu),
        *(_lines(kernel, lines) for kernel in _by_time(counts, gpu)[:4]),
        *(_predicted(predict(measured, target, gpu), gpu) for target in WORKLOADS[measured.operator].published),
        CANNOT_SEE,
    ]
    return "\n\n".join(parts)


def _calls(counts: Counts) -> str:
    products = Counter(
        f"{call['m']} x {call['n']} x {call['k']} {call['name']}, "
        f"pitches {call['pitch_a']}, {call['pitch_b']}, {call['pitch_out']}{_misaligned(call)}"
        for call in counts.calls("product")
    )
    summary = (
        f"  {len(counts.calls('launch'))} launches, {len(counts.calls('product'))} products "
        f"({counts.flops / 1e9:.3g} GFLOP), {len(counts.calls('cub'))} CUB calls, {len(counts.calls('fill'))} fills, "
        f"{len(counts.calls('read_back'))} read-backs, {counts.allocations} allocations, "
        f"{counts.peak_bytes / 2**20:.3g} MiB at most"
    )
    return "\n".join([summary, *(f"  {times} x product {text}" for text, times in products.items())])


def _misaligned(call: dict[str, int]) -> str:
    bad = unaligned(call)
    return f"  ({', '.join(bad)}: no multiple of 16 bytes)" if bad else ""


def _by_time(counts: Counts, gpu: Gpu) -> list[Kernel]:
    return sorted(counts.kernels.values(), key=lambda k: -kernel_seconds(resources(k), gpu)[0])


def _kernels(counts: Counts, gpu: Gpu) -> str:
    total = sum(kernel_seconds(resources(k), gpu)[0] for k in counts.kernels.values())
    total += sum(other_seconds(counts, gpu).values())
    rows = ["  share  time      bound by       launches  warp instr  lanes  sectors/request  used  ways  kernel"]
    for kernel in _by_time(counts, gpu):
        seconds, bound = kernel_seconds(resources(kernel), gpu)
        requests, sectors = kernel.total("warps", GLOBAL), kernel.total("sectors")
        shared = kernel.total("warps", SHARED)
        rows.append(
            f"  {seconds / total:5.0%}  {time_text(seconds):8}  {bound:13}  {kernel.launches:8}  "
            f"{kernel.instructions:10,}  {kernel.total('lanes') / max(kernel.total('warps'), 1):5.1f}  "
            f"{sectors / max(requests, 1):15.2f}  {kernel.total('used') / max(32 * sectors, 1):4.0%}  "
            f"{kernel.total('waves') / max(shared, 1):4.1f}  {kernel.name}"
        )
    for name, seconds in other_seconds(counts, gpu).items():
        rows.append(f"  {seconds / total:5.0%}  {time_text(seconds):8}  {name}")
    return "\n".join(rows)


def wasted(line: Line) -> float:
    """What a line costs more than it must: sectors moved for nothing, passes over banks beyond the ideal."""
    ideal = line.warps * max(1, line.bytes // 4)
    return max(line.sectors - line.used / 32, 0) + max(line.waves - ideal, 0) + line.meetings


def _lines(kernel: Kernel, number: int) -> str:
    rows = [f"  {kernel.name}: lines"]
    costly = sorted((line for line in kernel.lines if line.kind not in FREE), key=lambda line: -line.warps)[:number]
    wasteful = [line for line in sorted(kernel.lines, key=lambda line: -wasted(line))[:number] if wasted(line) > 0]
    for title, chosen in (("most instructions", costly), ("most waste", wasteful)):
        rows += [f"    {title}:", *(f"      {line_text(line)}" for line in chosen)]
    return "\n".join(rows)


def line_text(line: Line) -> str:
    text = f"{line.line:34} {line.kind:13} {line.warps:>11,} warp instr, {line.lanes / max(line.warps, 1):4.1f} lanes"
    if line.sectors:
        text += f", {line.sectors / line.warps:.2f} sectors a request, {line.used / (32 * line.sectors):.0%} used"
    if line.waves:
        text += f", {line.waves / line.warps:.2f} ways ({max(1, line.bytes // 4)} is ideal)"
    if line.divided:
        text += f", {line.divided / line.warps:.0%} divided"
    if line.meetings:
        text += f", {line.meetings / line.warps:.1f} meet at one word"
    return text


def _predicted(prediction: Prediction, gpu: Gpu) -> str:
    total = prediction.seconds
    flops = f"{prediction.flops / prediction.floor_flops:.2f}" if prediction.floor_flops else "-"
    rows = [
        f"{shape_text(prediction.shape)}, predicted for {gpu.name}: {time_text(total)}, "
        f"floor {time_text(prediction.floor)}, ratio {total / prediction.floor:.1f}",
        f"  {prediction.launches:.0f} launches; FLOPs over the floor's {flops}; bytes of the kernels over the floor's "
        f"{prediction.moved / prediction.floor_bytes:.2f}",
    ]
    parts = [(seconds, f"{name} ({bound})") for name, (seconds, bound, _) in prediction.kernels.items()]
    parts += [(seconds, name) for name, seconds in prediction.others.items()]
    rows += [f"  {s / total:5.0%}  {time_text(s):8}  {name}" for s, name in sorted(parts, reverse=True)[:8] if s > 0]
    return "\n".join(rows)


#: the cards of the table of docs/performance.md: the one that times are predicted for, and one whose float64 is slow
TABLE = GPUS["H100"], GPUS["RTX4090"]


def markdown(all_measured: Sequence[Measured]) -> str:
    """Predicted times of every operator beside the floor, and how much slower a consumer card is."""
    rows = [
        "| operator | size | predicted | floor | ratio | launches | read-backs | most of it | RTX 4090 | over H100 |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for measured in all_measured:
        for target in WORKLOADS[measured.operator].published:
            rows.append(_row(f"`{measured.operator}`", target, [[predict(measured, target, gpu)] for gpu in TABLE]))
    of = {measured.operator: measured for measured in all_measured}
    for name, parts in TOGETHER.items():
        if not set(parts) <= set(of):
            continue
        for targets in zip(*(WORKLOADS[part].published for part in parts), strict=True):
            chain = [
                [predict(of[part], target, gpu) for part, target in zip(parts, targets, strict=True)] for gpu in TABLE
            ]
            rows.append(_row(name, {"N": targets[0]["N"], "d": targets[0]["d"]}, chain))
    return "\n".join(rows)


def _row(name: str, shape: Shape, on: Sequence[Sequence[Prediction]]) -> str:
    """A row of the table: predictions of the parts of a work, on the cards of `TABLE`."""
    first = on[0]
    seconds, other = (sum(part.seconds for part in parts) for parts in on)
    floor = sum(part.floor for part in first)
    shares = [(s, f"`{kernel}`") for part in first for kernel, (s, _, _) in part.kernels.items()]
    for other_name in first[0].others:
        shares.append((sum(part.others[other_name] for part in first), other_name))
    most = ", ".join(f"{text} {s / seconds:.0%}" for s, text in sorted(shares, reverse=True)[:3])
    return (
        f"| {name} | {shape_text(shape)} | {time_text(seconds)} | {time_text(floor)} | {seconds / floor:.1f} | "
        f"{sum(part.launches for part in first):.0f} | {sum(part.read_backs for part in first):.0f} | {most} | "
        f"{time_text(other)} | {other / seconds:.1f} |"
    )


def clock_table(record: Mapping[str, Any], measured: Mapping[str, Measured], gpu: Gpu) -> str:
    """What clock.py recorded beside the prediction: by events, by the sum of the kernels, and from a CUDA graph."""
    rows = [
        "| operator | size | clock | kernels | in a graph | predicted | kernels over it | floor | clock over it |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in record["rows"]:
        if "seconds" not in row or row["operator"] not in measured:
            continue
        prediction = predict(measured[row["operator"]], row["shape"], gpu)
        clock, kernels = statistics.median(row["seconds"]), sum(seconds for _, seconds in row["kernels"].values())
        graph = row.get("graph_seconds")
        rows.append(
            f"| `{row['operator']}` | {shape_text(row['shape'])} | {time_text(clock)} | {time_text(kernels)} | "
            f"{time_text(graph) if graph else '-'} | {time_text(prediction.seconds)} | "
            f"{kernels / prediction.seconds:.2f} | {time_text(prediction.floor)} | {clock / prediction.floor:.1f} |"
        )
    return "\n".join(rows)
