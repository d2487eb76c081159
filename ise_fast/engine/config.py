"""The settings of a run (sections.py), under one flat set of names on the command line and in YAML.

Order of precedence: defaults of the sections < preset (presets.py) < `--config FILE` < command line.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ise_fast.engine.errors import UsageError
from ise_fast.engine.flags import add_flags, expand_home, normalise, run_parser, text
from ise_fast.engine.sections import DataConfig, MixConfig, ModelConfig, OptimConfig, PlanConfig, RunConfig
from ise_fast.engine.wording import kind
from ise_fast.methods import LABELS, METHODS, find_labels, find_method

__all__ = [
    "DataConfig", "ModelConfig", "OptimConfig", "PlanConfig", "RunConfig", "TrainConfig",
    "add_flags", "expand_home", "normalise", "parse", "plug_ins", "run_parser", "to_yaml", "validate",
]  # fmt: skip

EXAMPLES = """  {prog}                                             a generated data set, in minutes on a CPU
  {prog} -d market1501 --data-dir DATA               published settings of ISE
  {prog} -d folder --data-dir IMAGES --eps 0.5       your own images
  {prog} --logs-dir RUN --resume auto                go on with a run that was stopped
"""
EXIT_CODES = "exit codes: 0 done, 1 the run failed, 2 wrong arguments, 128 + n stopped by signal n (130: Ctrl-C)"

_SECTIONS = {
    "data": DataConfig,
    "model": ModelConfig,
    "plan": PlanConfig,
    "mix": MixConfig,
    "optim": OptimConfig,
    "run": RunConfig,
}


def plug_ins(*names: str | None) -> list[type]:
    """Settings of every method and source of labels that is registered, and of these others at package.module:NAME."""
    classes = [source.settings for source in LABELS.values()] + [method.settings for method in METHODS.values()]
    for name in names:
        if name is not None and ":" in name:
            for find in (find_labels, find_method):
                with contextlib.suppress(ValueError):  # reported by `validate`
                    classes.append(find(name).settings)
    return list(dict.fromkeys(classes))


def _defaults() -> dict[str, Any]:
    return {item.name: item.default for section in reversed(plug_ins()) for item in dataclasses.fields(section)}


def _own_defaults(method: str) -> dict[str, Any]:
    """What a method's own settings say, also where another one with a setting of that name says something else."""
    with contextlib.suppress(ValueError):  # reported by `validate`
        return {item.name: item.default for item in dataclasses.fields(find_method(method).settings)}
    return {}


