"""The settings of a run: small dataclasses by concern, one flat set of flag names on the command line and in YAML.

Order of precedence: defaults here < preset (presets.py) < `--config FILE` < command line. The flag names are those that
users of this field know by heart (`-b/--batch-size`, `--num-instances`, `--eps`, ...); `_` may stand for `-`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ise_fast.engine.errors import UsageError
from ise_fast.methods import LABELS, METHODS, find_labels, find_method, flag


@dataclass(frozen=True)
class DataConfig:
    """Images: where they are, how they are decoded, cached and augmented."""

    dataset: str = flag("synthetic", "market1501, msmt17, personx, veri776, folder, omniglot or synthetic", "-d")
    data_dir: str | None = flag(None, "folder that holds the data set (synthetic: where to write it)", path=True)
    height: int | None = flag(None, "image height; default: the data set's own")
    width: int | None = flag(None, "image width; default: the data set's own")
    workers: int = flag(2, "threads that decode images into the cache", "-j")
    cache: Literal["auto", "memory", "disk"] = flag(
        "auto", "decoded images: in memory, or in a memory-mapped file (auto: with several processes)"
    )
    cache_dir: str | None = flag(None, "folder of the memory-mapped files; default: ~/.cache/ise_fast", path=True)
    unreadable: Literal["error", "skip"] = flag("error", "an image that cannot be decoded: stop, or skip and count")
    identity_pattern: str | None = flag(None, "folder data set: regular expression with groups id and camera")
    labels_csv: str | None = flag(None, "folder data set: CSV file with columns path, id, camera, split", path=True)
    flip: float = flag(0.5, "probability of a horizontal flip")
    padding: int = flag(10, "pixels padded on every side before the random crop; 0: none")
    erase: float = flag(0.5, "probability of random erasing")


@dataclass(frozen=True)
class ModelConfig:
    """The embedding network."""

    arch: str = flag("resnet50", "backbone: resnet18 ... resnet152, a torchvision name, or small (CPU default)", "-a")
    pretrained: str = flag("imagenet", "none, imagenet, or the path of a weight file", path=True)
    pooling_type: Literal["avg", "gem"] = flag("avg", "global pooling")
    features: int = flag(0, "embedding size; 0: the backbone's own width")
    bn_chunk: int = flag(64, "images that one BatchNorm sees, in sampler order (ghost BatchNorm); 0: the whole batch")


@dataclass(frozen=True)
class PlanConfig:
    """The method, and where its pseudo labels come from."""

    method: str = flag("ise", f"{', '.join(METHODS)}, or package.module:NAME of one's own")
    labels: str | None = flag(None, f"{', '.join(LABELS)}, or package.module:NAME; default: the method's own")
    on_few_clusters: Literal["previous", "stop"] = flag(
        "previous", "fewer clusters than a batch needs: go on with the previous labels, or stop"
    )


@dataclass(frozen=True)
class OptimConfig:
    """Batches, optimiser, schedule and arithmetic."""

    batch_size: int = flag(256, "images in a batch, over all processes", "-b")
    num_instances: int = flag(16, "images of one cluster in a batch")
    sampler: Literal["published", "balanced"] = flag(
        "published", "images of a cluster: one, then others of other cameras than its own; or all cameras evenly"
    )
    iters: int = flag(400, "iterations in an epoch")
    epochs: int = flag(70, "epochs")
    lr: float = flag(3.5e-4, "learning rate of Adam")
    weight_decay: float = flag(5e-4, "weight decay of Adam")
    step_size: int = flag(30, "epochs after which the learning rate falls to a tenth")
    clip_grad: float = flag(0.0, "largest gradient norm; 0: no clipping")
    precision: Literal["fp32", "bf16", "fp16"] = flag(
        "fp32", "arithmetic of the network: float32 throughout (see --tf32), or autocast; fp16 scales the loss"
    )
    tf32: bool = flag(False, "let the GPU round float32 convolutions and products of the network to 10 bits (faster)")
    channels_last: bool = flag(False, "channels-last memory format")
    compile: bool = flag(False, "torch.compile the backbone")


@dataclass(frozen=True)
class RunConfig:
    """Where the run lives and how it is watched, stopped and resumed."""

    logs_dir: str | None = flag(None, "folder of the run; default: logs/PRESET, numbered when taken", path=True)
    resume: str | None = flag(
        None, "auto (newest checkpoint in the folder of the run) or a checkpoint's path", path=True
    )
    seed: int = flag(1, "seed of every random choice")
    deterministic: bool = flag(False, "refuse operations without a deterministic implementation (GPU)")
    device: str = flag("auto", "auto, cpu, cuda, cuda:N")
    print_freq: int = flag(10, "iterations between updates of the loss in the progress bar")
    eval_step: int = flag(1, "epochs between evaluations; the last epoch is always evaluated; 0: never")
    test_batch_size: int = flag(256, "images in a batch of feature extraction, per process")
    checkpoint_step: int = flag(0, "also save every this many iterations inside an epoch; 0: at the end of epochs only")
    keep_checkpoints: int = flag(2, "newest checkpoints kept besides the best")
    tensorboard: bool = flag(True, "write TensorBoard event files")
    report: bool = flag(True, "write report.html at the end")
    progress: bool = flag(True, "progress bars, on a terminal or in a notebook")
    quiet: bool = flag(False, "no bars, and on the console warnings and errors alone; train.log has every line")

    @property
    def bars(self) -> bool:
        return self.progress and not self.quiet


EXAMPLES = """  {prog}                                             a generated data set, in minutes on a CPU
  {prog} -d market1501 --data-dir DATA               published settings of ISE
  {prog} -d folder --data-dir IMAGES --eps 0.5       your own images
  {prog} --logs-dir RUN --resume auto                go on with a run that was stopped
