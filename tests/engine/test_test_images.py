"""Test images that cannot be evaluated: said in one line before anything is decoded or written."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ise_fast import evaluate as command
from ise_fast.data import images
from ise_fast.engine import checkpoint
from ise_fast.engine.report_data import ReportData
from ise_fast.train import main

PATTERN = r"cam(?P<camera>\d+)/((?P<id>\d+)_)?"
FLAGS = shlex.split(
    "-d folder --preset synthetic --height 32 --width 16 --epochs 1 --iters 2 -b 4 --num-instances 2 --k1 6 --k2 2 "
    "--min-samples 2 --eps 0.9 --device cpu --no-progress --no-tensorboard --no-report --bn-chunk 0 "
    f"--identity-pattern '{PATTERN}'"
)
Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """make(query=[...], gallery=[...]): a folder with these names and 16 training images."""

    def write(**names: list[str]) -> Path:
        names["train"] = [f"cam{i % 2}/{i // 4}_{i}.png" for i in range(16)]
        for role, files in names.items():
            for number, name in enumerate(files):
                path = tmp_path / "data" / role / name
                path.parent.mkdir(parents=True, exist_ok=True)
                base = np.random.default_rng(number // 4).integers(0, 200, (32, 16, 3))
                noise = np.random.default_rng(number).integers(0, 50, (32, 16, 3))
                Image.fromarray((base + noise).astype(np.uint8)).save(path)
        return tmp_path / "data"

    return write


SINGLE = {"query": ["cam1/7_0.png", "cam1/8_0.png"], "gallery": ["cam1/7_1.png", "cam1/8_1.png"]}
STRANGE = {"query": ["cam1/7_0.png"], "gallery": ["cam2/8_1.png", "cam2/9_1.png"]}
CASES = pytest.mark.parametrize(
    ("names", "reason"),
    [
        (SINGLE, "every match was taken by the query's own camera"),
        ({"query": ["cam1/7_0.png"], "gallery": ["cam1/7_1.png", "cam2/8_1.png"]}, "the query's own camera"),
        (STRANGE, "no query's identity is in the gallery"),
    ],
)


@CASES
def test_training_says_so_before_it_decodes_or_writes(
    names: dict[str, list[str]], reason: str, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(images, "read_pixels", lambda *_: pytest.fail("an image was decoded"))
    assert main([*FLAGS, "--data-dir", str(make(**names)), "--logs-dir", str(tmp_path / "run")]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert reason in line
    assert "--eval-step 0" in line
    assert not (tmp_path / "run").exists()


def test_training_without_evaluation_goes_on(make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert main([*FLAGS, "--data-dir", str(make(**SINGLE)), "--logs-dir", str(run), "--eval-step", "0"]) == 0
    assert "the query's own camera" in capsys.readouterr().err
    assert "mAP" not in json.loads((run / "metrics.json").read_text())["last"]
    target = tmp_path / "figures.json"
    arguments = ["--checkpoint", str(next((run / "checkpoints").glob("checkpoint-*.pt"))), "--device", "cpu"]
    assert command.main([*arguments, "--output", str(target)]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "none of 2 queries has a match" in line
    assert "--eval-step" not in line
    assert not target.exists()


def test_what_is_not_used_is_counted(make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = {"query": ["cam1/7_0.png", "cam1/8_0.png", "cam1/9_0.png"], "gallery": ["cam2/7_1.png", "cam1/8_1.png"]}
    root = make(**names)
    assert main([*FLAGS, "--data-dir", str(root), "--logs-dir", str(tmp_path / "run")]) == 0
    assert "2 of 3 queries have no match in the gallery and are not counted" in capsys.readouterr().err
    arguments = ["--checkpoint", str(tmp_path / "run/checkpoints/best.pt"), "--device", "cpu"]
    for more, said, expected in (
        (["--rerank"], "k1 is 4 instead of 20, because there are 5 images", 0),
        (["--identity-pattern", r"query/cam(?P<camera>\d)/|(gallery|train)/"], "no queries and gallery", 2),
        (["--identity-pattern", r"query/cam\d/(?P<id>\d)|gallery|train"], "no identity is known for the gallery", 2),
        (["--identity-pattern", r"(query/cam(?P<camera>\d)|gallery/cam\d|train/cam\d)/(?P<id>\d)"],
         "cameras are known for the queries alone and are not used", 0),
    ):  # fmt: skip
        assert command.main([*arguments, *more]) == expected
        assert said in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--output", "--features"])
@pytest.mark.parametrize("target", ["no/such/folder/x", "."])
def test_targets_that_cannot_be_written_are_found_first(
    flag: str, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(checkpoint, "load", lambda *_: pytest.fail("the checkpoint was read"))
    assert command.main(["--checkpoint", "x.pt", flag, target]) == 2
    assert f"error: {flag}: " in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("flag", ["--checkpoint", "--data-dir", "--output", "--features", "--labels-csv"])
def test_home_folder_in_every_path(flag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    seen: list[command.EvaluateConfig] = []
    monkeypatch.setattr(command, "run", lambda config, world: seen.append(config))
    assert command.main(["--checkpoint", "c.pt", "--device", "cpu", f"{flag}=~/x/y"]) == 0
    assert getattr(seen[0], flag[2:].replace("-", "_")) == str(tmp_path / "x/y")


def test_features_that_are_not_finite_are_one_line(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make(query=["cam1/7_0.png"], gallery=["cam2/7_1.png"])
    assert main([*FLAGS, "--data-dir", str(root), "--logs-dir", str(tmp_path / "run")]) == 0
    monkeypatch.setattr(
        command.FeatureExtractor, "__call__", lambda self, store, *_: torch.full((len(store), 4), torch.nan)
    )
    capsys.readouterr()
    assert command.main(["--checkpoint", str(tmp_path / "run/checkpoints/best.pt"), "--device", "cpu"]) == 2
    assert "error: --checkpoint: its features cannot be ranked: distance: expected finite" in capsys.readouterr().err


def test_labels_of_training_are_not_those_of_other_images(
    make: Make, flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`flags` name a data set in the market1501 layout."""
    root = make(query=["cam1/7_0.png"], gallery=["cam2/7_1.png"])
    assert main([*FLAGS, "--data-dir", str(root), "--logs-dir", str(tmp_path / "run")]) == 0
    arguments = ["--checkpoint", str(tmp_path / "run/checkpoints/best.pt"), "--device", "cpu"]
    table = tmp_path / "t.csv"
    table.write_text("path,id,camera,split\nquery/cam1/7_0.png,7,1,query\ngallery/cam2/7_1.png,7,2,gallery\n")
    assert command.main([*arguments, "--labels-csv", str(table)]) == 0
    market = ["-d", "market1501", "--data-dir", flags[flags.index("--data-dir") + 1]]
    capsys.readouterr()
    assert command.main([*arguments, *market]) == 0
    assert "is ignored" not in capsys.readouterr().err
    assert command.main([*arguments, *market, "--labels-csv", str(table)]) == 0
    assert "--labels-csv is ignored: only --dataset folder takes it" in capsys.readouterr().err


