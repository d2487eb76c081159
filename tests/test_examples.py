"""The examples of the documentation run as they are."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from forked import begin_forked

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


def run_example(path: Path, folder: Path, said: str) -> None:
    """As `python PATH` in that folder does."""
    begin_forked(2, said)
    os.chdir(folder)
    sys.argv = [str(path)]
    sys.path[:0] = [str(path.parent), str(EXAMPLES.parents[1])]
    runpy.run_path(str(path), run_name="__main__")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first example that needs it puts the synthetic data set."""
    return tmp_path_factory.mktemp("data")


@pytest.mark.parametrize("name", SAYS)
def test_example(name: str, tmp_path: Path, data: Path, processes: Any) -> None:
    (tmp_path / "data").symlink_to(data)
    said = tmp_path / "said"
    process = processes.Process(target=run_example, args=(EXAMPLES / f"{name}.py", tmp_path, str(said)))
    process.start()
    process.join()
    assert process.exitcode == 0, said.read_text()
    assert SAYS[name] in said.read_text()


def test_slurm_script_is_a_shell_script() -> None:
    assert subprocess.run(["bash", "-n", str(EXAMPLES / "slurm.sh")]).returncode == 0