"""

_SECTIONS = {"data": DataConfig, "model": ModelConfig, "plan": PlanConfig, "optim": OptimConfig, "run": RunConfig}


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


@dataclass(frozen=True)
class TrainConfig:
    """Everything that `python -m ise_fast.train` can be told.

    `settings` holds those of all methods and sources of labels by name; two that share a name share its value.
    """

    preset: str = "synthetic"
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    plan: PlanConfig = PlanConfig()
    optim: OptimConfig = OptimConfig()
    run: RunConfig = RunConfig()
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
            hint = getattr(known[key], "__name__", known[key])
            raise UsageError(f"--{key.replace('_', '-')}: expected {hint}, got {values[key]!r}")
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
    from ise_fast.engine import presets

    argv = normalise(argv)
    own = _named(argv, "method"), _named(argv, "labels")
    sections = *_SECTIONS.values(), *plug_ins(*own)
    probe = _parser(prog, own)
    settled = [a for a in argv if a not in ("-h", "--help") and not a.startswith("--print_config")]
    asked = run_parser(probe, settled, *sections)
    preset = asked["preset"] or presets.for_dataset(asked["dataset"], asked["method"])
    parser = _parser(prog, own)
    parser.set_defaults({**presets.values(preset), "preset": preset})
    config = TrainConfig.from_flat(expand_home(run_parser(parser, argv, *sections), *sections))
    validate(config)
    return config


def normalise(argv: Sequence[str]) -> list[str]:
    """`--batch_size=8` -> `--batch-size=8`: users of this field type both. And ~ in the path of `--config`."""
    result: list[str] = []
    for word in argv:
        name, equals, value = word.partition("=")
        if name.startswith("--") and not name.startswith("--print_config"):
            name = "--" + name[2:].replace("_", "-")
        if name == "--config":
            value = _expanded("config", value)
        elif result and result[-1] == "--config":
            name = _expanded("config", name)
        result.append(name + equals + value)
    return result


def expand_home(values: Mapping[str, Any], *sections: type) -> dict[str, Any]:
    """The values of flags with ~ as the home folder in all paths: a shell does it neither after = nor in a file.

    Raises:
        UsageError: for ~NAME without such a user.
    """
    paths = {f.name for section in sections for f in dataclasses.fields(section) if f.metadata.get("path")}
    return {key: _expanded(key, value) if key in paths else value for key, value in values.items()}


def _expanded(name: str, value: Any) -> Any:
    if not isinstance(value, str) or not value.startswith("~"):
        return value
    expanded = os.path.expanduser(value)
    if expanded == value:
        raise UsageError(
            f"--{name.replace('_', '-')}: there is no home folder {value.split('/')[0]}; write ./{value} for what is "
            "called so here"
        )
    return expanded


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
        usage="%(prog)s [-d DATASET] [--preset NAME] [--config FILE] [flags]",
        description="Train a re-identification embedding without labels, by ISE, Cluster Contrast or another method.",
    )
    about = "YAML file of settings, such as a run's config.yaml"
    parser.add_argument("--config", metavar="FILE", action="config", help=about)
    wording.describe(parser, "--print_config", "print all settings as YAML and stop")
    parser.add_argument(
        "--preset", metavar="NAME", type=str | None, default=None, help=f"settings: {', '.join(presets.names())}"
    )
    taken: set[str] = set()
    for section in (*_SECTIONS.values(), *plug_ins(*own)):
        add_flags(parser, section, taken)
    return parser


def add_flags(parser: Any, section: type, taken: set[str] | None = None) -> None:
    """Give the parser one group with a flag for every field of a dataclass made with `flag`.

    Args:
        parser: of jsonargparse.
        section: the dataclass.
        taken: flags that are there already and are not added again; those added come in.
    """
    from jsonargparse import ActionYesNo

    from ise_fast.engine import wording

    group = parser.add_argument_group((section.__doc__ or "").rstrip("."))
    hints = typing.get_type_hints(section)
    taken = set() if taken is None else taken
    for item in dataclasses.fields(section):
        if item.name in taken:
            continue
        taken.add(item.name)
        names = [item.metadata["short"]] if item.metadata["short"] else []
        names.append("--" + item.name.replace("_", "-"))
        kind: dict[str, Any] = {"type": hints[item.name], "metavar": wording.metavar(item, hints[item.name])}
        if hints[item.name] is bool:
            kind = {"action": ActionYesNo(no_prefix="no-"), "nargs": "?"}  # --rerank, --rerank true, --no-rerank
        group.add_argument(*names, default=item.default, help=item.metadata["help"], **kind)


def run_parser(parser: Any, argv: Sequence[str], *sections: type) -> dict[str, Any]:
    """The values of the flags of these sections, as the parser reads them.

    Raises:
        UsageError: in one line, for words that it does not take.
    """
    from argparse import ArgumentError

    from ise_fast.engine import wording

    try:
        values = parser.parse_args(list(argv)).as_dict()
    except ArgumentError as error:
        raise UsageError(wording.explain(argv, sections, " ".join(str(error).split()))) from None
    return dict(values)


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
