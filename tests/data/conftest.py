"""Tiny copies of data sets: real folders and file names, images of a few pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

WriteImages = Callable[[Path, Iterable[str]], None]


@pytest.fixture
def write_images() -> WriteImages:
    """write_images(folder, names): an 8 x 6 image of its own content for every name."""

    def write(folder: Path, names: Iterable[str]) -> None:
        for number, name in enumerate(names):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(number).integers(0, 256, (8, 6, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)

    return write
