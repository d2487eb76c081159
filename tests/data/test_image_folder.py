"""Own images: with and without identities and cameras."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from ise_fast.data import DatasetError, load_dataset

WriteImages = Callable[[Path, Iterable[str]], None]


def test_images_without_labels_are_for_training(tmp_path: Path, write_images: WriteImages) -> None:
    write_images(tmp_path, ["b.png", "a.jpg", "holiday/c.JPEG", ".trash/d.jpg", "holiday/._c.JPEG"])
    (tmp_path / "notes.txt").write_text("")
    dataset = load_dataset("folder", tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in dataset.train.paths] == [
        "a.jpg",
        "b.png",
        "holiday/c.JPEG",
    ]
    assert dataset.train.ids is None
    assert dataset.train.cams is None
    assert not dataset.can_evaluate
    assert dataset.training_images.cams is None
    assert "-" in dataset.table()


def test_pattern_gives_identities_and_cameras_and_folders_give_roles(tmp_path: Path, write_images: WriteImages) -> None:
    write_images(
        tmp_path, ["train/cow12_barn.jpg", "train/cow2_gate.jpg", "query/cow2_barn.jpg", "gallery/cow2_gate.jpg"]
    )
    dataset = load_dataset("folder", tmp_path, pattern=r"cow(?P<id>\d+)_(?P<camera>\w+)\.", image_size=(64, 64))
    assert dataset.train.ids.tolist() == [1, 0]  # 2 before 12: by size
    assert dataset.train.cams.tolist() == [0, 1]
    assert dataset.query.ids.tolist() == dataset.gallery.ids.tolist() == [0]
    assert dataset.query.cams.tolist() == [0]
    assert dataset.can_evaluate
    assert dataset.image_size == (64, 64)


def test_only_the_test_images_have_identities(tmp_path: Path, write_images: WriteImages) -> None:
    write_images(
        tmp_path, ["train/gate/1.jpg", "query/gate/cow2_1.jpg", "gallery/barn/cow2_2.jpg", "gallery/barn/cow3_3.jpg"]
    )
    dataset = load_dataset("folder", tmp_path, pattern=r"/(?P<camera>\w+)/(cow(?P<id>\d+)_)?")
    assert dataset.train.ids is None
    assert dataset.train.cams.tolist() == [1]
    assert (dataset.query.ids.tolist(), dataset.gallery.ids.tolist()) == ([0], [0, 1])
    assert dataset.can_evaluate


def test_pattern_with_identity_only(tmp_path: Path, write_images: WriteImages) -> None:
    write_images(tmp_path, ["anna/1.jpg", "anna/2.jpg", "bert/1.jpg"])
    dataset = load_dataset("folder", tmp_path, pattern=r"^(?P<id>[^/]+)/")
    assert dataset.train.ids.tolist() == [0, 0, 1]
    assert dataset.train.cams is None


def test_table_lists_images(tmp_path: Path, write_images: WriteImages) -> None:
    write_images(tmp_path / "pictures", ["1.jpg", "2.jpg", "3.jpg", "unlisted.jpg"])
    table = tmp_path / "list.csv"
    table.write_text("path,id,camera,split\n1.jpg,x,north,train\n2.jpg,y,south,query\n3.jpg,y,north,gallery\n")
    dataset = load_dataset("folder", tmp_path / "pictures", csv=table)
    assert [path.name for path in dataset.train.paths] == ["1.jpg"]
    assert (dataset.query.ids.tolist(), dataset.query.cams.tolist()) == ([1], [1])
    assert (dataset.gallery.ids.tolist(), dataset.gallery.cams.tolist()) == ([1], [0])
    table.write_text("path\n2.jpg\n1.jpg\n")
    dataset = load_dataset("folder", tmp_path / "pictures", csv=table)
    assert [path.name for path in dataset.train.paths] == ["2.jpg", "1.jpg"]
    assert dataset.train.ids is None


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("file,id\n1.jpg,x\n", "expected a header with a column path, got file, id"),
        ("path,id\n1.jpg,x\n9.jpg,x\n", r"line 3: .*9\.jpg does not exist"),
        ("path,split\n1.jpg,test\n", "line 2: split: expected train, query, gallery, got 'test'"),
        ("path,id\n1.jpg,x\n2.jpg,\n", "1 of 2 train images have no identity"),
        ("path\n", "lists no image"),
        ("", "got nothing"),
    ],
)
def test_wrong_tables_are_explained(tmp_path: Path, write_images: WriteImages, table: str, message: str) -> None:
    write_images(tmp_path, ["1.jpg", "2.jpg"])
    (tmp_path / "list.csv").write_text(table)
    with pytest.raises(DatasetError, match=message):
        load_dataset("folder", tmp_path, csv="list.csv")


def test_wrong_options_are_explained(tmp_path: Path, write_images: WriteImages) -> None:
    write_images(tmp_path, ["1.jpg", "x.jpg"])
    for options, message in (
        ({"pattern": r"(?P<id>\d+)"}, r"x\.jpg is not explained by pattern"),
        ({"pattern": r"(\d+)"}, r"groups named \(\?P<id>"),
        ({"pattern": "("}, "a regular expression"),
        ({"pattern": "x", "csv": "y"}, "expected one of them, got both"),
        ({"csv": "missing.csv"}, r"missing\.csv does not exist"),
    ):
        with pytest.raises(DatasetError, match=message):
            load_dataset("folder", tmp_path, **options)
