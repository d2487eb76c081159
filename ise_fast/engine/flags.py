"""Dataclasses as flags of a command line: a group for each, a flag for every field; errors in one line of our own.

`_` may stand for `-` in a flag, and `~` for the home folder in a path.
"""

from __future__ import annotations

import dataclasses
import os
import typing
from argparse import ArgumentError
from collections.abc import Mapping, Sequence
from typing import Any

from ise_fast.engine import wording
from ise_fast.engine.console import printing
from ise_fast.engine.errors import UsageError


def normalise(argv: Sequence[str]) -> list[str]:
    """`--batch_size=8` -> `--batch-size=8`: users of this field type both. And ~ in the path of `--config`."""
    result: list[str] = []
    for word in argv:
        name, equals, value = word.partition("=")
        if name.startswith("--") and not name.startswith("--print_config"):
            name = "--" + name[2:].replace("_", "-")
        if name == "--config" and equals:
            value = _expanded("config", value)
        elif result and result[-1] == "--config":
            name = _expanded("config", name)
        result.append(name + equals + value)
    return result


def expand_home(values: Mapping[str, Any], *sections: type) -> dict[str, Any]:
    """The values of flags with ~ as the home folder in all paths: a shell does it neither after = nor in a file.

    Raises:
        UsageError: for ~NAME without such a user, or an empty path.
    """
    paths = {f.name for section in sections for f in dataclasses.fields(section) if f.metadata.get("path")}
    return {key: _expanded(key, value) if key in paths else value for key, value in values.items()}


def _expanded(name: str, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if not value.strip():  # an unset variable of a shell
        raise UsageError(f"--{name.replace('_', '-')}: expected a path, got an empty one")
    if not value.startswith("~"):
        return value
    expanded = os.path.expanduser(value)
    if expanded == value:
        raise UsageError(
            f"--{name.replace('_', '-')}: there is no home folder {value.split('/')[0]}; write ./{value} for what is "
            "called so here"
        )
    return expanded


def add_flags(parser: Any, section: type, taken: set[str] | None = None) -> None:
    """Give the parser one group with a flag for every field of a dataclass made with `flag`.

    Args:
        parser: of jsonargparse.
        section: the dataclass.
        taken: flags that are there already and are not added again; those added come in.
    """
    from jsonargparse import ActionYesNo

    group = parser.add_argument_group((section.__doc__ or "").rstrip("."))
    hints = typing.get_type_hints(section)
    taken = set() if taken is None else taken
    for item in dataclasses.fields(section):
        if item.name in taken:
            continue
        taken.add(item.name)
        names = [item.metadata["short"]] if item.metadata.get("short") else []
        names.append("--" + item.name.replace("_", "-"))
        kind: dict[str, Any] = {"type": hints[item.name], "metavar": wording.metavar(item, hints[item.name])}
        if str in wording.kinds(hints[item.name]):
            kind["type"] = text  # not read as YAML, where # begins a comment and ~ is nothing
        if hints[item.name] is bool:
            kind = {"action": ActionYesNo(no_prefix="no-"), "nargs": "?"}  # --rerank, --rerank true, --no-rerank
        group.add_argument(*names, default=item.default, help=item.metadata.get("help", ""), **kind)


def text(value: Any) -> str | None:
    """A flag's text as it stands; null: what another file or preset says is not given.

    Raises:
        TypeError: for a number or switch in a file, which YAML no longer tells as it was written.
    """
    if not isinstance(value, str):
        raise TypeError(f"expected text, got {value}; write it in quotes")
    return None if value == "null" else value


def run_parser(parser: Any, argv: Sequence[str], *sections: type) -> dict[str, Any]:
    """The values of the flags of these sections, as the parser reads them.

    Raises:
        UsageError: in one line, for words that it does not take.
    """
    problem = wording.misread(argv, sections)
    if problem:
        raise UsageError(problem)
    try:
        with printing():  # --help, --print_config
            values = parser.parse_args(list(argv)).as_dict()
    except RecursionError:
        raise UsageError("--config: it is nested too deep") from None
    except ArgumentError as error:
        raise UsageError(wording.explain(argv, sections, " ".join(str(error).split()))) from None
    return dict(values)
