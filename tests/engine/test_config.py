from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

import pytest

import ise_fast
from ise_fast.engine import presets, run_images
from ise_fast.engine.config import _SECTIONS, EXIT_CODES, TrainConfig, parse, to_yaml
from ise_fast.engine.errors import UsageError
from ise_fast.evaluate import main as evaluate_main
from ise_fast.methods import METHODS
from ise_fast.train import main
from tests.engine.test_shuffled_presets import SHUFFLED

# The other side of each range: what works must go on working.
BOUNDS = "--eps 0.999 --momentum 1 --clip-grad .inf --seed 9223372036854775807 --temp 1e-3 --lp-weight 0"


def test_values_on_the_bounds_train(flags: list[str], tmp_path: Path) -> None:
    short = ["--epochs", "1", "--iters", "2", "--eval-step", "0", "--logs-dir", str(tmp_path / "r")]
    # On 80 images an eps near 1 gives one cluster, which fills no batch: that is not what is tried here.
    bounds = [word if word != "0.999" else "0.7" for word in BOUNDS.split()]
    assert main([*flags, *short, *bounds]) == 0
    assert parse(BOUNDS.split()).settings["eps"] == 0.999
    assert main([*flags, *short, *bounds, "--resume", "auto", "--epochs", "2"]) == 0


LONG = {"d": "dataset", "a": "arch", "b": "batch_size", "j": "workers"}


