"""Columns tracklet and view_of of a label table: what a run draws, killed and resumed; refused before decoding."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from ise_fast.data import ImageStore
from ise_fast.engine import run_images
from ise_fast.engine.views import FurtherViews
from ise_fast.train import main
from tests.engine.conftest import watched_steps
from tests.engine.test_resume import after_step, assert_same_run


@pytest.fixture
def table(data_dir: Path, tmp_path: Path) -> Path:
    """The training images with a tracklet for each identity and camera, and query images as views of the first ten."""
    root = data_dir / "Market-1501-v15.09.15"
    images = sorted((root / "bounding_box_train").glob("*.jpg"))
    views = sorted((root / "query").glob("*.jpg"))[:10]
    lines = ["path,camera,tracklet,view_of"]
    for image in images:
        identity, camera = re.findall(r"(\d+)_c(\d)", image.name)[0]
        lines.append(f"{image},{camera},{identity},")
    lines += [f"{view},1,,{image}" for view, image in zip(views, images, strict=False)]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    return tmp_path / "t.csv"


@pytest.fixture
def words(flags: list[str], table: Path) -> list[str]:
    words = [*flags, "--dataset", "folder", "--labels-csv", str(table), "--eval-step", "0", "--checkpoint-step", "2"]
    return [*words, "--tracklets", "merge", "--tracklet-epochs", "1", "--view-share", "1"]


def test_killed_and_resumed(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with watched_steps(monkeypatch) as steps:
        assert main([*words, "--logs-dir", str(tmp_path / "whole")]) == 0
    seen = [batch for batch, _ in steps]
    assert all(batch.images.max() < 80 for batch in seen)  # views are no images of their own
    for batch in seen[:4]:  # in the first epoch, a cluster is of one camera
        assert batch.cams is not None
        assert len({(int(y), int(c)) for y, c in zip(batch.labels, batch.cams, strict=True)}) == 4
    first = json.loads((tmp_path / "whole/metrics.jsonl").read_text().splitlines()[0])
    assert (first["clusters"], first["outliers"]) == (24, 0)

    def dies() -> None:
        raise KeyError("killed")

    killed = [*words, "--logs-dir", str(tmp_path / "killed"), "--resume", "auto"]
    with monkeypatch.context() as patch:
        after_step(patch, 3, dies)
        with pytest.raises(KeyError, match="killed"):
            main(killed)
    assert main(killed) == 0
    assert_same_run(tmp_path / "whole", tmp_path / "killed")
    plain = [*words, "--view-share", "0", "--logs-dir", str(tmp_path / "plain")]
    assert main(plain) == 0
    with pytest.raises(AssertionError):
        assert_same_run(tmp_path / "whole", tmp_path / "plain")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("--dataset market1501", "--tracklets: no tracklet is known of the training images; --labels-csv needs that"),
        ("--method softsim", "--tracklets: softsim has no clusters that tracklets could be part of"),
    ],
)
def test_refused_before_images_are_decoded(
    words: list[str], change: str, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(run_images, "open_images", None)
    assert main([*words, *change.split()]) == 2
    assert message in capsys.readouterr().err


def test_views_take_the_place_of_their_image() -> None:
    pixels = torch.arange(4, dtype=torch.uint8)[:, None, None, None].expand(4, 3, 2, 2) + 100
    store = ImageStore([Path(str(i)) for i in range(4)], (2, 2), 1, pixels.contiguous(), {})
    views = FurtherViews(store, np.array([7, 9, 7, 7]), 1.0)
    indices = [7, 8, 9, 7, 7, 7, 7, 7]
    batch = torch.zeros(8, 3, 2, 2, dtype=torch.uint8)
    whole = views.exchange(batch.clone(), indices, slice(0, 8), 3)[:, 0, 0, 0].tolist()
    assert whole[1] == 0
    assert whole[2] == 101
    assert {whole[i] for i in (0, 3, 4, 5, 6, 7)} <= {100, 102, 103}
    assert len(set(whole)) > 3
    parts = [views.exchange(batch[:4].clone(), indices, part, 3) for part in (slice(0, 4), slice(4, 8))]
    assert torch.cat(parts)[:, 0, 0, 0].tolist() == whole
    rarely = FurtherViews(store, np.array([7, 9, 7, 7]), 0.5)
    drawn = rarely.exchange(torch.zeros(400, 3, 2, 2, dtype=torch.uint8), [7] * 400, slice(0, 400), 1)
    assert 150 < int((drawn[:, 0, 0, 0] > 0).sum()) < 250
