"""Which files of a folder are images, and which role its folders give them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from PIL import Image

from ise_fast.data import DatasetError, DatasetWarning, find, load_dataset, open_images

WriteImages = Callable[[Path, Iterable[str]], None]
PATTERN = r"(?P<id>\d+)_c(?P<camera>\d+)"


def names(root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in load_dataset("folder", root).train.paths]


@pytest.fixture
def silent() -> Iterable[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


SUFFIXES = {
    "jpg": "JPEG", "JPEG": "JPEG", "jpe": "JPEG", "jfif": "JPEG", "mpo": "MPO", "png": "PNG", "apng": "PNG",
    "BMP": "BMP", "dib": "DIB", "tif": "TIFF", "TIFF": "TIFF", "gif": "GIF", "ppm": "PPM", "pgm": "PPM", "pnm": "PPM",
    "webp": "WEBP", "jp2": "JPEG2000", "tga": "TGA", "pcx": "PCX", "sgi": "SGI",
}  # fmt: skip


@pytest.mark.usefixtures("silent")
def test_every_suffix_that_pillow_reads(tmp_path: Path) -> None:
    for suffix, kind in SUFFIXES.items():
        Image.new("RGB", (4, 8), (10, 200, 30)).save(tmp_path / f"1.{suffix}", format=kind)
    found = load_dataset("folder", tmp_path).train.paths
    assert {path.suffix[1:] for path in found} == set(SUFFIXES)
    store = open_images(found, (8, 4))
    assert (store.batch(range(len(found))).float() - store.batch([0]).float()).abs().max() <= 4  # lossy formats


def test_images_under_other_suffixes_are_counted(tmp_path: Path, write_images: WriteImages) -> None:
    write_images(tmp_path, [f"{i}.jpg" for i in range(6)])
    for number, suffix in ((1, ".jpg_large"), (2, ".jpg~"), (3, ""), (4, "")):
        (tmp_path / f"{number}.jpg").rename(tmp_path / f"x{number}{suffix}")
    (tmp_path / "phone.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(20))
    for name in ("README", "a.txt", "Makefile", "b.nfo"):
        (tmp_path / name).write_text("no image")
    with pytest.warns(
        DatasetWarning, match=r"5 images are left out .*\.heic 1, \.jpg_large 1, \.jpg~ 1, none 2.*phone"
    ):
        assert names(tmp_path) == ["0.jpg", "5.jpg"]


@pytest.mark.usefixtures("silent")
@pytest.mark.parametrize("folder", ["a.jpg", "b.PNG", "people.zip", "c.tif/d.gif"])
def test_folders_are_folders(tmp_path: Path, write_images: WriteImages, folder: str) -> None:
    write_images(tmp_path / folder, ["1.jpg"])
    assert names(tmp_path) == [f"{folder}/1.jpg"]
    write_images(tmp_path, ["market/query/0001_c2_1.jpg", "market/bounding_box_test/0001_c1_1.jpg"])
    write_images(tmp_path / "market/bounding_box_train", ["0001_c1_1.jpg"])
    (tmp_path / "market/query/0001_c1.jpg").mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DatasetWarning)
        assert len(load_dataset("market1501", tmp_path / "market").query) == 1


@pytest.mark.usefixtures("silent")
def test_copies_that_systems_make_are_no_images(tmp_path: Path, write_images: WriteImages) -> None:
    write_images(
        tmp_path, ["1.jpg", "__MACOSX/._1.jpg", "__MACOSX/2.jpg", "@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg", ".x/1.jpg"]
    )
    assert names(tmp_path) == ["1.jpg"]


def test_pipes_and_broken_links_are_named_as_unreadable(tmp_path: Path, write_images: WriteImages) -> None:
    write_images(tmp_path, ["1.jpg"])
    os.mkfifo(tmp_path / "2.jpg")
    (tmp_path / "3.jpg").symlink_to("nowhere.jpg")
    (tmp_path / "4.jpg").symlink_to("4.jpg")
    paths = load_dataset("folder", tmp_path).train.paths
    with pytest.raises(DatasetError, match=r"2\.jpg cannot be read: expected a file, got a pipe"):
        open_images(paths, (8, 4))
    assert [path.name for path, _ in open_images(paths, (8, 4), on_error="skip").skipped] == ["2.jpg", "3.jpg", "4.jpg"]


@pytest.mark.usefixtures("silent")
def test_linked_folders_are_read_like_others(tmp_path: Path, write_images: WriteImages) -> None:
    write_images(tmp_path / "other", ["cam2/1.jpg", "cam2/deep/2.jpg", "q/0007_c1.jpg", "g/0007_c2.jpg"])
    write_images(tmp_path / "root", ["train/cam1/1.jpg"])
    root = tmp_path / "root"
    (root / "train/cam2").symlink_to(tmp_path / "other/cam2")
    (root / "query").symlink_to("../other/q", target_is_directory=True)
    (root / "gallery").symlink_to(tmp_path / "other/g", target_is_directory=True)
    assert names(root) == ["train/cam1/1.jpg", "train/cam2/1.jpg", "train/cam2/deep/2.jpg"]
    dataset = load_dataset("folder", root)
    assert (len(dataset.query), len(dataset.gallery)) == (1, 1)


@pytest.mark.usefixtures("silent")
def test_loops_of_links_end_and_every_image_comes_once(tmp_path: Path, write_images: WriteImages) -> None:
    write_images(tmp_path / "root", ["a/1.jpg", "a/b/2.jpg"])
    write_images(tmp_path / "other", ["3.jpg"])
    root = tmp_path / "root"
    (root / "a/up").symlink_to(root)
    (root / "a/b/self").symlink_to(".")
    (root / "out").symlink_to(tmp_path / "other")
    (tmp_path / "other/back").symlink_to(root)
    (tmp_path / "other/around").symlink_to(tmp_path / "other")
    assert names(root) == ["a/1.jpg", "a/b/2.jpg", "out/3.jpg"]


def test_a_second_link_to_a_folder_is_left_out_with_a_word(tmp_path: Path, write_images: WriteImages) -> None:
    write_images(tmp_path, ["a/1.jpg", "b/2.jpg"])
    (tmp_path / "0").symlink_to("a")  # sorts before its target, which is listed under its own name
    with pytest.warns(DatasetWarning, match=r"1 linked folders lead to images that are listed already.*/0"):
        assert names(tmp_path) == ["a/1.jpg", "b/2.jpg"]


def test_a_linked_file_beside_its_target_is_one_image(tmp_path: Path, write_images: WriteImages) -> None:
    write_images(tmp_path, ["train/a.jpg", "train/b.jpg", "pool/.hidden/c.jpg"])
    (tmp_path / "train/0.jpg").symlink_to("a.jpg")
    for name in ("d", "e"):  # a store of contents: two images that happen to be equal
        (tmp_path / f"train/{name}.jpg").symlink_to(tmp_path / "pool/.hidden/c.jpg")
    with pytest.warns(DatasetWarning, match="1 of 5 images are listed twice"):
        assert [name.split("/")[1] for name in names(tmp_path)] == ["0.jpg", "b.jpg", "d.jpg", "e.jpg"]
    (tmp_path / "train/0.jpg").unlink()
    (tmp_path / "query").mkdir()
    (tmp_path / "query/a.jpg").symlink_to("../train/a.jpg")
    with pytest.warns(DatasetWarning, match="several roles .1 in train and query"):
        load_dataset("folder", tmp_path)


@pytest.mark.parametrize(
    ("train", "query", "gallery"),
    [("Train", "Query", "Gallery"), ("TRAIN", "QUERY", "GALLERY"), ("training", "probe", "galleries"),
     ("set/train", "set/query", "set/gallery"), ("a/b/Train", "a/b/queries", "a/Gallery"),
     ("bounding_box_train", "query", "bounding_box_test"), ("image_train", "image_query", "image_test"),
     ("train set", "query-set", "Gallery.set"), ("cam1/train", "cam2/query", "cam2/gallery")],
)  # fmt: skip
def test_roles_in_other_spellings_and_places(
    tmp_path: Path, write_images: WriteImages, train: str, query: str, gallery: str
) -> None:
    write_images(tmp_path, [f"{train}/6_c1.jpg", f"{train}/x/8_c1.jpg", f"{query}/7_c1.jpg", f"{gallery}/7_c2.jpg"])
    with pytest.warns(DatasetWarning, match="taken for a role") as said:
        dataset = load_dataset("folder", tmp_path, pattern=PATTERN)
    assert (len(dataset.train), len(dataset.query), len(dataset.gallery)) == (2, 1, 1)
    assert f"{gallery} for gallery" in str(said[0].message)


@pytest.mark.parametrize(
    "folder",
    ["test", "Val", "validation", "galery", "set/Test", "Querry", "query1", "test images", "QueryImages", "val2017"],
)
def test_folders_that_may_be_meant_for_a_test_are_named(tmp_path: Path, write_images: WriteImages, folder: str) -> None:
    write_images(tmp_path, ["train/1.jpg", f"{folder}/2.jpg"])
    with pytest.warns(DatasetWarning, match=rf"the images in {folder.split('/')[-1]} below .* are taken for training"):
        assert len(load_dataset("folder", tmp_path).train) == 2


@pytest.mark.parametrize("there", ["query", "Gallery"])
def test_half_a_test_is_named(tmp_path: Path, write_images: WriteImages, there: str) -> None:
    write_images(tmp_path, ["train/1.jpg", f"{there}/2.jpg"])
    with pytest.warns(DatasetWarning, match=rf"1 {there.lower()} images but no"):
        load_dataset("folder", tmp_path)


@pytest.mark.usefixtures("silent")
def test_ordinary_folders_give_no_word(tmp_path: Path, write_images: WriteImages) -> None:
    write_images(tmp_path, ["train/anna/1.jpg", "train/cam1/2.jpg", "query/3.jpg", "gallery/4.jpg", "holiday/5.jpg"])
    assert len(load_dataset("folder", tmp_path).train) == 3


@pytest.mark.usefixtures("silent")
def test_pictures_of_a_training_run_are_no_images(tmp_path: Path, write_images: WriteImages) -> None:
    write_images(tmp_path, ["1.jpg", "logs/folder/curves.png", "logs/other/2.jpg", "people/checkpoints/3.jpg"])
    (tmp_path / "logs/folder/checkpoints").mkdir()
    for name in ("config.yaml", "environment.json"):
        (tmp_path / "logs/folder" / name).touch()
    assert names(tmp_path) == ["1.jpg", "logs/other/2.jpg", "people/checkpoints/3.jpg"]
    write_images(tmp_path / "logs/folder", ["4.jpg", "a/curves.png"])  # --logs-dir is --data-dir
    assert names(tmp_path / "logs/folder") == ["4.jpg", "a/curves.png"]


def test_an_identity_of_no_letters_is_none(tmp_path: Path, write_images: WriteImages) -> None:
    write_images(tmp_path, ["7_c1.jpg", "_c1.jpg"])
    with pytest.raises(DatasetError, match="1 of 2 train images have no identity"):
        load_dataset("folder", tmp_path, pattern=r"(?P<id>\d*)_c(?P<camera>\d*)")


def test_files_of_a_kind_for_every_image_cost_a_few_looks(
    tmp_path: Path, write_images: WriteImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path, ["1.jpg", "2.jpg"])
    for number in range(300):
        (tmp_path / f"{number}.feat").write_bytes(b"x")
    (tmp_path / "2.jpg").rename(tmp_path / "2.jpg_orig")
    looked = []
    real = find._holds_image
    monkeypatch.setattr(find, "_holds_image", lambda path: looked.append(path) or real(path))
    with pytest.warns(DatasetWarning, match=r"1 images are left out .*\.jpg_orig 1"):
        load_dataset("folder", tmp_path)
    assert len(looked) < 110
