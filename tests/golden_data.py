"""Load the files of tests/golden as torch tensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

FOLDER = Path(__file__).parent / "golden"


def names(prefix: str) -> list[str]:
    """Golden files of one family, for pytest.mark.parametrize."""
    found = sorted(path.stem for path in FOLDER.glob(f"{prefix}_*.npz"))
    assert found, f"no golden file {prefix}_*.npz in {FOLDER}"
    return found


def load(name: str) -> dict[str, Any]:
    """Arrays as tensors, scalars as Python values."""
    with np.load(FOLDER / f"{name}.npz") as file:
        return {key: torch.from_numpy(file[key]) if file[key].ndim else file[key].item() for key in file.files}
