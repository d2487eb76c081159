"""Small text files that people hand over: lists and label tables, in whatever encoding an editor left them."""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from pathlib import Path

from .base import DatasetError

MARKS = (  # UTF-32 first: its mark begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
    (codecs.BOM_UTF8, "utf-8-sig"),
)
WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")  # .xlsx, .ods; .xls
END_OF_FILE = "\x1a"  # Ctrl-Z, with which programs of DOS end a text


@dataclass(frozen=True)
class Text:
    """A decoded file; `guessed` names the encoding where only a guess was possible."""

    content: str
    guessed: str | None = None

    @property
    def hint(self) -> str:
        """For a message about content that makes no sense: perhaps the guess was wrong."""
        return f" (it is not UTF-8 and was read as {self.guessed}: save it as UTF-8)" if self.guessed else ""


def read_text(file: Path) -> Text:
    """The text of a file in UTF-8, UTF-16 or UTF-32, with or without byte order mark, else in Windows-1252.

    Raises:
        DatasetError: it is a spreadsheet's own format, or no text; the file is named.
    """
    raw = file.read_bytes()
    if raw.startswith(WORKBOOKS):
        raise DatasetError(f"{file} is a workbook, not text; save it as CSV (UTF-8)")
    encoding = next((name for mark, name in MARKS if raw.startswith(mark)), None) or _unmarked(raw)
    try:
        content = raw.decode(encoding or "utf-8")
        guessed = None
    except UnicodeDecodeError as error:
        if encoding is not None:
            raise DatasetError(f"{file} is no {encoding.upper()} text: {error.reason}; save it as UTF-8") from None
        try:
            content, guessed = raw.decode("cp1252"), "Windows-1252"
        except UnicodeDecodeError:
            raise DatasetError(f"{file} is neither UTF-8 nor Windows-1252 text; save it as UTF-8") from None
    content = content.rstrip(END_OF_FILE)
    if "\0" in content:
        raise DatasetError(f"{file} is no text; save it as UTF-8")
    return Text(content, guessed)


def _unmarked(raw: bytes) -> str | None:
    """UTF-16 without a mark: in names and numbers every other byte is zero."""
    even, odd = raw[::2].count(0), raw[1::2].count(0)
    if max(even, odd) < len(raw) // 4 or min(even, odd):
        return None
    return None if not even and not odd else ("utf-16-be" if even else "utf-16-le")
