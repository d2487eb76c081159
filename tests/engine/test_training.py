"""Whole runs on a tiny data set: what they leave behind, and how they fail."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import ise_fast
from ise_fast import ops
from ise_fast.engine.features import FeatureExtractor
from ise_fast.engine.step import TrainStep
from ise_fast.engine.trainer import Trainer
from ise_fast.methods import PseudoLabels
from ise_fast.methods.dbscan_labels import DBSCANLabels
from ise_fast.train import main
from tests.engine.conftest import watched_steps


def errors(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of a failed run."""
    lines = [line for line in capsys.readouterr().err.splitlines() if "rror" in line or "needed" in line]
    assert len(lines) == 1, lines
    return lines[0]


@pytest.mark.curves
@pytest.mark.parametrize("method", ["ise", "cluster-contrast"])
def test_what_a_run_leaves_behind(method: str, flags: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert main([*flags, "--method", method, "--logs-dir", str(folder), "--tensorboard"]) == 0
    names = {p.name for p in folder.iterdir()}
    assert names >= {"metrics.json", "metrics.jsonl", "config.yaml", "environment.json", "train.log", "curves.png"}
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in records] == [0, 1, 2]
    expected = {"clusters", "outliers", "largest", "smallest", "loss", "lr", "mAP", "rank1", "mINP", "seconds"}
    ise = {"contrastive", "label_preserving", "degree"}
    assert records[1].keys() >= (expected | ise if method == "ise" else expected)
    assert method == "ise" or not ise & records[1].keys()
    assert records[1]["seconds"].keys() == {"extract", "jaccard", "dbscan", "centroids", "train", "evaluate"}
    assert records[1]["smallest"] <= records[1]["largest"]

    summary = json.loads((folder / "metrics.json").read_text())
    assert summary["last"] == records[2]
    assert summary["untrained"] == records[0]
    assert summary["best"]["mAP"] == max(record["mAP"] for record in records[1:])
    assert "test split" in summary["note"]
    assert yaml.safe_load((folder / "config.yaml").read_text())["method"] == method
    environment = json.loads((folder / "environment.json").read_text())
    assert (environment["torch"], environment["ise_fast"]) == (torch.__version__, ise_fast.__version__)
    log = (folder / "train.log").read_text()
    assert "epoch 2/2" in log
    assert "chosen on the test split" in log
    assert list((folder / "tensorboard").glob("events*"))
    assert (folder / "checkpoints/best.pt").exists()