@dataclass(frozen=True)
class TrainConfig:
    """Everything that `python -m ise_fast.train` can be told.

    `settings` holds those of all methods and sources of labels by name; two that share a name share its value.
    """

    preset: str = "synthetic"
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    plan: PlanConfig = field(default_factory=PlanConfig)
    mix: MixConfig = field(default_factory=MixConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    run: RunConfig = field(default_factory=RunConfig)
    settings: Mapping[str, Any] = field(default_factory=_defaults)

    def flat(self) -> dict[str, Any]:
        """The settings under their flag names (with underscores), as `--config` reads them."""
        values: dict[str, Any] = {"preset": self.preset}
        for name in _SECTIONS:
            values.update(dataclasses.asdict(getattr(self, name)))
        return {**values, **self.settings}

    @classmethod
    def from_flat(cls, values: Mapping[str, Any]) -> TrainConfig:
        """The inverse of `flat`; settings that are missing keep their defaults, unknown ones are ignored.

        Raises:
            UsageError: for a value of another type than the setting has.
        """
        sections: dict[str, Any] = {}
        for name, section in _SECTIONS.items():
            sections[name] = section(**_of_kind(values, section))
        settings = _defaults()
        for section in plug_ins(values.get("method"), values.get("labels")):
            for item in dataclasses.fields(section):
                settings.setdefault(item.name, item.default)
            settings.update(_of_kind(values, section))
        return cls(preset=values.get("preset", "synthetic"), settings=settings, **sections)


def _of_kind(values: Mapping[str, Any], section: type) -> dict[str, Any]:
    """The values that belong to a dataclass.

    Raises:
        UsageError: for one of another type than its field has.
    """
    known = typing.get_type_hints(section)
    for key in values:
        if key in known and not _is_kind(values[key], known[key]):
            raise UsageError(f"--{key.replace('_', '-')}: expected {kind(known[key])}, got {values[key]!r}")
    return {key: values[key] for key in values if key in known}


def _is_kind(value: object, hint: Any) -> bool:
    if typing.get_origin(hint) is Literal:
        return value in typing.get_args(hint)
    kinds = typing.get_args(hint) or (hint,)  # of X | None, or X itself
    kinds += (int,) if float in kinds else ()
    return isinstance(value, kinds) and not (isinstance(value, bool) and bool not in kinds)


def parse(argv: Sequence[str], prog: str = "python -m ise_fast.train") -> TrainConfig:
    """Command line -> settings.

    Raises:
        UsageError: an unknown flag, a value of the wrong type or out of range, or an unknown preset; one line.
        SystemExit: for `--help` and `--print_config`.
    """
    from ise_fast.engine import presets, settings_file

    argv = normalise(argv)
    files = settings_file.read_files(argv)
    own = _named(argv, "method"), _named(argv, "labels")
    sections = *_SECTIONS.values(), *plug_ins(*own)
    for nodes in files:
        settings_file.check(nodes, sections)
    parser = _parser(prog, own)
    settled = [a for a in argv if a not in ("-h", "--help") and not a.startswith("--print_config")]
    asked = run_parser(parser, settled, *sections)
    preset = asked["preset"] or presets.for_dataset(asked["dataset"], asked["method"])
    published = presets.values(preset)
    chosen = {"method": asked["method"], **published} if own[0] is None else {"method": own[0]}
    parser.set_defaults({**_own_defaults(chosen["method"]), **published, "preset": preset})
    config = TrainConfig.from_flat(expand_home(run_parser(parser, argv, *sections), *sections))
    validate(config)
    return config


def _named(argv: Sequence[str], setting: str) -> str | None:
    """What the command line or its file calls a setting, before there is a parser: an own method brings flags along."""
    import yaml

    found = None
    for word, following in itertools.zip_longest(argv, argv[1:], fillvalue=""):
        name, equals, value = word.partition("=")
        value = value if equals else following
        if name == f"--{setting}":
            found = value
        elif name == "--config":
            with contextlib.suppress(OSError, ValueError, yaml.YAMLError), open(value, encoding="utf-8") as file:
                content = yaml.safe_load(file)
                found = content.get(setting, found) if isinstance(content, dict) else found
    return found if isinstance(found, str) else None


def _parser(prog: str, own: Sequence[str | None] = ()) -> Any:
    from ise_fast.engine import presets, wording

    parser = wording.make_parser(
        prog,
        EXAMPLES,
        EXIT_CODES,
        usage="%(prog)s [-d DATASET] [--preset NAME] [--config FILE] [flags]",
        description="Train a re-identification embedding without labels, by ISE, Cluster Contrast or another method.",
    )
    about = "YAML file of settings, such as a run's config.yaml"
    parser.add_argument("--config", metavar="FILE", action="config", help=about)
    wording.describe(parser, "--print_config", "print all settings as YAML and stop")
    parser.add_argument(
        "--preset", metavar="NAME", type=text, default=None, help=f"settings: {', '.join(presets.names())}"
    )
    taken: set[str] = set()
    for section in (*_SECTIONS.values(), *plug_ins(*own)):
        add_flags(parser, section, taken)
    return parser


def validate(config: TrainConfig) -> None:
    """Ranges that the types do not say.

    Raises:
        UsageError: naming the flag, what was expected and what came.
    """
    from ise_fast.engine import ranges

    ranges.check(config.flat())
    try:
        method = find_method(config.plan.method)
        find_labels(config.plan.labels or method.labels)
    except ValueError as error:
        raise UsageError(str(error)) from None


def to_yaml(config: TrainConfig) -> str:
    """The settings as the text of a file that `--config` reads back."""
    import yaml

    text: str = yaml.safe_dump(config.flat(), sort_keys=False)
    return text
