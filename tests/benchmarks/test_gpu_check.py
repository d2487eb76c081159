"""benchmarks/gpu_check.sh where there is nothing to check, and with stand-ins for all the programs that it runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu_check.sh"
NO_GPU = "echo 'No devices were found'; exit 6"
# Each says what it was called with. A sanitizer waits for the three others, ten seconds at most.
STAND_INS = {
    "nvidia-smi": "echo 'GPU 0: a stand-in'",
    "python": 'echo "$PYTHONPATH: $*" >> "$CALLED"; if [ "$1" = - ]; then cat > /dev/null; fi',
    "nvcc": 'echo "nvcc $*" >> "$CALLED"',
    "compute-sanitizer": """
        echo "$ISE_FAST_PLAIN_PRODUCTS: $*" > "$CALLED.$2"
        for try in $(seq 100); do
          [ "$(ls "$CALLED".* | wc -l)" = 4 ] && break; sleep 0.1
        done
        echo "waited $try times"
        [ "$try" != 100 ] && [ "$2" != "$FAILS" ] || exit 9""",
}


def run(
    tmp_path: Path, *arguments: str, stand_ins: dict[str, str], **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the script on a machine with these programs."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, text in stand_ins.items():
        (tools / name).write_text(f"#!/bin/sh\n{text}\n")
        (tools / name).chmod(0o755)
    path = f"{tools}{os.pathsep}{os.environ['PATH']}"
    inherited = {name: value for name, value in os.environ.items() if name not in ("CUDACXX", "PYTHONPATH")}
    environment = {**inherited, "PATH": path, "PYTHON": sys.executable, **environment}
    return subprocess.run(["bash", str(SCRIPT), *arguments], env=environment, capture_output=True, text=True)


def run_all(tmp_path: Path, fails: str = "") -> tuple[subprocess.CompletedProcess[str], dict[str, str], dict[str, str]]:
    """A run on a machine that seems to have all; its lines of summary.txt by step; sanitizers' arguments by tool."""
    called = {"CALLED": str(tmp_path / "called"), "FAILS": fails, "PYTHON": str(tmp_path / "tools" / "python")}
    done = run(tmp_path, str(tmp_path / "out"), stand_ins=STAND_INS, **called)
    summary = (tmp_path / "out" / "summary.txt").read_text().splitlines()
    tools = {path.suffix[1:]: path.read_text() for path in tmp_path.glob("called.*")}
    return done, {line.split()[0]: line for line in summary}, tools


def test_without_a_gpu_it_says_so(tmp_path: Path) -> None:
    done = run(tmp_path, str(tmp_path / "out"), stand_ins={"nvidia-smi": NO_GPU})
    assert done.returncode == 2
    assert "no GPU here" in done.stderr
    assert "nothing was checked" in (tmp_path / "out" / "summary.txt").read_text()
    assert not (tmp_path / "out" / "gpu_check.json").exists()


def test_needs_a_folder(tmp_path: Path) -> None:
    done = run(tmp_path, stand_ins={"nvidia-smi": NO_GPU})
    assert done.returncode == 2
    assert "usage: benchmarks/gpu_check.sh DIR" in done.stderr


def test_all_steps_and_what_they_run(tmp_path: Path) -> None:
    done, steps, tools = run_all(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    measures = ["clock", "benchmarks"]
    assert list(steps)[:5] == ["build", "tests", "poison", "poison-small", "products"]
    assert sorted(list(steps)[5:9]) == sorted(tools) == ["initcheck", "memcheck", "racecheck", "synccheck"]
    assert list(steps)[9:] == [*measures, "all"]
    assert all(" passed " in line for line in list(steps.values())[:-1])
    assert steps["all"].startswith("all passed")

    # On Hopper two tools cannot follow the library's products; one of them must see who wrote what we read.
    library = tmp_path / "out" / "plain_products.so"
    assert {tool for tool, words in tools.items() if "-p plain_products" in words} == {"racecheck", "initcheck"}
    assert {tool for tool, words in tools.items() if "--kernel-name kns=ise_fast" in words} == {*tools} - {"initcheck"}
    assert all(words.startswith(f"{library}: ") and "tests/simt/test_kernels.py" in words for words in tools.values())
    called = (tmp_path / "called").read_text().splitlines()
    assert [f"-o {library} tests/simt/plain_products.cu" in line for line in called if line.startswith("nvcc")] == [
        True
    ]
    poisoned = [line for line in called if "-p poison" in line]
    assert [line.partition(": ")[0] for line in poisoned] == [str(SCRIPT.parents[1] / "tests")] * 2


@pytest.mark.parametrize("fails", ["memcheck", "synccheck"])
def test_a_failure_beside_others_that_pass_is_told(tmp_path: Path, fails: str) -> None:
    done, steps, _ = run_all(tmp_path, fails)
    assert done.returncode == 1
    assert [name for name, line in steps.items() if "failed with status 9" in line] == [fails]
    assert steps["NOT"].startswith("NOT all passed")
