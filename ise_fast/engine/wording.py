"""What the command line says: its help, and errors in one line that name the flag, what was expected and what came.

The parser library reads the words; these are only the texts. A wrong word is looked for again here, because the library
speaks of Python types and does not say which flag was meant.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from ise_fast._words import hint as near_to
from ise_fast._words import meant

OTHERS = ("config", "preset", "help", "version", "print_config")  # flags that are no setting of a section
# Flags of other programs of this field, and what says the same here.
ELSEWHERE = {"use-hard": "--memory-mode hard"}
MISREAD = re.compile(r"[+-]?\d[\d_]*(:\d+)+(\.\d*)?|[+-]?0[0-7_]+")  # by YAML: base 60, base 8
SWITCH = {"true", "yes", "false", "no"}


def make_parser(prog: str, examples: str, exit_codes: str, **options: Any) -> Any:
    """A parser with --version, whose help ends with examples and the exit codes."""
    from jsonargparse import ArgumentParser

    import ise_fast

    parser = ArgumentParser(
        prog=prog, exit_on_error=False, allow_abbrev=False, formatter_class=help_formatter(),
        epilog=f"examples:\n{examples.format(prog=prog)}\n{exit_codes}", **options,
    )  # fmt: skip
    version = f"ise_fast {ise_fast.__version__}"
    parser.add_argument("-V", "--version", action="version", version=version, help="print the version and stop")
    return parser


def describe(parser: Any, flag: str, text: str) -> None:
    """Give a flag that the parser library adds itself a help text of ours."""
    for action in parser._actions:
        if flag in action.option_strings:
            action.help, action.metavar = text, ""


def explain(argv: Sequence[str], sections: Iterable[type], said: str) -> str:
    """One line on what is wrong with a command line.

    Args:
        argv: the words that the parser did not take.
        sections: dataclasses whose fields are the flags.
        said: the parser's own words, used for what is not seen here.
    """
    hints, shorts = _hints(sections)
    words = list(argv)
    while words:
        word = words.pop(0)
        if not word.startswith("-"):
            return f"there is no argument {word!r} without a flag before it; --help lists the flags"
        name, equals, value = word.partition("=")
        flag = shorts.get(name) or name.removeprefix("--")
        if not name.startswith("--") and name not in shorts:  # -b30
            flag, equals, value = shorts.get(name[:2], ""), "=", word[2:]
        if flag in OTHERS:
            if not equals and flag in ("config", "preset") and words:
                words.pop(0)
            continue
        switch = hints.get(flag.removeprefix("no-")) is bool
        if flag not in hints and not switch:
            return _unknown(name, [*hints, *OTHERS[:4]])
        if not equals:
            if words and (not words[0].startswith("-") or _is_number(words[0])):
                value = words.pop(0)
            elif switch:
                continue
            else:
                return f"--{flag}: expected {kind(hints[flag])}, got nothing"
        problem = _problem(bool if switch else hints[flag], value)
        if problem:
            return f"--{flag}: {problem}"
    return _of_file(said, hints)


def misread(argv: Sequence[str], sections: Iterable[type]) -> str | None:
    """One line on a number that YAML would take for another one: 1:30 for 90, 010 for 8."""
    hints, shorts = _hints(sections)
    for word, following in itertools.pairwise([*argv, ""]):
        name, equals, value = word.partition("=")
        flag, value = shorts.get(name) or name.removeprefix("--"), value if equals else following
        if {int, float} & set(kinds(hints.get(flag))) and MISREAD.fullmatch(value):
            return f"--{flag}: expected {kind(hints[flag])}, got {value!r}"
    return None


def kind(hint: Any) -> str:
    """The values of a type in plain words."""
    choices = _choices(hint)
    if choices:
        return f"one of {', '.join(choices)}"
    named = kinds(hint)
    if bool in named:
        return "true or false"
    return "a whole number" if int in named else "a number" if float in named else "text"


def metavar(field: dataclasses.Field[Any], hint: Any) -> str:
    """What stands for the value of a flag in the help."""
    choices = _choices(hint)
    if choices:
        return "{" + ",".join(choices) + "}"
    named = kinds(hint)
    text = "PATH" if field.metadata.get("path") else field.name.rsplit("_", 1)[-1].upper()
    return "N" if int in named else "X" if float in named else text


def help_formatter() -> Any:
    """The class that prints --help: a flag, what it does and its default, and no type in Python's words."""
    from jsonargparse import ActionYesNo, DefaultHelpFormatter

    class Formatter(DefaultHelpFormatter):
        def _get_help_string(self, action: Any) -> str:
            text = action.help or ""
            if not action.option_strings or action.default is None or action.default == "==SUPPRESS==":
                return text
            value = ("off", "on")[action.default] if isinstance(action.default, bool) else action.default
            return f"{text} (default: {value})"

        def _format_action_invocation(self, action: Any) -> str:
            names = ", ".join(action.option_strings)
            if isinstance(action, ActionYesNo) or action.nargs == 0:
                return names
            return f"{names} {action.dest.upper() if action.metavar is None else action.metavar}".rstrip()

        def _fill_text(self, text: str, width: int, indent: str) -> str:
            return "\n".join(indent + line for line in text.splitlines())

    return Formatter


