"""A checkpoint of a tiny network that was not trained, and a few pictures: what the commands work on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ise_fast.engine import checkpoint
from ise_fast.engine.config import parse
from ise_fast.models import build_model


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    model = build_model("small")
    model(torch.randn(8, 3, 32, 16))  # running statistics that are not those of the start
    config = parse(["--preset", "synthetic", "--height", "32", "--width", "16"])
    path = tmp_path_factory.mktemp("checkpoint") / "best.pt"
    state = {"format": checkpoint.FORMAT, "config": config.flat(), "model": model.state_dict()}
    checkpoint.save_atomically({**state, "epoch": 1, "best": None}, path)
    return path


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """people/{0001..0004}_c{1,2}.png: noise around a colour, the same for both pictures of a person."""
    folder = tmp_path_factory.mktemp("pictures") / "people"
    folder.mkdir()
    random = np.random.default_rng(0)
    for person in range(1, 5):
        colour = random.integers(0, 200, 3)
        for camera in (1, 2):
            pixels = (colour + random.integers(0, 40, (40, 20, 3))).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{person:04d}_c{camera}.png")
    return folder
