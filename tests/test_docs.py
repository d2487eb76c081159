"""Command lines, links and imports of the documentation name what there is."""

from __future__ import annotations

import ast
import contextlib
import importlib
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


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^):\s]+)\)", page.read_text()):
        place, _, anchor = target.partition("#")
        file = page.parent / place if place else page
        assert file.exists(), target
        headings = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE) if anchor else []
        assert not anchor or anchor in [re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in headings]


def test_python_imports_what_there_is() -> None:
    names = {
        (node.module, name.name)
        for page in PAGES
        for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
        for node in ast.walk(ast.parse(block))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ise_fast")
        for name in node.names
    }
    assert len(names) > 5
    for module, name in names:
        assert hasattr(importlib.import_module(module), name), f"{module}.{name}"
