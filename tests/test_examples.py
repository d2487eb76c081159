"""The examples of the documentation run as they are."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"
SAYS = {
    "cluster_embeddings": "OPTICS: ",
    "plain_loop": "epoch 3: ",
    "lightning_loop": "loss of the last batch: ",
    "own_clustering": "epoch 1/1",
    "own_backbone": "clusters  outliers",
    "own_dataset": "epoch 1/1",
    "own_method": "(own 0.",
    "sweep": " 0.6 ",
}


def test_all_are_here() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == SAYS.keys()


@pytest.mark.parametrize("name", SAYS)
def test_example(name: str, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLES.parents[1]), "OMP_NUM_THREADS": "2"}
    run = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py")], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert SAYS[name] in run.stdout + run.stderr


def test_slurm_script_is_a_shell_script() -> None:
    assert subprocess.run(["bash", "-n", str(EXAMPLES / "slurm.sh")]).returncode == 0
