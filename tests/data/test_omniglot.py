"""Omniglot from archives and folders with the grammar of the published ones."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ise_fast.data import DatasetError, load_dataset, open_images
from ise_fast.engine.distributed import World
from ise_fast.engine.image_list import sign

WriteImages = Callable[[Path, Iterable[str]], None]
SMALL1 = {"Balinese": 2, "Greek": 3, "Korean": 1}
SMALL2 = {"Greek": 3, "Tagalog": 1, "Japanese_(katakana)": 2}  # Greek is in both, as in the published archives


def names(alphabets: dict[str, int]) -> list[str]:
    return [
        f"{alphabet}/character{character:02d}/{100 * len(alphabet) + character:04d}_{drawer:02d}.png"
        for alphabet, count in alphabets.items()
        for character in range(1, count + 1)
        for drawer in range(1, 21)
    ]


def write_archive(path: Path, alphabets: dict[str, int]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{path.stem}/", "")
        for number, name in enumerate(names(alphabets)):
            pixels = np.random.default_rng(number).integers(0, 2, (105, 105)).astype(bool)
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "png")
            archive.writestr(f"{path.stem}/{name}", buffer.getvalue())


@pytest.fixture
def archives(tmp_path: Path) -> Path:
    write_archive(tmp_path / "images_background_small1.zip", SMALL1)
    write_archive(tmp_path / "images_background_small2.zip", SMALL2)
    return tmp_path


def test_protocol_and_no_image_twice(archives: Path) -> None:
    dataset = load_dataset("omniglot", archives)
    assert dataset.train.counts() == (6, 120, 20)  # Greek 3, Japanese 2, Korean 1
    assert dataset.query.counts() == (3, 15, 5)  # Balinese 2, Tagalog 1, drawers 1-5
    assert dataset.gallery.counts() == (3, 45, 15)
    assert set(dataset.query.ids) == set(dataset.gallery.ids)
    assert not set(dataset.query.ids) & set(dataset.train.ids)
    assert set(dataset.query.cams) == set(range(5))
    assert set(dataset.gallery.cams) == set(range(5, 20))


def test_images_are_read_from_the_archive(archives: Path) -> None:
    dataset = load_dataset("omniglot", archives)
    store = open_images(dataset.query.paths, (105, 105), workers=4)
    assert store.images is not None
    assert set(store.images.unique().tolist()) == {0, 255}
    first = np.random.default_rng(0).integers(0, 2, (105, 105)) * 255  # Balinese, character01, drawer 1
    assert dataset.query.paths[0].name == "0801_01.png"
    assert np.array_equal(store.images[0, 0].numpy(), first)


def test_extracted_folders_equal_archives(archives: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    extracted = tmp_path_factory.mktemp("extracted") / "omniglot"
    for archive in archives.glob("*.zip"):
        zipfile.ZipFile(archive).extractall(extracted)
    from_archives, from_folders = load_dataset("omniglot", archives), load_dataset("omniglot", extracted.parent)
    for role in ("train", "query", "gallery"):
        one, other = getattr(from_archives, role), getattr(from_folders, role)
        assert one.ids.tolist() == other.ids.tolist()
        assert one.cams.tolist() == other.cams.tolist()
        assert [path.name for path in one.paths] == [path.name for path in other.paths]
    assert all(path.is_file() for path in from_folders.train.paths)


def test_other_alphabets_can_be_held_out(archives: Path, tmp_path: Path) -> None:
    assert load_dataset("omniglot", archives, test_alphabets=["Greek"]).query.counts() == (3, 15, 5)
    for wrong in (["Klingon"], [*SMALL1, *SMALL2]):
        with pytest.raises(DatasetError, match=r"test_alphabets .* must be some, not all, of the alphabets"):
            load_dataset("omniglot", tmp_path, test_alphabets=wrong)


def test_damaged_archive_is_named(archives: Path) -> None:
    broken = archives / "images_background_small2.zip"
    broken.write_bytes(broken.read_bytes()[:1000])
    with pytest.raises(DatasetError, match=r"archive .*small2\.zip cannot be read"):
        load_dataset("omniglot", archives)


@pytest.mark.parametrize("prefix", ["/abs/", "C:\\data\\", ".\\", "//server/share/"])
def test_names_from_other_archivers_are_the_members_themselves(
    archives: Path, tmp_path_factory: pytest.TempPathFactory, prefix: str
) -> None:
    """A file outside that has the name of an absolute member is not read."""
    root = tmp_path_factory.mktemp("windows")
    for archive in archives.glob("*.zip"):
        with zipfile.ZipFile(archive) as source, zipfile.ZipFile(root / archive.name, "w") as target:
            for info in source.infolist():
                target.writestr(prefix + info.filename.replace("/", prefix[-1]), source.read(info))
    usual, read = load_dataset("omniglot", archives), load_dataset("omniglot", root)
    assert read.query.ids.tolist() == usual.query.ids.tolist()
    assert len(read.train) == len(usual.train)
    size = (20, 20)
    assert open_images(read.query.paths, size).batch([0, 7]).equal(open_images(usual.query.paths, size).batch([0, 7]))
    assert len(sign(root, read.query.paths, None, World(0, 1, torch.device("cpu")), 1).unique(dim=0)) == 15


@pytest.mark.parametrize("name", ["../Greek/character01/0001_01.png", "a/..\\..\\Greek\\character01\\0001_01.png"])
def test_members_that_lead_out_of_the_archive_are_refused(archives: Path, name: str) -> None:
    with zipfile.ZipFile(archives / "images_background_small2.zip", "a") as opened:
        opened.writestr(name, b"")
    with pytest.raises(DatasetError, match=r"omniglot: archive .*small2\.zip cannot be read: its member .* leads out"):
        load_dataset("omniglot", archives)


def test_a_folder_called_like_an_archive_and_capital_suffixes(
    archives: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("unpacked")
    first, second = sorted(archives.glob("*.zip"))
    zipfile.ZipFile(first).extractall(root / first.name)
    (root / "small2.ZIP").write_bytes(second.read_bytes())
    for path in list(root.rglob("*_01.png")):
        path.rename(path.with_suffix(".PNG"))
    usual, read = load_dataset("omniglot", archives), load_dataset("omniglot", root)
    assert [len(getattr(read, role)) for role in ("train", "query", "gallery")] == [
        len(getattr(usual, role)) for role in ("train", "query", "gallery")
    ]
    assert len(open_images(read.query.paths, (20, 20))) == len(read.query)


@pytest.mark.parametrize("drawer", ["00", "0", "99999999999999999999"])
def test_a_drawer_that_is_no_camera_is_named(archives: Path, drawer: str) -> None:
    with zipfile.ZipFile(archives / "images_background_small2.zip", "a") as opened:
        opened.writestr(f"x/Greek/character01/0001_{drawer}.png", b"")
    with pytest.raises(DatasetError, match=rf"0001_{drawer}\.png: expected a drawer from 1 on, got {drawer}"):
        load_dataset("omniglot", archives)
