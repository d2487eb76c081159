"""The one reader of label tables: which image has which identity, camera and role.

Tables come from people, spreadsheets and scripts: encodings, delimiters and the spelling of headers differ, and rows
are cut off. What is not understood is refused with the file and the line; nothing is guessed about an image's role.
"""

from __future__ import annotations

import csv
import io
import os
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .base import ROLES, DatasetError
from .labels import canonical, int64, role_of, spelling
from .text import Text, read_text

COLUMNS = {
    "path": ("path", "paths", "file_path", "filepath", "image_path", "img_path"),
    "id": ("id", "ids", "pid", "identity", "identities", "person_id", "personid", "vehicle_id", "vehicleid"),
    "camera": ("camera", "cameras", "cam", "cams", "camid", "cam_id", "camera_id", "cameraid"),
    "split": ("split", "splits", "role", "roles", "subset", "partition"),
    "tracklet": ("tracklet", "tracklets", "track", "track_id", "trackid", "tracklet_id", "trackletid"),
    "view_of": ("view_of", "viewof"),
    "frame": ("frame", "frames", "frame_id", "frameid", "frame_number"),
}
NAMES = {name: column for column, names in COLUMNS.items() for name in names}
DELIMITERS = (",", ";", "\t", "|", " ")
INDEX = "unnamed:_0"  # how pandas reads back the row numbers that it writes first


@dataclass(frozen=True)
class Row:
    """A line of a table; what is not said is None."""

    line: int
    path: Path
    role: str | None
    identity: str | None
    camera: str | None
    tracklet: str | None = None
    view_of: Path | None = None
    frame: int | None = None


def read_table(root: Path, table: Path) -> list[Row]:
    """All rows of a table with a header and a column `path`, and any of the other COLUMNS.

    Args:
        root: what relative paths in the table start from.
        table: text in any usual encoding, with commas, semicolons, tabs, bars or blanks between the columns. A header
            may be written in capital letters, with blanks, or as `pid`, `camid` and the like.

    Raises:
        DatasetError: naming the table, and the line where there is one.
    """
    if not table.is_file():
        raise DatasetError(f"folder: table {table} {'is no file' if table.exists() else 'does not exist'}")
    try:
        text = read_text(table)
        rows = _Reader(root, table, text).rows()
    except DatasetError as error:
        raise DatasetError(f"folder: {error}") from None
    if not rows:
        raise DatasetError(f"folder: {table} lists no image")
    return rows


class _Reader:
    def __init__(self, root: Path, table: Path, text: Text) -> None:
        self._root, self._table, self._text = root, table, text

    def rows(self) -> list[Row]:
        lines = self._fields()
        header = next(lines, (0, []))[1]
        columns = self._columns(header)
        return [self._row(line, fields, columns) for line, fields in lines]

    def _fields(self) -> Iterator[tuple[int, list[str]]]:
        """(line, stripped fields) of every line that is not empty."""
        content, skipped = self._text.content, 0
        said = re.match(r'"?sep=(.)"?\r?\n', content, re.IGNORECASE)  # a line for Excel
        if said:
            content, skipped = content[said.end() :], 1
        header = next((line for line in content.splitlines() if line.strip()), "")
        delimiter = said[1] if said else _delimiter(header)
        reader = csv.reader(io.StringIO(content, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
        try:
            for fields in reader:
                if any(field.strip() for field in fields):
                    yield reader.line_num + skipped, [field.strip() for field in fields]
        except csv.Error as error:
            raise self._error(reader.line_num + skipped, f"{error}; is a quotation mark missing?") from None

    def _columns(self, header: list[str]) -> list[str | None]:
        """The column of each field, one of COLUMNS, or None for row numbers and a delimiter at the end."""
        found = [NAMES.get(spelling(name)) for name in header]
        if "path" not in found:
            told = ", ".join(header) or "nothing"
            raise DatasetError(f"{self._table}: expected a header with a column path, got {told}{self._text.hint}")
        for place, (name, column) in enumerate(zip(header, found, strict=True)):
            if column is None and not (name == "" or (place == 0 and spelling(name) == INDEX)):
                known = ", ".join(COLUMNS)
                raise DatasetError(
                    f"{self._table}: column {name!r} is not one of {known}; rename it or take it out of the table"
                )
            if column is not None and found.index(column) != place:
                raise DatasetError(f"{self._table}: the header names the column {column} twice: {', '.join(header)}")
        return found

    def _row(self, line: int, fields: list[str], columns: list[str | None]) -> Row:
        while len(fields) > len(columns) and not fields[-1]:
            fields = fields[:-1]  # delimiters at the end say nothing
        if len(fields) != len(columns):
            raise self._error(line, f"expected {len(columns)} fields as in the header, got {len(fields)}")
        for place, (field, column) in enumerate(zip(fields, columns, strict=True)):
            if field and column is None and place > 0:
                raise self._error(line, f"{field!r} stands in a column without a name")
        values = {column: field for field, column in zip(fields, columns, strict=True) if column is not None}
        role = role_of(values["split"]) if values.get("split") else None
        if values.get("split") and role is None:
            raise self._error(line, f"split: expected {', '.join(ROLES)}, got {values['split']!r}")
        path = self._existing(line, values["path"])
        original = self._existing(line, values["view_of"]) if values.get("view_of") else None
        identity, camera, tracklet = (values.get(name) or None for name in ("id", "camera", "tracklet"))
        frame = self._frame(line, values["frame"]) if values.get("frame") else None
        return Row(line, path, role, identity, camera, tracklet, original, frame)

    def _frame(self, line: int, text: str) -> int:
        try:
            frame = int64(canonical(text))
        except ValueError:
            frame = -1
        if frame < 0:
            raise self._error(line, f"frame: expected a whole number of at least 0, got {text!r}")
        return frame

    def _existing(self, line: int, name: str) -> Path:
        path = self._find(name)
        if path is None:
            wanted = self._root / name if name else "an empty path"
            raise self._error(line, f"{wanted} does not exist{self._text.hint}")
        return path

    def _find(self, name: str) -> Path | None:
        """The file of that name: as written, with the slashes of Windows, in the other Unicode form, in old bytes."""
        names = [name, name.replace("\\", "/")]
        names += [unicodedata.normalize(form, spelled) for form in ("NFC", "NFD") for spelled in names]
        if self._text.guessed:  # table and files come from the same old system
            names.append(os.fsdecode(name.replace("\\", "/").encode("cp1252")))
        candidates = (self._root / spelled for spelled in names if spelled)
        return next((path for path in candidates if path.is_file()), None)

    def _error(self, line: int, problem: str) -> DatasetError:
        return DatasetError(f"{self._table}, line {line}: {problem}")


def _delimiter(header: str) -> str:
    """The one that splits the header into the most columns that are known."""

    def known(delimiter: str) -> int:
        return len({NAMES.get(spelling(name)) for name in header.split(delimiter)} - {None})

    return max(DELIMITERS, key=known)
