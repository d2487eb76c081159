"""Sources are compiled several in one, as many as the machine has cores: they must fit together in any number."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("sources", ["csrc/cpu/*.cpp", "csrc/cuda/*.cu"])
def test_a_name_means_one_thing_in_all_of_them(sources: str) -> None:
    text = "".join(f'#include "{path}"\n' for path in sorted(ROOT.glob(sources)))
    assert text.count("\n") > 20
    command = [
        *("g++", "-std=c++20", "-fsyntax-only", "-w", "-x", "c++", "-"),
        *("-DTORCH_TARGET_VERSION=0x020a000000000000", "-DISE_FAST_LIBRARY=ise_fast_simt"),
        *("-I", ROOT / "tests/simt", "-isystem", Path(torch.__file__).parent / "include"),
    ]
    done = subprocess.run(command, input=text, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
