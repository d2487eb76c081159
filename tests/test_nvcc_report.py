"""What nvcc said while it built this checkout's kernels: no warning, and no spill or stack frame in the hot ones."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

# Kernels of the inner loops, one name for all instances of a template. A spill here costs more than most tuning gains.
HOT = [
    "nearest_of_rows",
    "softmax_sums",
    "fill_weights",
    "choose_supports",
    "add_through_supports",
    "refresh_rows",
    "project",
    "update_clusters",
    "evaluate_entries",
    "evaluate_pattern",
    "hash_rows",
    "dense_rows",
    "join_cores",
    "select_candidates",
    "settle",
    "settle_bounds",
    "round_prefix",
    "compare_with_all",
    "mark_pairs",
    "compare_pairs",
    "place_half",
    "furthest_rows",
    "shared_rows",
    "mix_distances",
    "slice_rows",
]

#: registers of a thread: with 64, four blocks of 256 threads fit on a multiprocessor. More only with a reason.
MOST_REGISTERS = 64
MORE_REGISTERS = {
    "mix_distances": 80,  # float64 products of four pairs and what is known of two rows; three blocks
    "refresh_rows": 124,  # 48 sums and 40 numbers on their way; two blocks, and one is wanted
    "nearest_of_rows": 72,  # what a thread offers beside the row's terms; three blocks
    "update_clusters": 74,  # 32 numbers on their way; a block a label, and few labels
}

BUILD = Path(__file__).parents[1] / "build" / str(sys.implementation.cache_tag) / "CMakeFiles" / "ise_fast_cuda.dir"
LOGS = sorted(BUILD.rglob("*.o.log"))
ENTRY = re.compile(r"Compiling entry function '(\w+)' for '(\w+)'")
MEMORY = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")

pytestmark = pytest.mark.skipif(not BUILD.is_dir(), reason="the CUDA operators were not built in this checkout")


def registers(report: str) -> list[tuple[str, str, int]]:
    """(mangled name, GPU target, registers) of every kernel that ptxas reports."""
    parts = report.split("ptxas info    : Compiling entry")[1:]
    found = [(ENTRY.match("Compiling entry" + part), re.search(r"Used (\d+) registers", part)) for part in parts]
    return [(entry[1], entry[2], int(used[1])) for entry, used in found if entry and used]


def kernels(report: str) -> list[tuple[str, str, tuple[int, ...]]]:
    """(mangled name, GPU target, (stack frame, spill stores, spill loads)) of every kernel that ptxas reports."""
    found = []
    for part in report.split("ptxas info    : Compiling entry")[1:]:
        entry = ENTRY.match("Compiling entry" + part)
        memory = MEMORY.search(part)
        assert entry, part
        assert memory, part
        found.append((entry[1], entry[2], tuple(int(number) for number in memory.groups())))
    return found


def test_every_source_has_a_report() -> None:
    assert {log.name for log in LOGS} == {path.name + ".log" for path in BUILD.rglob("*.o")}


@pytest.mark.parametrize("log", LOGS, ids=lambda log: log.name)
def test_no_warning(log: Path) -> None:
    warnings = [line for line in log.read_text().splitlines() if "warning" in line]
    assert warnings == []


@pytest.mark.parametrize("name", HOT)
def test_hot_kernel_stays_in_registers(name: str) -> None:
    # A mangled name spells each identifier after its length.
    reports = [entry for log in LOGS for entry in kernels(log.read_text()) if f"{len(name)}{name}" in entry[0]]
    assert reports, f"nvcc reported no kernel called {name}"
    assert [entry for entry in reports if any(entry[2])] == []


@pytest.mark.parametrize("name", HOT)
def test_hot_kernel_leaves_room_for_other_blocks(name: str) -> None:
    found = [entry for log in LOGS for entry in registers(log.read_text()) if f"{len(name)}{name}" in entry[0]]
    assert found, f"nvcc reported no kernel called {name}"
    assert [entry for entry in found if entry[2] > MORE_REGISTERS.get(name, MOST_REGISTERS)] == []


def test_the_parser_sees_a_spill() -> None:
    report = """ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_Z4hot1Pf' for 'sm_90'
ptxas info    : Function properties for _Z4hot1Pf
    64 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads
ptxas info    : Used 255 registers, used 1 barriers
ptxas info    : Compiling entry function '_Z4hot2Pf' for 'sm_80'
ptxas info    : Function properties for _Z4hot2Pf
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
"""
    assert kernels(report) == [("_Z4hot1Pf", "sm_90", (64, 8, 12)), ("_Z4hot2Pf", "sm_80", (0, 0, 0))]
    report = report.replace("Function properties for _Z4hot2Pf", "Used 70 registers, used 1 barriers")
    assert registers(report) == [("_Z4hot1Pf", "sm_90", 255), ("_Z4hot2Pf", "sm_80", 70)]
