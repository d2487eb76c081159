"""The host header finds what it promises to find: kernels with a planted bug, and the same kernels corrected."""

from __future__ import annotations

import os
import re
import subprocess

import pytest
from simt.build import BUILD, SIMT, VARIANT, build

# name of the kernel in planted.cu -> what the report must say, and for which thread where there is only one culprit
DETECTED = {
    "missing_barrier": r"race on static shared memory|which its block has not written",
    "barrier_at_the_end_of_a_loop": "race on static shared memory",
    "missing_syncwarp": r"race on static shared memory|which its block has not written",
    "syncwarp_across_warps": r"race on static shared memory|which its block has not written",
    "shared_race": "race on static shared memory: writes at planted.cu:",
    "half_words": "race on static shared memory",
    "plain_read_of_an_atomic": "race on static shared memory",
    "global_race": "race on global memory: .* of another block wrote at planted.cu:",
    "uninitialised_shared": r"thread \(5, 0, 0\): reads static shared memory .* not written",
    "divergent_barrier": r"divergent barrier: thread .* waits at __syncthreads .* has returned",
    "early_return": r"divergent barrier: thread .* waits at __syncthreads .* thread \(7, 0, 0\) has returned",
    "two_different_barriers": "divergent barrier: .*__syncthreads.*__syncthreads",
    "lane_that_never_comes": "(wrong mask|divergent barrier): .*__ballot_sync with mask 0xffffffff",
    "mask_without_the_caller": r"thread \((0|32), 0, 0\): wrong mask: it leaves out the caller's own lane",
    "shuffle_from_outside_the_mask": "wrong mask: .* reads lane 20, which does not take part",
    "two_masks": "(wrong mask|divergent barrier): .*__ballot_sync with mask 0xffffffff",
    "past_dynamic_shared": "out of bounds: touches byte 256 of 256 bytes of dynamic shared memory",
    "misaligned_atomic": "atomic on a misaligned address",
    "launch_limits": r"cannot be launched: a block of \(1025, 1, 1\) threads",
    "grid_limits": r"cannot be launched: a grid of \(1, 65536, 1\) blocks",
    "empty_grid": r"cannot be launched: a grid of \(0, 1, 1\) blocks",
    "shared_limits": "cannot be launched: 49153 bytes of dynamic shared memory, allowed are 49152",
}
SANITIZED = {
    "past_dynamic_shared": "AddressSanitizer: heap-buffer-overflow",
    "past_static_shared": "AddressSanitizer: global-buffer-overflow",
    "past_the_tensor": "AddressSanitizer: heap-buffer-overflow",
    "index_of_an_array": "out of bounds for type 'int",
    "signed_overflow": "signed integer overflow",
    "divergent_barrier": "divergent barrier",
}
ENVIRONMENT = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0", "LD_PRELOAD": ""}

pytestmark = pytest.mark.skipif(VARIANT in os.environ, reason="programs of their own")


@pytest.fixture(scope="module", autouse=True)
def _built() -> None:
    build("simt_planted_race", "simt_planted_asan")


def run(variant: str, name: str, which: str, seed: int) -> subprocess.CompletedProcess[str]:
    program = BUILD / "simt" / f"simt_planted_{variant}"
    return subprocess.run(
        [program, name, which, str(seed)], env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("variant", "name"), [*(("race", n) for n in DETECTED), *(("asan", n) for n in SANITIZED)])
def test_planted_bug_is_reported(variant: str, name: str, seed: int) -> None:
    fixed = run(variant, name, "fixed", seed)
    assert (fixed.returncode, fixed.stdout) == (0, "passed\n")
    bug = run(variant, name, "bug", seed)
    assert bug.returncode != 0
    assert re.search((DETECTED if variant == "race" else SANITIZED)[name], bug.stdout), bug.stdout
    if variant == "race" and "limits" not in name and "empty" not in name:
        assert bug.stdout.startswith(f"{name}, block ")


def test_float_atomics_do_not_compile() -> None:
    command = ["g++", "-std=c++20", "-fsyntax-only", "-DFLOAT_ATOMIC", "-x", "c++", SIMT / "planted.cu"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode != 0
    assert "float atomics are refused" in done.stderr
