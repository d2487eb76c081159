"""What was probably meant by a word that is not known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def meant(word: str, known: Iterable[str], prefix: str = "") -> str:
    """ "did you mean X?", or nothing where no known word is near. Case, - and _ do not matter."""
    by_letters = {_letters(name): name for name in known}
    near = difflib.get_close_matches(_letters(word), by_letters, n=1)
    return f"did you mean {prefix}{by_letters[near[0]]}?" if near else ""


def hint(word: str, known: Iterable[str]) -> str:
    """The same as the end of a message that has told what was expected."""
    question = meant(word, known)
    return f"; {question}" if question else ""


def _letters(word: str) -> str:
    return word.lower().replace("-", "").replace("_", "")
