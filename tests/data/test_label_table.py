"""Label tables as people, spreadsheets and scripts write them: read rightly, or refused with file and line."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from ise_fast.data import DatasetError, DatasetWarning, ReIDDataset, load_dataset

WriteImages = Callable[[Path, Iterable[str]], None]
ROWS = ["1.jpg,anna,1,train", "2.jpg,bert,1,train", "3.jpg,anna,1,query", "4.jpg,anna,2,gallery"]


@pytest.fixture(autouse=True)
def images(tmp_path: Path, write_images: WriteImages) -> None:
    write_images(tmp_path, ["1.jpg", "2.jpg", "3.jpg", "4.jpg"])


def read(root: Path, content: str | bytes) -> ReIDDataset:
    table = root / "t.csv"
    table.write_bytes(content.encode() if isinstance(content, str) else content)
    return load_dataset("folder", root, csv=table)


def check(dataset: ReIDDataset) -> None:
    assert [path.name for path in dataset.train.paths] == ["1.jpg", "2.jpg"]
    assert (dataset.train.ids.tolist(), dataset.train.cams.tolist()) == ([0, 1], [0, 0])
    assert ([p.name for p in dataset.query.paths], dataset.query.ids.tolist()) == (["3.jpg"], [0])
    assert ([p.name for p in dataset.gallery.paths], dataset.gallery.cams.tolist()) == (["4.jpg"], [1])


@pytest.mark.parametrize(
    "header",
    ["path,id,camera,split", "path, id, camera, split", "Path,ID,Camera,Split", " PATH ,Id , camera, SPLIT ",
     '"path","id","camera","split"', "image_path,pid,camid,subset", "Image Path,Person ID,Cam-ID,Role"],
)  # fmt: skip
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_headers_and_delimiters(tmp_path: Path, header: str, delimiter: str) -> None:
    text = "\n".join([header, *ROWS]).replace(",", delimiter)
    check(read(tmp_path, text))
    check(read(tmp_path, text.replace(delimiter, delimiter + " ") + "\n\n"))


def test_blanks_as_delimiter_and_the_line_for_excel(tmp_path: Path) -> None:
    check(read(tmp_path, "\n".join(["path id camera split", *ROWS]).replace(",", " ")))
    check(read(tmp_path, "sep=;\r\n" + "\r\n".join(["path;id;camera;split", *ROWS]).replace(",", ";")))
    with pytest.raises(DatasetError, match="line 7: expected 4 fields"):
        read(tmp_path, "sep=;\n" + "\n".join(["path;id;camera;split", *ROWS, "1.jpg"]).replace(",", ";"))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252", "latin-1"]
)
def test_encodings_and_ends_of_lines(tmp_path: Path, write_images: WriteImages, encoding: str, end: str) -> None:
    write_images(tmp_path, ["jörg.jpg"])
    text = end.join(["path,id,camera,split", *ROWS, "jörg.jpg,jörg,1,train"]) + end
    dataset = read(tmp_path, text.encode(encoding))
    assert [path.name for path in dataset.train.paths] == ["1.jpg", "2.jpg", "jörg.jpg"]
    assert dataset.train.ids.tolist() == [0, 1, 2]
    assert dataset.can_evaluate


def test_tables_of_other_old_encodings_are_refused(tmp_path: Path, write_images: WriteImages) -> None:
    write_images(tmp_path, ["анна.jpg", "名前.jpg"])
    for name, encoding in (("анна.jpg", "cp1251"), ("名前.jpg", "gb2312"), ("名前.jpg", "shift-jis")):
        with pytest.raises(DatasetError, match=r"t\.csv.*UTF-8"):
            read(tmp_path, f"path,id\n{name},1\n".encode(encoding))


def test_names_in_the_bytes_of_the_table(tmp_path: Path) -> None:
    old = os.fsencode(tmp_path) + b"/M\xfcller.jpg"
    os.rename(tmp_path / "1.jpg", old)
    assert os.fsencode(read(tmp_path, b"path,id\nM\xfcller.jpg,1\n").train.paths[0]) == old


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_names_in_the_other_unicode_form(tmp_path: Path, write_images: WriteImages, form: str) -> None:
    write_images(tmp_path, [unicodedata.normalize("NFD" if form == "NFC" else "NFC", "jörg.jpg")])
    assert len(read(tmp_path, unicodedata.normalize(form, "path,id\njörg.jpg,1\n")).train) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04" + bytes(40), r"t\.csv is a workbook, not text; save it as CSV"),
        (b"\xd0\xcf\x11\xe0" + bytes(40), r"t\.csv is a workbook"),
        (b"path,id\n1.jpg,1\0\n2.jpg,2\n", r"t\.csv is no text"),
        (b"\xff\xfep\0a", r"t\.csv is no UTF-16 text"),
        (b"path,id\n1.jpg,\x81\n", "neither UTF-8 nor Windows-1252"),
        ("path,id\n1.jpg,1\n2\n", r"t\.csv, line 3: expected 2 fields as in the header, got 1"),
        ("path,id,camera\n1.jpg,1,1\n\n2.jpg,1\n", r"t\.csv, line 4: expected 3 fields as in the header, got 2"),
        ("id,path\n1,1.jpg\n2,", r"t\.csv, line 3: an empty path does not exist"),
        ("path,id\n1.jpg,1\n2.jpg,2,3\n", r"t\.csv, line 3: expected 2 fields as in the header, got 3"),
        ('path,id\n1.jpg,1\n"2.jpg,2\n3.jpg,3\n', r"t\.csv, line 4: .*quotation mark"),
        ("path,id,number_pics\n1.jpg,1,3\n", "column 'number_pics' is not one of path, id, camera, split"),
        ("path,ident\n1.jpg,1\n", "column 'ident' is not one of"),
        ("path,id,pid\n1.jpg,1,2\n", "the header names the column id twice"),
        ("path,id,\n1.jpg,1,query\n", r"t\.csv, line 2: 'query' stands in a column without a name"),
        ("path,split\n1.jpg,test\n", "line 2: split: expected train, query, gallery, got 'test'"),
        ("path,split\n1.jpg,val\n", "line 2: split: expected train, query, gallery, got 'val'"),
        ("path,id\n.,1\n", "line 2: .* does not exist"),
        ("path,id\n1.jpg,1\n1.jpg,2\n", r"line 3: the image has another identity or camera in .*line 2"),
        ("path,view_of\n1.jpg,\n2.jpg,9.jpg\n", r"line 3: .*9\.jpg does not exist"),
        ("path,view_of\n1.jpg,\n2.jpg,3.jpg\n", r"line 3: view_of: .*3\.jpg is no training image of the table"),
        ("path,view_of,split\n1.jpg,,\n2.jpg,1.jpg,query\n", r"line 3: a view_of another image is for training, got"),
        ("path,id\n1.jpg,1.7E+18\n2.jpg,2\n", r"1\.7E\+18 is a number shortened by a spreadsheet"),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_refused_in_one_line(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(DatasetError, match=message) as caught:
        read(tmp_path, content)
    assert "\n" not in str(caught.value)
    assert "t.csv" in str(caught.value) or "spreadsheet" in str(caught.value)


def test_what_says_nothing_is_left_out(tmp_path: Path) -> None:
    lines = [f"{number},{row}" for number, row in enumerate(ROWS)]
    for index in ("", "Unnamed: 0"):  # row numbers of pandas
        check(read(tmp_path, "\n".join([f"{index},path,id,camera,split", *lines])))
    check(read(tmp_path, "\n".join(["path,id,camera,split,,", *(row + ",," for row in ROWS), ",,,,,"])))
    check(read(tmp_path, "\n".join(["path,id,camera,split", *(row + "," for row in ROWS)]) + "\n\x1a"))


def test_paths_of_windows(tmp_path: Path, write_images: WriteImages) -> None:
    write_images(tmp_path, ["a b/c.jpg"])
    assert [path.name for path in read(tmp_path, "path,id\na b\\c.jpg,1\n.\\1.jpg,2\n").train.paths] == [
        "c.jpg",
        "1.jpg",
    ]


@pytest.mark.parametrize(
    "roles", ["train,query,gallery", "Train,Query,Gallery", "TRAINING,probe,Galleries", "trainset,query set,image_test"]
)
def test_roles_in_other_spellings(tmp_path: Path, roles: str) -> None:
    train, query, gallery = roles.split(",")
    dataset = read(tmp_path, f"path,split\n1.jpg,{train}\n2.jpg,{query}\n3.jpg,{gallery}\n4.jpg,{train} \n")
    assert (len(dataset.train), len(dataset.query), len(dataset.gallery)) == (2, 1, 1)


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [("0007", "7", True), ("7", "7.0", True), ("007", "7.00", True), ("+7", "7", True), ("\uff17", "7", True),
     ("-1", "-01", True), ("1.5E+01", "15", True), ("9" * 30, "0" + "9" * 30, True), ("anna", " anna ", True),
     (unicodedata.normalize("NFC", "jörg"), unicodedata.normalize("NFD", "jörg"), True), ("7", "70", False),
     ("7", "-7", False), ("3.1", "3.10", False), ("1e5", "100000", False), ("anna", "Anna", False), ("7", "7a", False),
     ("0x7", "7", False), (str(2**63), str(2**63 + 1), False)],
)  # fmt: skip
@pytest.mark.parametrize("column", ["id", "camera"])
def test_one_number_and_one_name_have_one_spelling(
    tmp_path: Path, column: str, first: str, second: str, same: bool
) -> None:
    dataset = read(tmp_path, f"path;{column};split\n1.jpg;{first};query\n2.jpg;{second};gallery\n")
    values = [split.ids if column == "id" else split.cams for split in (dataset.query, dataset.gallery)]
    assert bool(values[0][0] == values[1][0]) is same


def test_missing_numbers_are_missing(tmp_path: Path) -> None:
    for word in ("nan", "NA", "None", ""):
        with pytest.raises(DatasetError, match="1 of 2 train images have no identity"):
            read(tmp_path, f"path,id\n1.jpg,7.0\n2.jpg,{word}\n")
    assert read(tmp_path, "path,id\n1.jpg,Nina\n2.jpg,None\n").train.ids.tolist() == [0, 1]  # names


def test_empty_columns_are_no_labels(tmp_path: Path) -> None:
    dataset = read(tmp_path, "path,id,camera,split\n1.jpg,,,\n2.jpg,,,\n")
    assert (len(dataset.train), dataset.train.ids, dataset.train.cams) == (2, None, None)


def test_rows_without_a_split_among_others_are_counted(tmp_path: Path) -> None:
    with pytest.warns(DatasetWarning, match="1 of 3 rows of .* have no split and are taken for training"):
        dataset = read(tmp_path, "path,id,split\n1.jpg,1,query\n2.jpg,1,gallery\n3.jpg,1,\n")
    assert len(dataset.train) == 1


def test_images_listed_twice(tmp_path: Path) -> None:
    with pytest.warns(DatasetWarning, match="2 of 4 images are listed twice"):
        dataset = read(tmp_path, "path,id\n1.jpg,1\n./1.jpg,1\n2.jpg,2\nx/../2.jpg,2\n".replace("x/../", "./"))
    assert [path.name for path in dataset.train.paths] == ["1.jpg", "2.jpg"]
    with pytest.warns(DatasetWarning, match="several roles .1 in query and gallery"):
        dataset = read(tmp_path, "path,id,split\n1.jpg,1,query\n1.jpg,1,gallery\n2.jpg,1,gallery\n")
    assert (len(dataset.query), len(dataset.gallery)) == (1, 2)


def test_a_folder_is_no_table(tmp_path: Path) -> None:
    (tmp_path / "t.csv").mkdir()
    with pytest.raises(DatasetError, match=r"table .*t\.csv is no file"):
        load_dataset("folder", tmp_path, csv=tmp_path / "t.csv")


def test_tracklets_and_further_views(tmp_path: Path) -> None:
    rows = ["path,id,camera,track_id,view_of", "1.jpg,1,1,5,", "3.jpg,,,,1.jpg", "2.jpg,2,1,05,", "4.jpg,1,2,5,"]
    train = read(tmp_path, "\n".join(rows)).train
    assert [path.name for path in train.paths] == ["1.jpg", "2.jpg", "4.jpg"]
    assert train.ids.tolist() == [0, 1, 0]  # of which the view needs none
    assert train.tracklets.tolist() == [0, 0, 1]  # a tracklet is of one camera; 5 and 05 are one number
    assert ([path.name for path in train.views.paths], train.views.of.tolist()) == (["3.jpg"], [0])
    kept = train.unlabelled.take([2, 0])
    assert (kept.tracklets.tolist(), kept.views.of.tolist()) == ([1, 0], [1])
    assert train.unlabelled.take([1]).views.paths == ()
    plain = read(tmp_path, "path,tracklet\n1.jpg,\n2.jpg,\n").train
    assert plain.tracklets is plain.views is None


def test_frames(tmp_path: Path) -> None:
    train = read(tmp_path, "path,camera,Frame ID\n1.jpg,1,0070\n2.jpg,1,\n4.jpg,2,8.0\n").train
    assert train.frames.tolist() == [70, -1, 8]
    assert train.unlabelled.take([2, 1]).frames.tolist() == [8, -1]
    assert read(tmp_path, "path,frame\n1.jpg,\n").train.frames is None
    for value in ("-1", "1.5", "first", "1" * 20):
        with pytest.raises(DatasetError, match=rf"t\.csv, line 3: frame: .* of at least 0, got '{value}'$"):
            read(tmp_path, f"path,frame\n1.jpg,1\n2.jpg,{value}\n")
