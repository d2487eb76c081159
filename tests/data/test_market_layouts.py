"""Loaders of the market1501 family and MSMT17 on tiny copies with the real file-name grammar."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest

from ise_fast.data import DatasetError, DatasetWarning, UnlabelledSplit, load_dataset

WriteImages = Callable[[Path, Iterable[str]], None]
pytestmark = pytest.mark.filterwarnings("ignore::ise_fast.data.DatasetWarning")  # the copies are tiny

MARKET = {
    "bounding_box_train": ["0002_c1s1_000451_03.jpg", "0002_c6s1_000551_01.jpg", "0007_c3s3_077419_03.jpg"],
    "query": ["0001_c1s1_001051_00.jpg", "0003_c5s2_081521_00.jpg"],
    "bounding_box_test": [
        "-1_c1s1_000401_03.jpg",
        "0000_c1s1_000151_01.jpg",
        "0001_c2s1_001076_02.jpg",
        "0003_c1s6_015971_05.jpg",
    ],
}


def write_market(write_images: WriteImages, root: Path) -> None:
    for folder, names in MARKET.items():
        write_images(root / folder, names)
    (root / "query" / "Thumbs.db").write_bytes(b"")
    (root / "query" / "._0001_c1s1_001051_00.jpg").write_bytes(b"")


@pytest.mark.parametrize("place", ["market1501/Market-1501-v15.09.15", "Market-1501-v15.09.15", "market1501", "."])
def test_market1501_is_found_from_the_data_root_or_inside(
    tmp_path: Path, write_images: WriteImages, place: str
) -> None:
    write_market(write_images, tmp_path / place)
    dataset = load_dataset("market1501", tmp_path)
    assert dataset.root == tmp_path / place
    assert dataset.train.ids.tolist() == [2, 2, 7]
    assert dataset.train.cams.tolist() == [0, 5, 2]
    assert dataset.query.ids.tolist() == [1, 3]
    assert dataset.query.cams.tolist() == [0, 4]
    assert dataset.gallery.ids.tolist() == [0, 1, 3]  # junk dropped, the distractor kept
    assert [path.name for path in dataset.gallery.paths] == MARKET["bounding_box_test"][1:]
    assert dataset.image_size == (256, 128)


def test_training_images_hold_no_identities(tmp_path: Path, write_images: WriteImages) -> None:
    write_market(write_images, tmp_path)
    images = load_dataset("market1501", tmp_path).training_images
    assert isinstance(images, UnlabelledSplit)
    assert set(vars(images)) == {"paths", "cams", "tracklets", "views", "frames"}
    assert len(images) == 3


def test_frames_of_market1501(tmp_path: Path, write_images: WriteImages) -> None:
    write_market(write_images, tmp_path)
    names = ["0009_c2s3_000451_03.jpg", "0010_c2s12_123456_00.jpg", "0011_c1_000451_01.jpg", "0012_c1s1_9999999999.jpg"]
    write_images(tmp_path / "bounding_box_train", names)
    images = load_dataset("market1501", tmp_path).training_images
    frames = dict(zip((path.name for path in images.paths), images.frames.tolist(), strict=True))
    assert [frames[name] for name in names] == [3_000_000_451, 12_000_123_456, -1, -1]
    kept = images.take([1, 0])
    assert kept.frames.tolist() == images.frames[[1, 0]].tolist()


def test_frames_that_no_name_tells(tmp_path: Path, write_images: WriteImages) -> None:
    for folder in ("bounding_box_train", "query", "bounding_box_test"):
        write_images(tmp_path / folder, ["0009_c2_451.jpg"])
    assert load_dataset("market1501", tmp_path).training_images.frames is None


def test_table_shows_identities_images_and_cameras(tmp_path: Path, write_images: WriteImages) -> None:
    write_market(write_images, tmp_path)
    table = load_dataset("market1501", tmp_path).table()
    assert re.search(r"train +\| +2 \| +3 \| +3", table)
    assert re.search(r"gallery +\| +3 \| +3 \| +2", table)


@pytest.mark.filterwarnings("always::ise_fast.data.DatasetWarning")
def test_other_counts_than_published_give_one_warning(tmp_path: Path, write_images: WriteImages) -> None:
    write_market(write_images, tmp_path)
    with pytest.warns(DatasetWarning, match="train has 3 images, not 12936.*gallery has 3 images, not 15913") as caught:
        load_dataset("market1501", tmp_path)
    assert len(caught) == 1


def test_personx_maps_its_six_cameras(tmp_path: Path, write_images: WriteImages) -> None:
    root = tmp_path / "personx" / "PersonX"
    write_images(root / "bounding_box_train", [f"0001_c{camera}_{camera}.jpg" for camera in (3, 4, 8, 10, 11, 12)])
    write_images(root / "query", ["0002_c10_1.jpg"])
    write_images(root / "bounding_box_test", ["0002_c3_1.jpg"])
    dataset = load_dataset("personx", tmp_path)
    by_name = dict(zip((path.name for path in dataset.train.paths), dataset.train.cams.tolist(), strict=True))
    assert [by_name[f"0001_c{camera}_{camera}.jpg"] for camera in (3, 4, 8, 10, 11, 12)] == [0, 1, 2, 3, 4, 5]


def test_veri776_has_its_own_folders_and_size(tmp_path: Path, write_images: WriteImages) -> None:
    root = tmp_path / "veri" / "VeRi"
    write_images(root / "image_train", ["0001_c001_00016450_0.jpg", "0001_c020_00016460_0.jpg"])
    write_images(root / "image_query", ["0002_c002_00030600_0.jpg"])
    write_images(root / "image_test", ["0002_c003_00030640_1.jpg"])
    dataset = load_dataset("veri776", tmp_path)
    assert dataset.train.cams.tolist() == [0, 19]
    assert dataset.image_size == (224, 224)


def test_msmt17_repacked(tmp_path: Path, write_images: WriteImages) -> None:
    root = tmp_path / "msmt17" / "MSMT17_V1"
    write_images(root / "bounding_box_train", ["0000_c14_0030.jpg", "0001_c1_0007.jpg"])
    write_images(root / "query", ["0000_c15_0002.jpg"])
    write_images(root / "bounding_box_test", ["0000_c2_0001.jpg"])
    dataset = load_dataset("msmt17", tmp_path)
    assert (dataset.train.ids.tolist(), dataset.train.cams.tolist()) == ([0, 1], [13, 0])


@pytest.mark.parametrize(
    ("place", "train", "test"),
    [
        ("MSMT17_V1", "train", "test"),
        ("msmt17/MSMT17_V2", "mask_train_v2", "mask_test_v2"),
        (".", "mask_train_v2", "mask_test_v2"),
    ],
)
def test_msmt17_native_train_is_train_and_val(
    tmp_path: Path, write_images: WriteImages, place: str, train: str, test: str
) -> None:
    root = tmp_path / place
    lists = {
        "list_train.txt": (train, ["0000/0000_000_01_0303morning_0015_0.jpg 0"]),
        "list_val.txt": (train, ["0001/0001_004_15_0303noon_0044_1.jpg 1"]),
        "list_query.txt": (test, ["0000/0000_002_07_0303afternoon_0027_0.jpg 0"]),
        "list_gallery.txt": (test, ["0000/0000_003_11_0303morning_0009_2.jpg 0", ""]),
    }
    for name, (folder, lines) in lists.items():
        write_images(root / folder, [line.split()[0] for line in lines if line])
        (root / name).write_text("\n".join(lines))
    dataset = load_dataset("msmt17", tmp_path)
    assert (dataset.train.ids.tolist(), dataset.train.cams.tolist()) == ([0, 1], [0, 14])
    assert dataset.query.cams.tolist() == [6]
    assert all(path.is_file() for split in (dataset.train, dataset.query, dataset.gallery) for path in split.paths)

    (root / "list_val.txt").write_text("0001/0001_004_15_0303noon_0044_1.jpg\n")
    with pytest.raises(DatasetError, match=r"list_val\.txt, line 1: expected a line like"):
        load_dataset("msmt17", tmp_path)


NAMES = ("market1501", "msmt17", "personx", "veri776", "omniglot", "folder")


@pytest.mark.parametrize("name", NAMES)
def test_missing_empty_and_odd_folders_are_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(DatasetError, match=r"nowhere does not exist.*--data-dir"):
        load_dataset(name, tmp_path / "nowhere")
    with pytest.raises(DatasetError, match="is empty"):
        load_dataset(name, tmp_path)
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(DatasetError, match=r"notes\.txt") as caught:
        load_dataset(name, tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(DatasetError, match="not a folder"):
        load_dataset(name, tmp_path / "notes.txt")


def test_incomplete_and_misnamed_data_sets_are_errors(tmp_path: Path, write_images: WriteImages) -> None:
    write_market(write_images, tmp_path)
    write_images(tmp_path / "query", ["0001_c9s1_000001_00.jpg"])
    with pytest.raises(DatasetError, match=r"0001_c9s1_000001_00\.jpg: camera 9 is not one of 1, 2, 3, 4, 5, 6"):
        load_dataset("market1501", tmp_path)
    (tmp_path / "query" / "0001_c9s1_000001_00.jpg").rename(tmp_path / "query" / "holiday.jpg")
    with pytest.raises(DatasetError, match=r"holiday\.jpg: expected a file name like"):
        load_dataset("market1501", tmp_path)
    for path in (tmp_path / "query").iterdir():
        path.unlink()
    with pytest.raises(DatasetError, match="query holds no usable image"):
        load_dataset("market1501", tmp_path)
    (tmp_path / "query").rmdir()
    with pytest.raises(DatasetError, match="query is missing"):
        load_dataset("market1501", tmp_path)


@pytest.mark.parametrize("camera", ["10", "12", "61", "0", "010", "9223372036854775809"])
def test_a_camera_of_several_digits_is_not_its_first(tmp_path: Path, write_images: WriteImages, camera: str) -> None:
    write_market(write_images, tmp_path)
    write_images(tmp_path / "query", [f"0001_c{camera}s1_000001_00.jpg"])
    with pytest.raises(DatasetError, match=rf"0001_c{camera}s1_000001_00\.jpg: .*--dataset folder") as caught:
        load_dataset("market1501", tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["market1501", "msmt17", "personx", "veri776"])
@pytest.mark.parametrize(
    "identity", ["2019-07-01", "0001-2", "--1", "-", "9223372036854775808", "-9223372036854775809", "9" * 200]
)
def test_an_identity_that_is_no_number_is_named(
    tmp_path: Path, write_images: WriteImages, name: str, identity: str
) -> None:
    folders = ("image_train", "image_query", "image_test") if name == "veri776" else tuple(MARKET)
    for folder in folders:
        write_images(tmp_path / folder, [f"{identity}_c3s1_0.jpg"])
    with pytest.raises(DatasetError, match=rf"_train/{identity}_c3s1_0\.jpg: expected .*numbers") as caught:
        load_dataset(name, tmp_path)
    assert "\n" not in str(caught.value)


def test_identities_of_64_bits_are_themselves(tmp_path: Path, write_images: WriteImages) -> None:
    write_market(write_images, tmp_path)
    write_images(tmp_path / "query", [f"{2**63 - 1}_c1_0.jpg", f"-{2**63}_c1_0.jpg", "-0001_c1_0.jpg", "-2_c1_0.jpg"])
    ids = load_dataset("market1501", tmp_path).query.ids.tolist()
    assert sorted(ids) == [-(2**63), -2, 1, 3, 2**63 - 1]


def write_msmt(root: Path, write_images: WriteImages, lines: str, encoding: str = "utf-8") -> None:
    name = "0000/0000_000_01_0303morning_0015_0.jpg"
    write_images(root / "train", [name, "0001/0001_004_15_0303noon_0044_1.jpg"])
    write_images(root / "test", [name])
    for part in ("train", "val", "query", "gallery"):
        (root / f"list_{part}.txt").write_bytes(f"{name} 0\n".encode())
    (root / "list_train.txt").write_bytes(lines.encode(encoding))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\r\n\x1a"])
@pytest.mark.parametrize("slash", ["/", "\\"])
@pytest.mark.parametrize("gap", [" ", "\t"])
def test_msmt17_lists_from_any_editor(
    tmp_path: Path, write_images: WriteImages, encoding: str, end: str, slash: str, gap: str
) -> None:
    last = end.replace("\x1a", "")
    lines = f"0000/0000_000_01_0303morning_0015_0.jpg 0{last}0001/0001_004_15_0303noon_0044_1.jpg 1{end}"
    write_msmt(tmp_path, write_images, lines.replace("/", slash).replace(" ", gap), encoding)
    dataset = load_dataset("msmt17", tmp_path)
    assert (dataset.train.ids.tolist(), dataset.train.cams.tolist()) == ([0, 1], [0, 14])  # the list of val repeats one
    assert all(path.is_file() for path in dataset.train.paths)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("/etc/0_0_01_x.jpg 0", "line 2: expected a line like"),
        ("../test/0_0_01_x.jpg 0", "line 2: expected a line like"),
        ("0000/0000_000_01_x.jpg 9223372036854775808", "line 2: expected a line like"),
        ("0000/0000_000_16_x.jpg 0", "line 2: expected a line like"),
        ("0000/0000_000_01_0303morning_0015_0.jpg 5", "is identity 0 and 5"),
    ],
)
def test_msmt17_lists_that_make_no_sense(tmp_path: Path, write_images: WriteImages, line: str, message: str) -> None:
    write_msmt(tmp_path, write_images, f"0000/0000_000_01_0303morning_0015_0.jpg 0\n{line}\n")
    with pytest.raises(DatasetError, match=message):
        load_dataset("msmt17", tmp_path)


@pytest.mark.filterwarnings("always::ise_fast.data.DatasetWarning")
def test_msmt17_lists_that_repeat_an_image(tmp_path: Path, write_images: WriteImages) -> None:
    write_msmt(tmp_path, write_images, "0001/0001_004_15_0303noon_0044_1.jpg 1\n" * 3)
    with pytest.warns(DatasetWarning, match="2 of 4 images are listed twice"):
        assert len(load_dataset("msmt17", tmp_path).train) == 2


def test_unknown_names_and_options_list_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"expected one of market1501, .*got 'dukemtmc'"):
        load_dataset("dukemtmc", tmp_path)
    with pytest.raises(DatasetError, match="folder: unknown option patern; expected pattern, csv, image_size"):
        load_dataset("folder", tmp_path, patern="x")


def test_take_keeps_splits_aligned(tmp_path: Path, write_images: WriteImages) -> None:
    write_market(write_images, tmp_path)
    dataset = load_dataset("market1501", tmp_path).take(train=np.array([2, 0]))
    assert dataset.train.ids.tolist() == [7, 2]
    assert [path.name for path in dataset.train.paths] == [MARKET["bounding_box_train"][i] for i in (2, 0)]
    assert len(dataset.gallery) == 3
