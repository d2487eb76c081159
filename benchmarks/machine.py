"""What the numbers were taken on: hardware, versions, commit, and two ceilings measured at the start."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("torch", "numpy", "scipy", "scikit-learn", "faiss-cpu", "cupy-cuda13x", "cuml-cu13", "cuvs-cu13")


def describe(device: torch.device) -> dict[str, Any]:
    """Hardware, versions and commit as one JSON object."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "device": device.type,
        "hardware": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "python": platform.python_version(),
        "versions": versions,
        "commit": _git("rev-parse", "--short", "HEAD"),
        "uncommitted": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "date": time.strftime("%Y-%m-%d"),
    }


def ceilings(device: torch.device) -> dict[str, float]:
    """Measured once: bytes per second of a large copy (read + write), flops per second of a large product.

    float32 on a CPU; on a GPU also float16 with float32 accumulation ("tensor_flops").
    """
    large = device.type == "cuda"
    source = torch.rand(2**30 if large else 2**26, device=device)
    target = torch.empty_like(source)
    result = {"bytes_per_s": 2 * source.nbytes / _median_seconds(lambda: target.copy_(source), device)}
    n = 8192 if large else 2048
    a = torch.rand(n, n, device=device) - 0.5
    result["flops_per_s"] = 2 * n**3 / _median_seconds(lambda: a @ a, device)
    if large:
        h = a.half()
        result["tensor_flops_per_s"] = 2 * n**3 / _median_seconds(lambda: h @ h, device)
    return result


def _median_seconds(run: Any, device: torch.device, repeats: int = 7) -> float:
    seconds = []
    for i in range(repeats + 2):
        begin = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if i >= 2:
            seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds)


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def _git(*arguments: str) -> str:
    run = subprocess.run(["git", *arguments], capture_output=True, text=True, cwd=Path(__file__).parent, check=False)
    return run.stdout.strip()