def test_degree_counts_iterations(flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with watched_steps(monkeypatch) as steps:
        assert main([*flags, "--eval-step", "0", "--logs-dir", str(tmp_path / "run")]) == 0
    assert [progress for _, progress in steps] == [
        iteration / 8 for iteration in range(8)
    ]  # t / T, epochs of 4 iterations
    last = [json.loads(line)["degree"] for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert last == [ops.interpolation_degree(share, 0.25) for share in (3 / 8, 7 / 8)]


@pytest.mark.parametrize(("asked", "allowed"), [([], False), (["--tf32"], True), (["--no-tf32"], False)])
def test_float32_is_float32_unless_asked(
    asked: list[str], allowed: bool, flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    switches = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [switch.allow_tf32 for switch in switches]
    monkeypatch.setattr(Trainer, "run", lambda self: None)
    try:
        for switch in switches:
            switch.allow_tf32 = not allowed
        assert main([*flags, *asked, "--logs-dir", str(tmp_path / "run")]) == 0
        assert [switch.allow_tf32 for switch in switches] == [allowed, allowed]
    finally:
        for switch, value in zip(switches, before, strict=True):
            switch.allow_tf32 = value


def test_training_never_gets_an_identity(flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Trainer] = []
    run = Trainer.run
    monkeypatch.setattr(Trainer, "run", lambda self: (seen.append(self), run(self))[1])
    assert main([*flags, "--epochs", "1", "--eval-step", "0", "--logs-dir", str(tmp_path / "a")]) == 0
    reachable = vars(seen[0].images).keys() | vars(seen[0]).keys()
    assert not [name for name in reachable if "ids" in name or "identit" in name]

    # Wrong identities of the training images change nothing: the file names are all that holds them.
    data = Path(flags[flags.index("--data-dir") + 1])
    shutil.copytree(data, tmp_path / "data")
    train = tmp_path / "data/Market-1501-v15.09.15/bounding_box_train"
    for number, path in enumerate(sorted(train.iterdir())):
        path.rename(path.with_name(f"{number + 100:04d}{path.name[4:]}"))  # the same order
    renamed = [str(tmp_path / "data") if flag == str(data) else flag for flag in flags]
    files = [
        sorted((Path(d) / "Market-1501-v15.09.15/bounding_box_train").iterdir()) for d in (data, tmp_path / "data")
    ]
    assert [p.read_bytes() for p in files[0]] == [p.read_bytes() for p in files[1]]
    assert main([*renamed, "--epochs", "1", "--eval-step", "0", "--logs-dir", str(tmp_path / "b")]) == 0
    first, second = (json.loads((tmp_path / n / "metrics.jsonl").read_text()) for n in "ab")
    assert first["loss"] == second["loss"]


@pytest.mark.parametrize(
    "extra",
    ["--precision bf16 --channels-last", "--precision fp16 --clip-grad 1", "--supports 2 --memory-mode momentum"],
)
def test_arithmetic(extra: str, flags: list[str], tmp_path: Path) -> None:
    assert main([*flags, *extra.split(), "--epochs", "1", "--logs-dir", str(tmp_path / "r")]) == 0
    record = json.loads((tmp_path / "r/metrics.jsonl").read_text().splitlines()[1])
    assert 0 < record["loss"] < 100


def test_eval_step(flags: list[str], tmp_path: Path) -> None:
    assert main([*flags, "--epochs", "3", "--eval-step", "2", "--logs-dir", str(tmp_path / "r")]) == 0
    records = [json.loads(line) for line in (tmp_path / "r/metrics.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in records if "mAP" in record] == [0, 2, 3]


def test_no_clusters_at_first_is_an_error_with_advice(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*flags, "--min-samples", "60", "--logs-dir", str(tmp_path / "r")]) == 1
    line = errors(capsys)
    assert "0 clusters, 4 needed" in line
    assert "distance to the min_samples-th neighbour by quantile" in line
    assert "--eps" in line


@pytest.mark.parametrize(("extra", "first"), [([], "1 clusters, 4 needed"), (["--max-pairs", "60"], "max_pairs = 60")])
def test_collapsed_features_are_an_error_that_names_them(
    extra: list[str], first: str, flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    extract = FeatureExtractor.__call__
    monkeypatch.setattr(FeatureExtractor, "__call__", lambda *a, **k: extract(*a, **k)[:1].repeat(80, 1))
    arguments = [*flags, *extra, "--eval-step", "0", "--k2", "4", "--min-samples", "4"]
    assert main([*arguments, "--logs-dir", str(tmp_path / "r")]) == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "collapsed" in line]
    assert first in line
    assert line.count("lower --lr") == 1
    assert "features have collapsed: rows 0, 1, 2 are among the nearest of 80 of 80 rows" in line


@pytest.mark.parametrize("choice", ["previous", "stop"])
def test_few_clusters_later(
    choice: str, flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = iter(range(100))
    label = DBSCANLabels.__call__

    def fails_in_the_second_epoch(self: DBSCANLabels, *arguments: Any) -> PseudoLabels:
        result = label(self, *arguments)
        return PseudoLabels(torch.zeros_like(result.labels)) if next(calls) == 1 else result

    monkeypatch.setattr(DBSCANLabels, "__call__", fails_in_the_second_epoch)
    status = main([*flags, "--on-few-clusters", choice, "--epochs", "3", "--logs-dir", str(tmp_path / "r")])
    assert status == (0 if choice == "previous" else 1)
    assert "epoch 2: 1 clusters, 4 needed" in capsys.readouterr().err
    if choice == "previous":
        records = [json.loads(line) for line in (tmp_path / "r/metrics.jsonl").read_text().splitlines()]
        assert records[2]["clusters"] == records[1]["clusters"]


def test_nan_names_iteration_and_tensor(
    flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = iter(range(1, 100))
    step = TrainStep.__call__

    def spoils_the_weights(self: TrainStep, *arguments: Any) -> Any:
        result = step(self, *arguments)
        if next(steps) == 6:
            next(self.model.parameters()).data[0] = torch.nan
        return result

    monkeypatch.setattr(TrainStep, "__call__", spoils_the_weights)
    assert main([*flags, "--logs-dir", str(tmp_path / "r")]) == 1
    err = capsys.readouterr().err
    assert "epoch 2, iteration 3: features of shape" in err
    assert "--resume auto" in err
    assert (tmp_path / "r/checkpoints/checkpoint-0001-000000.pt").exists()


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (["--data-dir", "/does/not/exist"], "/does/not/exist"),
        (["--k1", "500"], "--k1"),
        (["-a", "nope"], "arch"),
        (["--pretrained", "/no/such/file.pth"], "/no/such/file.pth"),
        (["--resume", "/no/such/checkpoint.pt"], "/no/such/checkpoint.pt"),
        (["--device", "cuda:99"], "--device"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    change: list[str], named: str, flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*flags, *change, "--logs-dir", str(tmp_path / "r")]) == 2
    assert named in errors(capsys)
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("choice", ["error", "skip"])
def test_an_unreadable_image(choice: str, flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = Path(flags[flags.index("--data-dir") + 1])
    shutil.copytree(data, tmp_path / "data")
    broken = sorted((tmp_path / "data/Market-1501-v15.09.15/bounding_box_train").iterdir())[3]
    broken.write_bytes(b"not a picture")
    run = [*flags, "--data-dir", str(tmp_path / "data"), "--epochs", "1", "--unreadable", choice]
    status = main([*run, "--logs-dir", str(tmp_path / "r")])
    err = capsys.readouterr().err
    assert broken.name in err
    if choice == "error":
        assert status == 2
        assert "--unreadable skip" in err
        assert not (tmp_path / "r").exists()
    else:
        assert status == 0
        assert "1 of 80 images cannot be read" in err
