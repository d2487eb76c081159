"""A data set of your own under a name: a function from a folder to its splits."""

import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from ise_fast.data import DATASETS, ReIDDataset, Split
from ise_fast.train import main


def load_shop(data_dir: Path) -> ReIDDataset:
    """camera/person_number.png; every third image is for the test, its first camera asks."""
    rows = [(path, int(path.name.split("_")[0]), int(path.parent.name)) for path in sorted(data_dir.glob("*/*.png"))]
    test = rows[::3]
    return ReIDDataset(
        "shop", data_dir,
        train=Split.from_rows(row for row in rows if row not in test),
        query=Split.from_rows(row for row in test if row[2] == 0),
        gallery=Split.from_rows(row for row in test if row[2] > 0),
        image_size=(32, 16),
    )  # fmt: skip


DATASETS["shop"] = load_shop

with tempfile.TemporaryDirectory() as folder:
    random = np.random.default_rng(0)
    for person in range(12):
        colour = random.integers(0, 200, 3)
        for camera in range(3):
            (Path(folder) / str(camera)).mkdir(exist_ok=True)
            for number in range(3):
                pixels = (colour + random.integers(0, 50, (32, 16, 3))).astype(np.uint8)
                Image.fromarray(pixels).save(Path(folder) / str(camera) / f"{person:02d}_{number}.png")
    arguments = "--preset synthetic -d shop --height 32 --width 16 -b 16 --num-instances 4 --iters 2 --epochs 1 --k1 6"
    arguments += " --k2 2 --min-samples 2 --no-report --no-tensorboard --no-progress --device cpu -j 1"
    raise SystemExit(main([*arguments.split(), "--data-dir", folder, "--logs-dir", f"{folder}/run"]))
