"""The published presets, with ResNet-50, on tiny copies of their data sets' layouts: two iterations each."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from ise_fast.train import main

PERSONS = ("bounding_box_train", "query", "bounding_box_test")
LAYOUTS = {  # preset: folder below the data root, folders of images, what stands for cameras 1, 2, 3 in a name
    "market1501-ise": ("market1501/Market-1501-v15.09.15", PERSONS, "123"),
    "market1501-cluster-contrast": ("market1501/Market-1501-v15.09.15", PERSONS, "123"),
    "market1501-ise-label-preserving": ("market1501/Market-1501-v15.09.15", PERSONS, "123"),
    "market1501-cap": ("market1501/Market-1501-v15.09.15", PERSONS, "123"),
    "msmt17-ise": ("msmt17/MSMT17_V1", PERSONS, ("1", "12", "15")),
    "personx": ("personx/PersonX", PERSONS, ("3", "8", "12")),
    "veri776": ("veri/VeRi", ("image_train", "image_query", "image_test"), ("001", "010", "020")),
}
SMALL = (
    "-b 8 --num-instances 2 --bn-chunk 4 --iters 2 --epochs 1 --height 64 --width 32 --k1 8 --k2 2 --min-samples 2 "
    "--eps 0.6 --pretrained none --device cpu --no-progress --no-tensorboard --no-report --eval-step 0 -j 1"
)


@pytest.mark.parametrize("preset", LAYOUTS)
def test_two_iterations_with_resnet50(preset: str, data_dir: Path, tmp_path: Path) -> None:
    pytest.importorskip("torchvision")
    inner, folders, cameras = LAYOUTS[preset]
    for source, folder in zip(PERSONS, folders, strict=True):
        target = tmp_path / "data" / inner / folder
        target.mkdir(parents=True)
        for path in (data_dir / "Market-1501-v15.09.15" / source).iterdir():
            name = re.sub(r"_c(\d)", lambda match: f"_c{cameras[int(match[1]) - 1]}", path.name)
            shutil.copy(path, target / name)
    flags = ["--preset", preset, "--data-dir", str(tmp_path / "data"), *SMALL.split()]
    assert main([*flags, "--logs-dir", str(tmp_path / "run")]) == 0
    record = json.loads((tmp_path / "run/metrics.jsonl").read_text())
    assert record["loss"] > 0
    assert record["clusters"] >= 4 or preset == "market1501-cap"  # whose batches are of proxies
    newest = max((tmp_path / "run/checkpoints").glob("checkpoint-*.pt"))
    weights = torch.load(newest, weights_only=True, mmap=True)["model"]  # of 300 MB, the names
    assert ("backbone.relu.absent" in weights) == (preset == "market1501-cap")
