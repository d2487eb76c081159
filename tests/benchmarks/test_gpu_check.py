"""benchmarks/gpu_check.sh where there is nothing to check."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu_check.sh"


def run(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the script on a machine whose nvidia-smi finds no GPU."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "nvidia-smi").write_text("#!/bin/sh\necho 'No devices were found'\nexit 6\n")
    (tools / "nvidia-smi").chmod(0o755)
    environment = {**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}", "PYTHON": sys.executable}
    return subprocess.run(["bash", str(SCRIPT), *arguments], env=environment, capture_output=True, text=True)


def test_without_a_gpu_it_says_so(tmp_path: Path) -> None:
    done = run(tmp_path, str(tmp_path / "out"))
    assert done.returncode == 2
    assert "no GPU here" in done.stderr
    assert "nothing was checked" in (tmp_path / "out" / "summary.txt").read_text()
    assert not (tmp_path / "out" / "gpu_check.json").exists()


def test_needs_a_folder(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode == 2
    assert "usage: benchmarks/gpu_check.sh DIR" in done.stderr
