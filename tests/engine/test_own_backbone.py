"""A backbone of the user's own in a whole run: trained, resumed, evaluated, loaded."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

import ise_fast
from ise_fast.__main__ import main

NETS = """
from torch import nn


def bound():  # to images of 32 x 16
    return nn.Sequential(nn.Conv2d(3, 8, 8, stride=8), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 4 * 2, 12))
"""


def test_a_network_of_ones_own(
    flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "nets_of_theirs.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])  # as the installed command has it
    own = ["train", *flags, "--arch", "nets_of_theirs:bound", "--logs-dir", "run", "--iters", "1"]
    assert main([*own, "--height", "40"]) == 2
    assert "arch: the network does not take images of 40 x 16 (RuntimeError: mat1" in capsys.readouterr().err
    assert main([*own, "--epochs", "1"]) == 0
    assert main([*own, "--epochs", "2", "--resume", "auto"]) == 0
    assert (tmp_path / "run/metrics.jsonl").read_text().count('"epoch": 2') == 1
    best = "run/checkpoints/best.pt"
    assert ise_fast.load_model(best)(torch.rand(2, 3, 32, 16)).shape == (2, 12)
    assert main(["evaluate", "--checkpoint", best]) == 0
    capsys.readouterr()
    assert main(["evaluate", "--checkpoint", best, "--width", "32"]) == 2
    assert "--height, --width: the network does not take 32 x 32 (mat1" in capsys.readouterr().err
