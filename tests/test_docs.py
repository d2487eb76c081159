"""Command lines of the documentation name commands and flags that there are."""

from __future__ import annotations

import contextlib
import io
import re
from functools import cache
from pathlib import Path

import pytest

from ise_fast.__main__ import COMMANDS, main

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINE = re.compile(r"(?:`|\$ )(?:ise-fast |python -m ise_fast[. ])(\w+)([^`|\n]*(?:\\\n[^`|\n]*)*)")


def commands() -> list[tuple[str, str, tuple[str, ...]]]:
    """Page, command and flags of every command line."""
    found = []
    for page in PAGES:
        for match in LINE.finditer(page.read_text()):
            if re.search(r"--method \S+:", match[2]):
                continue  # a method of one's own brings flags of its own
            flags = re.findall(r"(?<!\S)--?[a-zA-Z][\w-]*", match[2].partition(" #")[0])
            found.append((page.name, match[1], tuple(flags)))
    return found


@cache
def help_of(command: str) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out), pytest.raises(SystemExit):
        main([command, "--help"])
    return out.getvalue()


def test_there_are_some() -> None:
    assert {command for _, command, _ in commands()} == COMMANDS.keys()


@pytest.mark.parametrize(("page", "command", "flags"), sorted(set(commands())))
def test_commands_and_flags_exist(page: str, command: str, flags: tuple[str, ...]) -> None:
    assert command in COMMANDS
    known = set(re.findall(r"(?<![\w-])--?[a-zA-Z][\w-]*", help_of(command)))
    assert not set(flags) - known