def test_names_that_are_no_utf8_go_through_a_whole_run(make: Make, tmp_path: Path) -> None:
    old = os.fsdecode(b"M\xfcll")
    root = make(query=["cam1/7_0.png"], gallery=[f"cam2/7_{old}.png", "cam2/8_1.png"])
    folder = root.rename(root.with_name(old))
    run = tmp_path / os.fsdecode(b"l\xfcg")
    disk = ["--cache", "disk", "--cache-dir", str(tmp_path / "cache")]
    assert main([*FLAGS, "--report", *disk, "--data-dir", str(folder), "--logs-dir", str(run)]) == 0
    assert r"M\udcfcll" in (run / "report.html").read_text(encoding="utf-8")
    sampled = ReportData.load(run / "report.npz")
    assert sampled.statistics.names.tolist() == ["7_0.png"]
    assert (sampled.clusters.foreign >= 0).all()  # identities of training images reach the report, and it alone
    assert r"l\udcfcg" in (run / "train.log").read_text(encoding="utf-8")
    arguments = ["--checkpoint", str(run / "checkpoints/best.pt"), "--features", str(tmp_path / "f.npz")]
    assert command.main([*arguments, "--device", "cpu"]) == 0
    assert old in str(np.load(tmp_path / "f.npz")["gallery_paths"][1])
