"""Errors of operators in the words of the method that calls them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def errors_name(**arguments: str) -> Iterator[None]:
    """Errors from inside name the caller's arguments.

    Args:
        arguments: for each name that the operator has for an argument that of the caller.
    """
    try:
        yield
    except (TypeError, ValueError) as error:
        text = re.sub(r"^\w+(?=: )|\bcentroids\b", lambda found: arguments.get(found[0], found[0]), str(error))
        raise type(error)(text) from None
