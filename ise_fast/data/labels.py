"""What identities, cameras and roles are called: one spelling for each, whatever program wrote them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from decimal import Decimal

import numpy as np
from numpy.typing import NDArray

from .base import DatasetError

NUMBER = re.compile(r"[-+]?\d+(\.0*)?")  # 3.1 and 3.10 are rather names than numbers
SHORTENED = re.compile(r"[-+]?\d([.,]\d+)?[eE]\+\d+")  # 1.7E+18: how spreadsheets write long numbers
NO_VALUE = frozenset({"nan", "none", "null", "n/a", "na", "<na>", "#n/a"})
ROLE_NAMES = {
    "train": "train", "training": "train", "trainset": "train", "bounding_box_train": "train", "image_train": "train",
    "query": "query", "queries": "query", "queryset": "query", "probe": "query", "probes": "query",
    "image_query": "query", "gallery": "gallery", "galleries": "gallery", "galleryset": "gallery",
    "bounding_box_test": "gallery", "image_test": "gallery",
}  # fmt: skip
# Names that promise another use than training, without saying which.
TEST_NAMES = frozenset({"test", "testing", "testset", "val", "valid", "validation", "valset", "eval", "evaluation"})


def spelling(name: str) -> str:
    """A folder's or column's name in small letters, words joined by `_`."""
    return re.sub(r"[\s_.-]+", "_", unicodedata.normalize("NFC", name).strip().strip('"').lower()).strip("_")


def role_of(name: str) -> str | None:
    """train, query or gallery, if `name` is a spelling of one of them."""
    plain = spelling(name)
    return ROLE_NAMES.get(plain) or ROLE_NAMES.get(plain.removesuffix("_set"))


def canonical(value: str) -> str:
    """One spelling of an identity or a camera: 0007, 7 and 7.0 are one number; a name is one in any Unicode form.

    Raises:
        ValueError: for a number whose last digits a spreadsheet has dropped: different ones may have become equal.
    """
    text = unicodedata.normalize("NFC", value).strip()
    if SHORTENED.fullmatch(text):
        mantissa, exponent = re.split("[eE]", text.replace(",", "."))
        if int(exponent) > len(mantissa.partition(".")[2]):
            raise ValueError(f"{text} is a number shortened by a spreadsheet: write all of its digits, as text")
        text = format(Decimal(f"{mantissa}e{exponent}"), "f")
    if not NUMBER.fullmatch(text):
        return text
    digits = text.partition(".")[0]
    return str(int(digits)) if len(digits) < 1000 else digits  # Python converts no longer ones


def spelled_alike(values: Sequence[str | None]) -> list[str | None]:
    """Each value in its `canonical` spelling; among numbers, words such as `nan` are missing values.

    Raises:
        ValueError: as `canonical`.
    """
    spellings = {value: canonical(value) for value in values if value is not None}
    known = set(spellings.values())
    words = {value for value in known if not NUMBER.fullmatch(value)}
    if len(words) < len(known) and all(word.lower() in NO_VALUE for word in words):
        spellings = {value: text for value, text in spellings.items() if text not in words}
    return [None if value is None else spellings.get(value) for value in values]


def numbering(values: Iterable[str | None]) -> dict[str, int]:
    """A number from 0 for every canonical value, in sorted order (numbers by size, words by letter)."""
    known = {value for value in values if value is not None}
    numeric = all(NUMBER.fullmatch(value) for value in known)
    order = sorted(known, key=lambda value: (Decimal(value), value) if numeric else (Decimal(0), value))
    return {value: i for i, value in enumerate(order)}


def numbers(values: Sequence[str | None], known: dict[str, int], problem: str) -> NDArray[np.int64] | None:
    """The numbers of a split's values, or None if none of them is known."""
    missing = sum(value is None for value in values)
    if missing == len(values):
        return None
    if missing:
        raise DatasetError(f"folder: {missing} of {len(values)} {problem}; give all of them one or none")
    return np.array([known[value] for value in values if value is not None], dtype=np.int64)


def int64(text: str) -> int:
    """A whole number of 64 bits.

    Raises:
        ValueError: if it is none.
    """
    number = int(text)
    if not -(2**63) <= number < 2**63:
        raise ValueError(f"expected a whole number of 64 bits, got {text}")
    return number
