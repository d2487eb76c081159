"""The list of images of a run: the same wherever it lies; what was added, removed, renamed or replaced is noticed."""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ise_fast.engine import image_list
from ise_fast.engine.distributed import World
from ise_fast.train import main
from tests.engine.conftest import assert_same_weights, final_weights
from tests.engine.test_resume import after_step

ALONE = World(0, 1, torch.device("cpu"))


def sign(root: Path, cams: list[int] | None = None) -> Tensor:
    paths = sorted(path for path in root.rglob("*") if path.is_file())
    return image_list.sign(root, paths, None if cams is None else np.array(cams), ALONE, 2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(6):
        path = tmp_path / "here" / str(i % 2) / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes([i] * 20))
    return tmp_path / "here"


def test_a_copy_has_the_same_signature(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = sign(folder)
    assert first.shape == (6, 8)
    shutil.copytree(folder, tmp_path / "there" / "deeper")  # copies get new dates
    os.utime(tmp_path / "there/deeper/0/0.png", (1, 1))
    assert torch.equal(sign(tmp_path / "there/deeper"), first)
    (tmp_path / "link").symlink_to(folder)
    assert torch.equal(sign(tmp_path / "link"), first)
    monkeypatch.chdir(tmp_path)
    assert torch.equal(sign(Path("here")), first)
    assert image_list.places(first, first) is not None
    assert sign(tmp_path / "nothing").shape == (0, 8)


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "0/2.png").rename(root / "0/2b.png"),  # keeps its place
        lambda root: (root / "0/2.png").rename(root / "1/2.png"),
        lambda root: (root / "0/2.png").unlink(),
        lambda root: (root / "0/2.png").write_bytes(bytes([9] * 20)),  # of the same size
        lambda root: os.replace(root / "0/2.png", root / "0/0.png"),
    ],
)
def test_other_images_have_another_signature(folder: Path, change: Callable[[Path], object]) -> None:
    first = sign(folder)
    change(folder)
    second = sign(folder)
    assert len(first) != len(second) or not torch.equal(first, second)
    assert image_list.places(first, second) is None


def test_cameras_and_added_images(folder: Path) -> None:
    first = sign(folder, [0, 1, 0, 1, 0, 1])
    assert image_list.places(first, sign(folder, [0, 1, 0, 1, 0, 2])) is None
    plain = sign(folder)
    (folder / "0/1.png").write_bytes(b"new")
    found = image_list.places(plain, sign(folder))
    assert found is not None
    assert found.tolist() == [0, 2, 3, 4, 5, 6]


def test_members_of_an_archive(tmp_path: Path) -> None:
    def members(name: str, last: bytes) -> Tensor:
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("a/1.png", b"one")
            archive.writestr("a/2.png", last)
        paths = [tmp_path / name / "a/1.png", tmp_path / name / "a/2.png"]
        return image_list.sign(tmp_path / name, paths, None, ALONE, 1)

    first = members("x.zip", b"two")
    assert torch.equal(members("y.zip", b"two"), first)
    assert not torch.equal(members("y.zip", b"owt"), first)


def killed_run(flags: list[str], folder: Path, moment: int) -> None:
    """A run that died inside an iteration; the checkpoint before lies inside an epoch (moment 3) or at its end (5)."""

    def dies() -> None:
        raise KeyError("killed")

    with pytest.MonkeyPatch.context() as patch:
        after_step(patch, moment, dies)
        with pytest.raises(KeyError, match="killed"):
            main([*flags, "--logs-dir", str(folder), "--checkpoint-step", "2", "--eval-step", "0"])


@pytest.mark.parametrize("moment", [3, 5])
def test_resume_after_the_images_changed(
    moment: int, flags: list[str], data_dir: Path, straight: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    killed_run(flags, folder, moment)
    elsewhere = tmp_path / "elsewhere"
    resume = [*flags, "--data-dir", str(elsewhere), "--checkpoint-step", "2", "--eval-step", "0", "--resume", "auto"]
    changes: dict[str, Callable[[list[Path]], object]] = {
        "removed": lambda images: images[3].unlink(),
        "renamed": lambda images: images[3].rename(images[3].with_name("9999_c1s1_000001_01.jpg")),
        "replaced": lambda images: shutil.copy(images[4], images[3]),
        "added": lambda images: shutil.copy(images[3], images[3].with_name("0000_c1s1_000001_01.jpg")),
        "copied": lambda images: None,
    }
    for name, change in changes.items():
        shutil.copytree(data_dir, elsewhere)
        change(sorted(elsewhere.rglob("bounding_box_train/*.jpg")))
        again = tmp_path / name
        shutil.copytree(folder, again)
        capsys.readouterr()
        status = main([*resume, "--logs-dir", str(again)])
        errors = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
        if name in ("added", "copied"):
            assert (status, errors) == (0, [])
        else:
            assert status == 2
            assert len(errors) == 1
            assert "training images are not those of the run" in errors[0]
        newest = torch.load(max((again / "checkpoints").glob("checkpoint-*")), weights_only=True)
        assert len(newest["labels"]) == (81 if name == "added" else 80)
        if name == "copied":
            assert_same_weights(final_weights(again), final_weights(straight))
        shutil.rmtree(elsewhere)


def test_a_checkpoint_without_signature(
    flags: list[str], straight: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = torch.load(straight / "checkpoints/checkpoint-0001-000000.pt", weights_only=True)
    del content["images"]
    torch.save(content, tmp_path / "old.pt")
    arguments = [*flags, "--resume", str(tmp_path / "old.pt"), "--logs-dir", str(tmp_path / "r")]
    assert main(arguments) == 0
    assert "does not tell whether these are the same images" in capsys.readouterr().err
    assert_same_weights(final_weights(tmp_path / "r"), final_weights(straight))
