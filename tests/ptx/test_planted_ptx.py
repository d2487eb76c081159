"""The interpreter finds what it promises to find: kernels with a planted fault, and the same kernels without it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks.profile import budgets
from benchmarks.profile.counts import Counts, Kernel, Line, parse
from benchmarks.profile.growth import exponent
from benchmarks.profile.interpreter import NO_NVCC, NVCC, run
from benchmarks.profile.report import line_text, wasted

pytestmark = pytest.mark.skipif(not NVCC, reason=NO_NVCC)

SOURCE = Path(__file__).parent / "planted.cu"
COSTLY = [
    "uncoalesced_load",
    "bank_conflict",
    "divergent_branch",
    "hot_atomic",
    "quadratic_loop",
    "label_gradient",
    "chased_pointer",
]
WRONG = {
    "missing_barrier": "race on shared memory|shared memory that its block has not written",
    "uninitialised_shared": "reads shared memory that its block has not written",
    "misaligned_vector": "misaligned access of 8 bytes",
    "past_the_tensor": "out of bounds: 4 bytes of global memory that no tensor has",
    "divergent_barrier": "divergent barrier",
    "shuffle_from_a_lane_that_left": "wrong mask: it reads lane 3, which does not take part",
    "endless_loop": "does not come to an end",
}
PROGRAM = """
import ctypes, json, sys, torch
from benchmarks.profile.interpreter import folder
library = str(folder() / "libise_fast_ptx.so")
torch.ops.load_library(library)
interpreter, out = ctypes.CDLL(library), sys.argv[1]
interpreter.ptx_set_limit.argtypes = [ctypes.c_uint64]
interpreter.ptx_set_limit(100_000)
said = {}
for name in sys.argv[2].split(","):
    for bug in (False, True):
        for n in (256, 512):
            interpreter.ptx_clear()
            try:
                torch.ops.ise_fast_planted.run(torch.ones(n), name, bug)
                said[f"{name} {bug} {n}"] = ""
            except RuntimeError as error:
                said[f"{name} {bug} {n}"] = str(error)
            interpreter.ptx_write_counts(f"{out}/{name} {bug} {n}.json".encode())
json.dump(said, open(f"{out}/said.json", "w"))
"""


def marked(name: str) -> str:
    """The line that planted.cu marks for a kernel, as the interpreter names it."""
    lines = SOURCE.read_text().splitlines()
    return f"tests/ptx/planted.cu:{next(i for i, line in enumerate(lines, 1) if line.endswith(f'HERE {name}'))}"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], dict[str, Counts]]:
    """What each kernel said, and what it counted: keys "name bug n"."""
    folder = tmp_path_factory.mktemp("planted")
    done = run("-c", PROGRAM, folder, ",".join([*COSTLY, *WRONG]))
    assert done.returncode == 0, done.stdout + done.stderr
    said: dict[str, str] = parse_json(folder / "said.json")
    return said, {name: parse(parse_json(folder / f"{name}.json")) for name in said}


def parse_json(path: Path) -> Any:
    import json

    return json.loads(path.read_text())


@pytest.mark.parametrize("name", WRONG)
def test_wrong_kernel_is_reported_with_its_line(results: Any, name: str) -> None:
    said, _ = results
    assert said[f"{name} False 256"] == ""
    report = said[f"{name} True 256"]
    assert re.search(WRONG[name], report), report
    assert f"{name}, block (" in report
    assert marked(name) in report


def kernel(results: Any, name: str, bug: bool, n: int = 256) -> Kernel:
    said, counts = results
    assert said[f"{name} {bug} {n}"] == ""
    found: Kernel = counts[f"{name} {bug} {n}"].kernels[name]
    return found


def the_line(found: Kernel, name: str, measure: Any) -> Line:
    """The line that `measure` puts first, which must be the marked one."""
    line = found.worst(measure)
    assert line is not None
    assert line.line == marked(name)
    return line


def test_uncoalesced_load_is_reported(results: Any) -> None:
    good = the_line(kernel(results, "uncoalesced_load", False), "uncoalesced_load", lambda line: line.sectors)
    assert good.sectors == 4 * good.warps
    assert wasted(good) == 0
    bad = the_line(kernel(results, "uncoalesced_load", True), "uncoalesced_load", wasted)
    assert bad.sectors >= 16 * bad.warps
    assert "12% used" in line_text(bad)


def test_bank_conflict_is_reported(results: Any) -> None:
    assert kernel(results, "bank_conflict", False).worst(lambda line: line.waves).waves == 4 * 64  # the stores
    bad = the_line(kernel(results, "bank_conflict", True), "bank_conflict", wasted)
    assert bad.kind == "load shared"
    assert bad.waves == 32 * bad.warps


def test_divergent_branch_is_reported(results: Any) -> None:
    assert kernel(results, "divergent_branch", False).total("divided") == 0
    bad = the_line(kernel(results, "divergent_branch", True), "divergent_branch", lambda line: line.divided)
    assert bad.divided > 0
    assert bad.lanes < 20 * bad.warps


def test_hot_atomic_is_reported(results: Any) -> None:
    assert kernel(results, "hot_atomic", False).total("meetings") == 0
    bad = the_line(kernel(results, "hot_atomic", True), "hot_atomic", wasted)
    assert bad.kind == "atomic global"
    assert bad.meetings == 31 * bad.warps


def test_quadratic_loop_is_reported_by_its_exponent(results: Any) -> None:
    def grows(bug: bool) -> float:
        small, large = (kernel(results, "quadratic_loop", bug, n).instructions for n in (256, 512))
        return exponent(small, large)

    assert grows(False) == pytest.approx(1, abs=0.05)
    assert grows(True) == pytest.approx(2, abs=0.05)
    the_line(kernel(results, "quadratic_loop", True), "quadratic_loop", lambda line: line.warps)


def test_loads_that_wait_for_each_other_take_longer(results: Any) -> None:
    at_once, chased = (kernel(results, "chased_pointer", bug) for bug in (False, True))
    assert 480 < at_once.longest_block < 700  # one answer of the memory, and sixteen additions
    assert chased.longest_block > 480 + 15 * 40  # and fifteen of the first cache


def test_a_term_of_b_squared_d_is_above_its_budget_by_its_exponent(results: Any) -> None:
    """As the label-preserving gradient once had it: nothing to see at one small size."""

    def operator(bug: bool) -> dict[str, budgets.Operator]:
        small, large = (results[1][f"label_gradient {bug} {n}"] for n in (256, 512))
        return {"head": budgets.Operator({"B": 16}, small, large, {"B": large})}

    held = budgets.lowered({}, operator(False))
    assert budgets.exceeded(held, operator(False)) == []
    reports = [text for text in budgets.exceeded(held, operator(True)) if " grow as " in text]
    assert len(reports) == 1
    assert re.search(r"label_gradient: instructions grow as B\^1\.[7-9]\d*, budget (0\.9|1\.0)", reports[0]), reports
    assert f"fastest at {marked('label_gradient')} " in reports[0]