def test_help_is_readable(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith("usage: python -m ise_fast.train [-d DATASET] [--preset NAME] [--config FILE] [flags]\n")
    flags = [name.replace("_", "-") for name in TrainConfig().flat()]
    assert not [name for name in flags if f"--{name}" not in text]
    for line in ("-b, --batch-size N", "images in a batch, over all processes"):
        assert line in text

    assert "typing" not in text
    assert "Literal" not in text
    assert text.count("{hard,momentum,kalman}") == 1  # choices once
    assert "--channels-last, --no-channels-last\n" in text
    assert "-d market1501 --data-dir DATA" in text
    assert text.rstrip().endswith(EXIT_CODES)


def test_help_shows_the_numbers_of_a_preset(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--preset", "msmt17-ise", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert re.search(r"--eps X [^-]*\(default: 0\.7\)", text)


@pytest.mark.parametrize("command", [main, evaluate_main])
def test_version(command: Callable[[list[str]], int], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"ise_fast {ise_fast.__version__}\n"


MSMT, ALL = "did you mean msmt17-ise?", ", ".join(METHODS)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--batchsize 8", "there is no flag --batchsize; did you mean --batch-size?"),
        ("--eps 0.5 --epoch=3", "there is no flag --epoch; did you mean --epochs?"),
        ("--no-progres", "there is no flag --no-progres; did you mean --progress?"),
        ("--use-hard", "there is no flag --use-hard; did you mean --memory-mode hard?"),
        ("--zzz 1", "there is no flag --zzz; --help lists the flags"),
        ("-b30 -q", "there is no flag -q; --help lists the flags"),
        ("market1501", "there is no argument 'market1501' without a flag before it; --help lists the flags"),
        ("--memory-mode had", "--memory-mode: expected one of hard, momentum, kalman, got 'had'; did you mean hard?"),
        ("--preset msmt17_isee", f"--preset: expected one of {', '.join(presets.names())}, got 'msmt17_isee'; {MSMT}"),
        ("--method ICE", f"--method: expected one of {ALL}, or package.module:NAME, got 'ICE'; did you mean ise?"),
        ("-b many", "--batch-size: expected a whole number, got 'many'"),
        ("--seed 1:30", "--seed: expected a whole number, got '1:30'"),
        ("-b 020", "--batch-size: expected a whole number, got '020'"),
        ("--lr=1:30", "--lr: expected a number, got '1:30'"),
        ("--iters 3.5", "--iters: expected a whole number, got '3.5'"),
        ("--eps -x", "--eps: expected a number, got nothing"),
        ("--height none", "--height: expected a whole number, got 'none'"),
        ("--tf32 maybe", "--tf32: expected true or false, got 'maybe'"),
    ],
)
def test_errors_in_our_own_words(words: str, said: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse(words.split())
    assert str(raised.value) == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("eps: abc", "eps: expected a number, got 'abc'"),
        ("epcohs: 3", "--config: there is no setting 'epcohs'; did you mean epochs?"),
        ("memory_mode: had", "memory_mode: expected one of hard, momentum, kalman, got 'had'; did you mean hard?"),
        ("- 3", "--config: expected settings in FILE, such as eps: 0.5, got a list"),
        ("# eps: 0.5", "--config: expected settings in FILE, such as eps: 0.5, got nothing"),
        ("milestones: 40", "milestones: expected text, got 40; write it in quotes: '40'"),
        ("labels: yes", "labels: expected text, got yes; write it in quotes: 'yes'"),
        ("arch: [a]", "arch: expected text, got ['a']; write it in quotes"),
        ("preset: 5", "preset: expected text, got 5; write it in quotes: '5'"),
        ("tf32: 1", "tf32: expected true or false, got '1'"),
        ("mix: null", "mix: expected one of none, mixup, cutmix, feature, got nothing"),
        ("eps: 0.5\nk1: 20\neps: 0.6", "--config: FILE has 'eps' twice, in line 3 again"),
        ("data_dir: ''", "--data-dir: expected a path, got an empty one"),
        ("[" * 5000, "--config: FILE cannot be read as YAML: it is nested too deep"),
        ("{", "--config: FILE cannot be read as YAML in line 2: expected the node content, but found '<stream end>'"),
        ("arch: \udce9", "--config: FILE is not UTF-8; save it as UTF-8"),
    ],
)
def test_errors_in_a_file_of_settings(text: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(text + "\n", errors="surrogateescape")
    with pytest.raises(UsageError) as raised:
        parse(["--config", str(tmp_path / "c.yaml"), "--eps", "-0.5"])
    assert str(raised.value) == said.replace("FILE", str(tmp_path / "c.yaml"))


@pytest.mark.parametrize("value", ["#1", "~x", "[1]", "a: b", "2024", "yes", "'x'"])
def test_texts_of_the_command_line_are_not_read_as_yaml(value: str, tmp_path: Path) -> None:
    config = parse(["--identity-pattern", value, "--arch", value])
    assert (config.data.identity_pattern, config.model.arch) == (value, value)
    (tmp_path / "c.yaml").write_text(to_yaml(config))
    assert parse(["--config", str(tmp_path / "c.yaml")]) == config
    assert parse(["--config", str(tmp_path / "c.yaml"), "--identity-pattern", "null"]).data.identity_pattern is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("-a resnet51", "did you mean resnet50"),
        ("--no-stem-relu", "--no-stem-relu: expected a ResNet, which has one, got --arch small"),
        ("--pretrained none.pth", "none.pth"),
        ("--device gpu", "cuda:N"),
        ("-d market1510", "did you mean market1501?"),
    ],
)
def test_found_before_images_are_decoded(
    words: str, said: str, flags: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def decode(*_: object, **__: object) -> None:
        raise AssertionError("images were decoded")

    monkeypatch.setattr(run_images, "open_images", decode)
    assert main([*flags, *words.split()]) == 2
    assert said in capsys.readouterr().err


def test_quiet_run_says_warnings_alone(flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    short = ["--epochs", "1", "--iters", "1", "--eval-step", "0", "--logs-dir", str(tmp_path / "r")]
    assert main([*flags, *short, "--progress", "--quiet"]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert [line.partition(" differs")[2][:26] for line in captured.err.splitlines()] == [" from the published set: t"]
    assert "epoch 1/1" in (tmp_path / "r/train.log").read_text()


def test_the_flags_people_know() -> None:
    words = (
        "-d msmt17 --data-dir D --logs-dir L -a resnet18 -b 64 -j 3 --height 96 --width 48 --num-instances 8 "
        "--eps 0.5 --k1 20 --k2 4 --iters 7 --epochs 9 --step-size 4 --momentum 0.3 --temp 0.07 --pooling-type gem "
        "--seed 5 --resume auto --print-freq 3 --eval-step 2"
    )
    underscored = re.sub(r"(?<=[a-z])-(?=[a-z])", "_", words)
    assert all(f" --{name} " in underscored for name in ("data_dir", "num_instances", "pooling_type", "print_freq"))
    long = re.sub(r"(^| )-([dabj]) ", lambda m: f"{m[1]}--{LONG[m[2]]} ", words)
    joined = re.sub(r"(--\S+) ", r"\1=", long)
    dashes = parse(words.split())
    assert dashes == parse(underscored.split()) == parse(long.split()) == parse(joined.split())
    assert (dashes.data.dataset, dashes.data.data_dir, dashes.data.workers) == ("msmt17", "D", 3)
    assert (dashes.data.height, dashes.data.width) == (96, 48)
    assert (dashes.model.arch, dashes.model.pooling_type) == ("resnet18", "gem")
    assert (dashes.settings["eps"], dashes.settings["k1"], dashes.settings["k2"]) == (0.5, 20, 4)
    assert (dashes.settings["momentum"], dashes.settings["temp"]) == (0.3, 0.07)
    assert (dashes.optim.batch_size, dashes.optim.num_instances, dashes.optim.iters) == (64, 8, 7)
    assert (dashes.optim.epochs, dashes.optim.step_size) == (9, 4)
    assert (dashes.run.logs_dir, dashes.run.seed, dashes.run.resume) == ("L", 5, "auto")
    assert (dashes.run.print_freq, dashes.run.eval_step) == (3, 2)


# Every number that differs between the published runs. Sources: the paper and published commands of ISE (CVPR 2022),
# of Cluster Contrast (2021; v1: the first version of its paper).
PUBLISHED: dict[str, tuple[object, ...]] = {
    "market1501-ise": ("ise", "avg", 70, 400, 30, 0.4, 0.2, "hard", 0.1, True),
    "market1501-ise-gem": ("ise", "gem", 70, 400, 30, 0.4, 0.2, "hard", 0.1, True),
    "market1501-ise-baseline": ("cluster-contrast", "avg", 70, 400, 30, 0.4, 0.2, "hard", None, True),
    "market1501-ise-pli": ("ise", "avg", 70, 400, 30, 0.4, 0.2, "hard", 0.0, True),
    "market1501-ise-label-preserving": ("ise", "avg", 70, 400, 30, 0.4, 0.2, "hard", 0.1, False),
    "market1501-cluster-contrast": ("cluster-contrast", "gem", 50, 200, 20, 0.6, 0.1, "momentum", None, True),
    "market1501-cluster-contrast-v1": ("cluster-contrast", "avg", 50, 200, 20, 0.4, 0.1, "hard", None, True),
    "msmt17-ise": ("ise", "avg", 50, 400, 20, 0.7, 0.1, "momentum", 0.01, True),
    "msmt17-ise-gem": ("ise", "gem", 50, 400, 20, 0.7, 0.1, "momentum", 0.01, True),
    "msmt17-ise-baseline": ("cluster-contrast", "avg", 50, 400, 20, 0.7, 0.1, "momentum", None, True),
    "msmt17-ise-pli": ("ise", "avg", 50, 400, 20, 0.7, 0.1, "momentum", 0.0, True),
    "msmt17-ise-label-preserving": ("ise", "avg", 50, 400, 20, 0.7, 0.1, "momentum", 0.01, False),
    "market1501-cluster-contrast-infomap": ("cluster-contrast", "gem", 50, 200, 20, 0.6, 0.1, "momentum", None, True),
    "msmt17-cluster-contrast-infomap": ("cluster-contrast", "gem", 50, 400, 20, 0.6, 0.1, "momentum", None, True),
    "msmt17-cluster-contrast": ("cluster-contrast", "gem", 50, 400, 20, 0.6, 0.1, "momentum", None, True),
    "msmt17-cluster-contrast-v1": ("cluster-contrast", "avg", 50, 400, 20, 0.7, 0.1, "hard", None, True),
    # Not published: Market-1501's settings with another radius and momentum; VeRi-776 has images of 224 x 224.
    "personx": ("ise", "avg", 70, 400, 30, 0.7, 0.1, "hard", 0.1, True),
    "veri776": ("ise", "avg", 70, 400, 30, 0.6, 0.1, "hard", 0.1, True),
    "folder": ("ise", "avg", 70, 400, 30, 0.6, 0.2, "hard", 0.1, True),
}
# The presets of small runs: what differs from the defaults of sections.py.
SMALL: dict[str, dict[str, object]] = {
    "synthetic": {
        "dataset": "synthetic", "arch": "small", "pretrained": "none", "batch_size": 64, "num_instances": 8,
        "bn_chunk": 0, "epochs": 12, "iters": 30, "lr": 2e-3, "step_size": 9, "k1": 20, "k2": 4, "eps": 0.5,
        "momentum": 0.8, "padding": 2, "erase": 0.3,
    },
    "omniglot": {
        "dataset": "omniglot", "arch": "small", "pretrained": "none", "batch_size": 64, "num_instances": 8,
        "bn_chunk": 0, "epochs": 12, "iters": 30, "lr": 2e-3, "step_size": 9, "k1": 15, "k2": 4, "eps": 0.5,
        "min_samples": 3, "momentum": 0.8, "padding": 2, "erase": 0.0, "flip": 0.0, "height": 32, "width": 32,
    },
}  # fmt: skip


# SpCL: NeurIPS 2020 and its published command.
SPCL_SHARED: dict[str, object] = {
    "method": "spcl", "labels": None, "batch_size": 64, "num_instances": 4, "bn_chunk": 16, "epochs": 50,
    "step_size": 20, "lr": 3.5e-4, "weight_decay": 5e-4, "eps": 0.6, "eps_gap": 0.02, "k1": 30, "k2": 6,
    "min_samples": 4, "temp": 0.05, "momentum": 0.2, "arch": "resnet50", "pretrained": "imagenet",
    "pooling_type": "avg", "height": 256, "width": 128, "distance": "jaccard",
}  # fmt: skip
SPCL: dict[str, dict[str, object]] = {
    "market1501-spcl": {"dataset": "market1501", "iters": 400},
    "msmt17-spcl": {"dataset": "msmt17", "iters": 800},
}


# CAP: AAAI 2021.
CAP: dict[str, object] = {
    "method": "cap", "labels": None, "stem_relu": False, "batch_size": 32, "num_instances": 4, "bn_chunk": 32,
    "epochs": 50, "iters": 0,
    "optimizer": "adam", "lr": 3.5e-4, "weight_decay": 5e-4, "milestones": "20,40", "warmup_epochs": 10,
    "warmup_start": 0.01, "k1": 20, "k2": 6, "eps": 0.5, "min_samples": 4, "temp": 0.07, "momentum": 0.2,
    "cross_weight": 0.5, "cross_epoch": 5, "hard_negatives": 50, "sampler": "balanced", "pooling_type": "avg",
}  # fmt: skip
OTHERS = {
    **{name: {**SPCL_SHARED, **values} for name, values in SPCL.items()},
    **{f"{name}-cap": {**CAP, "dataset": name} for name in ("market1501", "msmt17")},
}
INFOMAP = {"labels": "infomap", "neighbours": 15, "min_similarity": 0.5, "max_noise": 4}


@pytest.mark.parametrize("name", SMALL)
def test_small_presets(name: str) -> None:
    assert parse(["--preset", name]).flat() == {**TrainConfig().flat(), "preset": name, **SMALL[name]}


def test_every_preset_has_its_numbers_here() -> None:
    assert set(presets.names()) == PUBLISHED.keys() | SMALL.keys() | OTHERS.keys() | SHUFFLED.keys()


@pytest.mark.parametrize("name", OTHERS)
def test_presets_of_other_methods(name: str) -> None:
    assert parse(["--preset", name]).flat().items() >= OTHERS[name].items()


@pytest.mark.parametrize("name", ["market1501", "msmt17"])
def test_infomap_presets_are_cluster_contrast_with_other_labels(name: str) -> None:
    plain, infomap = (parse(["--preset", f"{name}-cluster-contrast{end}"]).flat() for end in ("", "-infomap"))
    assert infomap == {**plain, **INFOMAP, "preset": f"{name}-cluster-contrast-infomap"}


def test_a_method_brings_its_own_defaults() -> None:
    assert parse(["--method", "cap"]).settings["temp"] == 0.07
    assert parse(["--method", "cap", "--temp", "0.1"]).settings["temp"] == 0.1
    assert parse(["--method", "spcl"]).settings["temp"] == parse([]).settings["temp"] == 0.05
    assert parse(["--method", "cap"]).settings["momentum"] == 0.8  # of the preset


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_presets(name: str) -> None:
    config = parse(["--preset", name])
    assert config.data.dataset == name.split("-")[0]
    method, pooling, epochs, iters, step, eps, momentum, mode, weight, contrasted = PUBLISHED[name]
    assert (config.plan.method, config.model.pooling_type) == (method, pooling)
    assert (config.optim.epochs, config.optim.iters, config.optim.step_size) == (epochs, iters, step)
    settings = config.settings
    assert (settings["eps"], settings["momentum"], settings["memory_mode"]) == (
        eps,
        momentum,
        mode,
    )
    assert weight is None or config.settings["lp_weight"] == weight
    assert config.settings["contrast_supports"] == contrasted
    assert (config.optim.sampler, config.optim.precision, config.optim.tf32) == ("published", "fp32", False)
    assert (config.settings["k1"], config.settings["k2"], config.settings["min_samples"]) == (30, 6, 4)
    assert (config.optim.batch_size, config.optim.num_instances, config.model.bn_chunk) == (256, 16, 64)
    assert (config.optim.lr, config.optim.weight_decay) == (3.5e-4, 5e-4)
    assert [settings[name] for name in ("temp", "lp_temp", "supports", "base_degree")] == [0.05, 0.6, 1, 0.25]
    size = (224, 224) if name == "veri776" else (256, 128)
    assert (config.data.height, config.data.width, config.data.padding) == (*size, 10)
    assert (config.data.flip, config.data.erase) == (0.5, 0.5)
    assert (config.model.arch, config.model.pretrained) == ("resnet50", "imagenet")


@pytest.mark.parametrize("name", presets.names())
def test_every_preset_is_valid(name: str) -> None:
    config = parse(["--preset", name])
    assert config.preset == name
    unknown = presets.values(name).keys() - config.flat().keys()
    assert not unknown


@pytest.mark.parametrize(
    ("words", "preset"),
    [
        ([], "synthetic"),
        (["-d", "omniglot"], "omniglot"),
        (["-d", "market1501"], "market1501-ise"),
        (["-d", "market1501", "--method", "cluster-contrast"], "market1501-cluster-contrast"),
    ],
)
def test_the_data_set_chooses_a_preset(words: list[str], preset: str) -> None:
    assert parse(words).preset == preset


def test_command_line_beats_file_beats_preset(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("preset: market1501-ise\neps: 0.5\nk1: 25\n")
    config = parse(["--config", str(file), "--k1", "20"])
    assert (config.optim.epochs, config.settings["eps"], config.settings["k1"]) == (70, 0.5, 20)


@pytest.mark.parametrize(
    ("words", "expected"),
    [("", False), ("--channels-last", True), ("--channels_last true", True), ("--no-channels-last", False),
     ("--channels-last=false", False)],
)  # fmt: skip
def test_switches(words: str, expected: bool) -> None:
    assert parse(words.split()).optim.channels_last is expected


def test_yaml_round_trip(tmp_path: Path) -> None:
    config = parse(["--preset", "msmt17-ise-gem", "--eps", "0.65", "--logs-dir", "somewhere"])
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    assert parse(["--config", str(tmp_path / "config.yaml")]) == config
    assert TrainConfig.from_flat(config.flat()) == config


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("--nope 3", "--nope"),
        ("--eps much", "eps"),
        ("--eps 1.5", "--eps"),
        ("--k1 0", "--k1"),
        ("--k1 4 --k2 5", "--k2"),
        ("--preset nope", "--preset"),
        ("--method nope", "method"),
        ("-b 30 --num-instances 16", "--batch-size"),
        ("-b 16 --num-instances 16", "--batch-size"),
        ("-b 96 --bn-chunk 64", "--bn-chunk"),
        ("--eps 1", "--eps"),
        ("--eps 0.99999999", "--eps"),
        ("--eps .nan", "--eps"),
        ("--lr .nan", "--lr"),
        ("--lr .inf", "--lr"),
        ("--lr 0", "--lr"),
        ("--temp 1e-30", "--temp"),
        ("--lp-temp 1e39", "--lp-temp"),
        ("--momentum .nan", "--momentum"),
        ("--base-degree 1.5", "--base-degree"),
        ("--lp-weight .inf", "--lp-weight"),
        ("--weight-decay -1", "--weight-decay"),
        ("--clip-grad .nan", "--clip-grad"),
        ("--seed 9223372036854775808", "--seed"),
        ("--seed -1", "--seed"),
        ("--epochs 99999999999", "--epochs"),
        ("--bn-chunk 1", "--bn-chunk"),
        ("--height 0", "--height"),
        ("--device cpu:3", "--device"),
        ("--device meta", "--device"),
        ("--config /does/not/exist.yaml", "exist.yaml"),
        ("-d nope", "dataset"),
    ],
)
def test_a_wrong_argument_is_one_line_and_status_2(
    words: str, named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words.split()) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert len(lines) == 1
    assert named in lines[0]
    assert list(tmp_path.iterdir()) == []


TRAIN_PATHS = ("data_dir", "cache_dir", "labels_csv", "pretrained", "logs_dir", "resume")


@pytest.mark.parametrize("name", TRAIN_PATHS)
@pytest.mark.parametrize("how", ["equals", "word", "file"])
def test_home_folder_in_every_path(name: str, how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "c.yaml").write_text(f"{name}: ~/x/y\n")
    flag = "--" + name.replace("_", "-")
    words = {"equals": [f"{flag}=~/x/y"], "word": [flag, "~/x/y"], "file": ["--config=~/c.yaml"]}[how]
    assert parse(words).flat()[name] == str(tmp_path / "x/y")


def test_every_path_is_known_to_be_one() -> None:
    """A flag that takes a file or a folder says so in its help."""
    words = re.compile(r"\b(folder|file|path)\b")
    fields = [f for section in _SECTIONS.values() for f in dataclasses.fields(section)]
    told = {f.name for f in fields if words.search(f.metadata["help"].replace("folder data set", ""))}
    marked = {f.name for f in fields if f.metadata["path"]}
    assert marked == set(TRAIN_PATHS)
    assert told - marked == {"cache", "dataset"}  # words of other meaning


def test_paths_without_a_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "c.yaml").write_text("eps: 0.45\n")
    assert parse(["--config", "~/c.yaml"]).settings["eps"] == 0.45
    assert parse(["--data-dir", "a~b", "--pretrained", "none"]).data.data_dir == "a~b"
    assert parse(["--data-dir=./~"]).data.data_dir == "./~"
    assert parse(["--data-dir=~"]).data.data_dir == str(tmp_path)
    for words in (["--logs-dir=~nobody-of-this-name/x"], ["--config=~nobody-of-this-name/x"]):
        with pytest.raises(UsageError, match=r"--\S+: there is no home folder ~nobody-of-this-name; write \./~nobody"):
            parse(words)