def _hints(sections: Iterable[type]) -> tuple[dict[str, Any], dict[str, str]]:
    """Types by flag, and flags by short flag."""
    hints: dict[str, Any] = {}
    shorts: dict[str, str] = {}
    for section in sections:
        types = typing.get_type_hints(section)
        for field in dataclasses.fields(section):
            name = field.name.replace("_", "-")
            hints[name] = types[field.name]
            if field.metadata.get("short"):
                shorts[field.metadata["short"]] = name
    return hints, shorts


def _unknown(name: str, known: Sequence[str]) -> str:
    word = name.lstrip("-").replace("_", "-")
    if word in ELSEWHERE:
        return f"there is no flag {name}; did you mean {ELSEWHERE[word]}?"
    return f"there is no flag {name}; {meant(word, known, '--') or '--help lists the flags'}"


def _problem(hint: Any, value: str) -> str | None:
    """What is wrong with a value, or None."""
    choices, named = _choices(hint), kinds(hint)
    if type(None) in named and value in ("null", "~"):
        return None
    if choices:
        wrong = value not in choices
    elif bool in named:
        wrong = value.lower() not in SWITCH
    elif int in named:
        wrong = re.fullmatch(r"[+-]?[\d_]+|0[xob]\w+", value) is None
    else:
        wrong = float in named and not _is_number(value)
    if not wrong:
        return None
    return f"expected {kind(hint)}, got {value!r}{near_to(value, choices)}"


def _of_file(said: str, hints: Mapping[str, Any]) -> str:
    """The parser's words on a file of settings, in ours."""
    found = re.search(r'Parser key "(\w+)".*(?:Got value|Given value): (.*)', said)
    name = found[1].replace("_", "-") if found else ""
    if found and name in hints:
        return f"{found[1]}: {_problem(hints[name], found[2]) or f'expected {kind(hints[name])}, got {found[2]!r}'}"
    found = re.search(r'Parser key "(\w+)": (expected text.*)', said)
    if found:
        return f"{found[1]}: {found[2]}"
    found = re.search(r"Option '([^']+)' is not accepted", said)
    if found:
        near = meant(found[1], [name.replace("-", "_") for name in hints])
        return f"--config: there is no setting {found[1]!r}; {near or '--help lists them'}"
    return re.sub(r'^Parser key "config": ', "--config: ", said)


def _choices(hint: Any) -> tuple[str, ...]:
    return tuple(str(value) for value in typing.get_args(hint)) if typing.get_origin(hint) is Literal else ()


def kinds(hint: Any) -> tuple[Any, ...]:
    """The types that a hint names: of X | None both."""
    return typing.get_args(hint) or (hint,)


def _is_number(text: str) -> bool:
    try:
        float(re.sub(r"^([+-]?)\.(?=nan|inf)", r"\1", text.lower()))
    except ValueError:
        return False
    return True
