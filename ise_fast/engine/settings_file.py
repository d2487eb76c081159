"""What is wrong with a file of settings (`--config`), in one line; what is right the parser library reads."""

from __future__ import annotations

import dataclasses
import itertools
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ise_fast.engine import wording
from ise_fast.engine.errors import UsageError

BOOL, NULL, TEXT = (f"tag:yaml.org,2002:{name}" for name in ("bool", "null", "str"))
DATE = "tag:yaml.org,2002:timestamp"  # the parser library leaves dates as they are written


def read_files(argv: Sequence[str]) -> list[dict[str, Any]]:
    """Nodes of YAML by setting, of each `--config` of a command line.

    Raises:
        UsageError: it is no text in UTF-8, no YAML, holds no settings, or one of them twice.
    """
    places = []
    for word, following in itertools.pairwise([*argv, ""]):
        name, equals, value = word.partition("=")
        if name == "--config":
            places.append(Path(value if equals else following))
    return [_read(place) for place in places if place.is_file()]  # what is none the parser refuses


def check(nodes: Mapping[str, Any], sections: Iterable[type]) -> None:
    """The values that the parser library would refuse in words of its own, or take for another one.

    Raises:
        UsageError: naming the setting.
    """
    hints: dict[str, Any] = {"preset": str | None}
    for section in sections:
        types = typing.get_type_hints(section)
        hints |= {field.name: types[field.name] for field in dataclasses.fields(section)}
    for name, node in nodes.items():
        if name not in hints:
            continue  # the parser asks what was meant
        kinds, value = wording.kinds(hints[name]), node.value
        expected = wording.kind(hints[name])
        if node.tag == NULL:
            if type(None) not in kinds:
                raise UsageError(f"{name}: expected {expected}, got nothing")
        elif bool in kinds:
            if node.tag != BOOL and str(value).lower() not in wording.SWITCH:
                raise UsageError(f"{name}: expected {expected}, got {value!r}")
        elif str in kinds and isinstance(value, str) and node.tag not in (TEXT, DATE):
            raise UsageError(f"{name}: expected text, got {value}; write it in quotes: '{value}'")


def _read(path: Path) -> dict[str, Any]:
    import yaml

    try:
        node = yaml.compose(path.read_text(encoding="utf-8-sig"), yaml.SafeLoader)
    except UnicodeDecodeError:
        raise UsageError(f"--config: {path} is not UTF-8; save it as UTF-8") from None
    except OSError as error:
        raise UsageError(f"--config: {path} cannot be read: {error.strerror}") from error
    except RecursionError:
        raise UsageError(f"--config: {path} cannot be read as YAML: it is nested too deep") from None
    except yaml.YAMLError as error:
        why = " ".join(str(getattr(error, "problem", None) or error).split())
        mark = getattr(error, "problem_mark", None)
        where = "" if mark is None else f" in line {mark.line + 1}"
        raise UsageError(f"--config: {path} cannot be read as YAML{where}: {why}") from None
    if not isinstance(node, yaml.MappingNode):
        raise UsageError(f"--config: expected settings in {path}, such as eps: 0.5, got {_kind(node)}")
    found: dict[str, Any] = {}
    for key, value in node.value:
        if str(key.value) in found:
            raise UsageError(f"--config: {path} has {key.value!r} twice, in line {key.start_mark.line + 1} again")
        found[str(key.value)] = value
    return found


def _kind(node: Any) -> str:
    if node is None:
        return "nothing"
    return "a list" if isinstance(node.value, list) else repr(node.value)
