"""`ise-fast`: its commands, what they write, and the one line that they refuse with."""

from __future__ import annotations

import errno
import importlib
import io
import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from PIL import Image
from report_run import write_run

import ise_fast
from ise_fast.__main__ import COMMANDS, main
from ise_fast.commands.feature_file import read_features, write_columns, write_features
from ise_fast.data import normalize, open_images


def error(capsys: pytest.CaptureFixture[str], *words: object, status: int = 2) -> str:
    """The one line of a command that fails."""
    capsys.readouterr()
    assert main([str(word) for word in words]) == status
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"ise_fast {ise_fast.__version__}\n"
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"\n  {name} " in text for name in COMMANDS)
    assert main([]) == 2


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert f"usage: ise-fast {command} " in text
    assert "python -m" not in text
    assert ("signal" in text) == (command == "train")  # of the exit codes


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["trian"], "there is no command 'trian'; did you mean train?"),
        (["fly"], "there is no command 'fly'; expected one of train, evaluate"),
        (["embed", "x", "--chekpoint", "c", "--checkpoint", "c", "-o", "f.npz"], "did you mean --checkpoint?"),
        (["embed", "x", "--checkpoint", "c", "-o", "f.h5"], "--output: expected a name that ends in .npz, .npy"),
        (["embed", "x", "--checkpoint", "c", "-o", "f"], "--output: expected a name that ends in"),
        (
            ["embed", "x", "--checkpoint", "c", "-o", "f.npy", "--batch-size", "-1"],
            "--batch-size: expected a number of",
        ),
        (["embed", "x", "--checkpoint", "c", "-o", "f.npy", "-j", "0"], "--workers: expected a number of at least 1"),
        (["search", "x", "--checkpoint", "c", "--gallery", "g", "-k", "0"], "-k: expected a number of at least 1, got"),
        (
            ["embed", "x", "--checkpoint", "c", "-o", "no/f.npz"],
            "--output: no/f.npz cannot be written: there is no folder",
        ),
        (
            ["search", ".", "--checkpoint", "c", "--gallery", "g"],
            "IMAGES: expected images to look for, got the folder .",
        ),
        (["embed", "", "--checkpoint", "c", "-o", "f.npy"], "argument images: expected a path, got an empty one"),
        (["export", "c", "-o", "/proc/m.onnx"], "--output: /proc/m.onnx cannot be written: No such file or directory"),
        (["cluster", "x.npy", "-o", "x" * 300 + ".csv"], "cannot be written: File name too long"),
        (["search", "x", "--checkpoint", "c", "--gallery", "g", "-o", "no/r.csv"], "there is no folder no"),
        (["report", "run", "-o", "."], "--output: expected a file, got the folder ."),
        (["export", "c", "-o", "m.tflite"], "--output: expected a name that ends in .onnx, .pt2, got m.tflite"),
        (["export", "missing.pt", "-o", "m.onnx"], "missing.pt: there is no such file"),
        (["embed", "x"], "the following arguments are required: --checkpoint, -o/--output"),
        (["train", "--eps", "far"], "ise-fast train: error: --eps: expected a number, got 'far'"),
        (["evaluate"], "ise-fast evaluate: error: --checkpoint: expected the path of a checkpoint, got none"),
        (["report", "missing"], "ise-fast report: error: "),
    ],
)
def test_one_line_says_what_is_wrong(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert message in error(capsys, *words)


@pytest.mark.parametrize(("command", "place"), [("train", "run"), ("evaluate", "_parse"), ("embed", "parser")])
def test_ctrl_c_before_anything_is_written(
    command: str, place: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    module = importlib.import_module(COMMANDS[command][0])
    with monkeypatch.context() as patch:
        patch.setattr(module, place, interrupted)
        assert error(capsys, command, status=130).startswith(f"ise-fast {command}: interrupted")
    monkeypatch.setattr(importlib, "import_module", interrupted)
    assert error(capsys, command, status=130) == f"ise-fast {command}: interrupted"


def test_load_model_is_the_network_with_its_normalisation(trained: Path, pictures: Path) -> None:
    model = ise_fast.load_model(trained)
    assert (model.size, model.num_features, model.training) == ((32, 16), 128, False)
    paths = sorted(pictures.iterdir())
    images = open_images(paths, (32, 16)).batch(range(8))
    with torch.no_grad():
        expected = model.network(normalize(images))
        torch.testing.assert_close(model(images / 255), expected, rtol=0, atol=1e-5)
    assert torch.equal(model.embed(paths), expected)
    assert torch.equal(model.embed([str(path) for path in paths], batch_size=3)[:3], model.embed(paths[:3]))
    assert ise_fast.load_model(trained, size=(64, 32)).size == (64, 32)
    for size in (0, -1):
        with pytest.raises(ValueError, match=f"batch_size: expected at least 1, got {size}"):
            model.embed(paths, batch_size=size)


@pytest.mark.parametrize("suffix", [".npz", ".npy", ".csv", ".NPZ"])
def test_embed_writes_what_the_suffix_says(suffix: str, trained: Path, pictures: Path, tmp_path: Path) -> None:
    target = tmp_path / f"features{suffix}"
    pattern = r"(?P<id>\d+)_c(?P<camera>\d)"
    words = ["embed", pictures, "--checkpoint", trained, "-o", target, "--identity-pattern", pattern, "--quiet"]
    assert main([str(word) for word in words]) == 0
    paths = sorted(pictures.iterdir())
    features, columns = read_features(target)
    np.testing.assert_allclose(features, ise_fast.load_model(trained).embed(paths).numpy(), atol=1e-6)
    if suffix != ".npy":
        assert columns["path"].tolist() == [str(path) for path in paths]
        assert columns["id"].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
        assert columns["camera"].tolist() == [0, 1] * 4
    assert [path.name for path in tmp_path.iterdir()] == [target.name]


def test_names_that_are_not_utf8_and_long_ones(
    trained: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = os.fsdecode(bytes(tmp_path / "h") + b"\xe9.png")
    shutil.copy(pictures / "0001_c1.png", odd)
    target = tmp_path / ("x" * 250 + ".csv")  # as long as a name can be: the temporary one needs letters of its own
    words = ["embed", odd, "--checkpoint", trained, "--quiet", "-o"]
    assert main([*map(str, words), str(target)]) == 0
    assert b"h\xe9.png" in target.read_bytes()
    assert read_features(target)[1]["path"].tolist() == [odd]
    assert r"f.parquet: parquet holds no name that is not UTF-8, such as" in error(
        capsys, *words, tmp_path / "f.parquet"
    )
    ranks = ["search", odd, "--checkpoint", trained, "--gallery", target, "-k", 1, "-o", tmp_path / "r.csv"]
    assert main([str(word) for word in ranks]) == 0
    assert capsys.readouterr().out.count(r"h\udce9.png") == 2
    assert main(["cluster", str(target), "--k1", "1", "--k2", "1", "-o", str(tmp_path / "l.csv")]) == 0
    assert (tmp_path / "l.csv").read_bytes().endswith(b"h\xe9.png,-1\n")


class Ended(io.StringIO):
    """A standard output that cannot be written, or whose reader ended."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def write(self, text: str) -> int:
        raise OSError(self.number, os.strerror(self.number))


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["train", "--print_config"], ["report", "RUN"]])
def test_standard_output_that_ends(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(write_run(tmp_path / "run")) if word == "RUN" else word for word in words]
    monkeypatch.setattr("sys.stdout", Ended(errno.ENOSPC))
    assert main(words) == 2
    assert capsys.readouterr().err.splitlines()[0].endswith("No space left on device")
    monkeypatch.setattr("sys.stdout", Ended(errno.EPIPE))
    if words[0] == "report":
        assert main(words) == 0
    else:
        with pytest.raises(SystemExit, match="0"):
            main(words)
    assert capsys.readouterr().err == ""


def test_embed_names_or_skips_what_cannot_be_read(
    trained: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.jpg").write_text("no image")
    words = ["embed", pictures, tmp_path / "broken.jpg", "--checkpoint", trained, "-o", tmp_path / "f.npz"]
    assert "broken.jpg cannot be read" in error(capsys, *words, "--quiet")
    assert not (tmp_path / "f.npz").exists()
    assert main([*map(str, words), "--unreadable", "skip"]) == 0
    assert "skipped" in capsys.readouterr().err
    assert len(read_features(tmp_path / "f.npz")[0]) == 8


def test_search_finds_the_other_picture(
    trained: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gallery = tmp_path / "gallery.npz"
    assert main(["embed", str(pictures), "--checkpoint", str(trained), "-o", str(gallery), "--quiet"]) == 0
    queries = [pictures / "0002_c1.png", pictures / "0003_c2.png"]
    words = [
        "search",
        *queries,
        "--checkpoint",
        trained,
        "-k",
        2,
        "-o",
        tmp_path / "ranks.csv",
        "-o",
        tmp_path / "r.png",
    ]
    for place in (gallery, pictures):
        capsys.readouterr()
        assert main([str(word) for word in [*words, "--gallery", place]]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[1].split() == ["1", "1.000", str(queries[0])]
        table = pandas.read_csv(tmp_path / "ranks.csv")
        assert table["path"][[0, 2]].tolist() == [str(query) for query in queries]
        assert (table["similarity"].diff()[[1, 3]] <= 0).all()
        assert Image.open(tmp_path / "r.png").size == (3 * 20 + 8, 2 * 36)
    assert "-k: expected 1 to 8" in error(capsys, *words, "--gallery", gallery, "-k", 9)
    write_features(tmp_path / "other.npz", np.ones((3, 5), np.float32), {"path": ["a", "b", "c"]})
    assert "--gallery: expected 128 numbers an image, got 5" in error(
        capsys, *words, "--gallery", tmp_path / "other.npz"
    )
    np.save(tmp_path / "bare.npy", np.ones((3, 128), np.float32))
    assert "bare.npy has no column path" in error(capsys, *words, "--gallery", tmp_path / "bare.npy")


def test_export_of_a_program_takes_any_batch(trained: Path, tmp_path: Path) -> None:
    target = tmp_path / "model.pt2"
    assert main(["export", str(trained), "-o", str(target)]) == 0
    images = torch.rand(5, 3, 32, 16)
    with torch.no_grad():
        expected = ise_fast.load_model(trained)(images)
    torch.testing.assert_close(torch.export.load(target).module()(images), expected, rtol=0, atol=1e-5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_network_can_be_traced(trained: Path) -> None:
    model, images = ise_fast.load_model(trained), torch.rand(5, 3, 32, 16)
    with torch.no_grad():
        assert torch.jit.trace(model, images[:2])(images).equal(model(images))


def test_export_to_onnx(trained: Path, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    target = tmp_path / "model.onnx"
    assert main(["export", str(trained), "-o", str(target)]) == 0
    graph = onnx.load(target).graph
    assert [dim.dim_param or dim.dim_value for dim in graph.input[0].type.tensor_type.shape.dim] == ["batch", 3, 32, 16]
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_a_missing_package_is_named(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert "pip install onnx onnxscript" in error(capsys, "export", trained, "-o", tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_an_export_that_differs_is_not_kept(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from ise_fast.commands import export

    monkeypatch.setattr(
        export, "_write_program", lambda model, images, path: (path.touch(), lambda x: model(x) + 1e-3)[1]
    )
    assert "differs from the network by 1.0e-03" in error(capsys, "export", trained, "-o", tmp_path / "m.pt2")
    assert list(tmp_path.iterdir()) == []


def test_feature_files_of_other_programs(tmp_path: Path) -> None:
    x = np.random.default_rng(0).random((4, 3)).astype(np.float32)
    np.savez(tmp_path / "one.npz", embeddings=x, names=np.array(["a", "b", "c", "d"]))
    features, columns = read_features(tmp_path / "one.npz")
    assert (features == x).all()
    assert columns["names"].tolist() == ["a", "b", "c", "d"]
    pandas.DataFrame({"name": list("abcd"), "x": x[:, 0], "y": x[:, 1]}).to_csv(tmp_path / "two.csv", index=False)
    features, columns = read_features(tmp_path / "two.csv")
    np.testing.assert_allclose(features, x[:, :2], rtol=1e-6)
    assert columns.keys() == {"name"}
    np.savez(tmp_path / "several.npz", a=x, b=x)
    with pytest.raises(ValueError, match=r"several.npz: expected an array 'features', got a \(4, 3\), b \(4, 3\)"):
        read_features(tmp_path / "several.npz")
    for bad in (np.zeros(3), np.zeros((0, 3)), np.array([["a"]])):
        np.save(tmp_path / "bad.npy", bad)
        with pytest.raises(ValueError, match=r"bad.npy: expected \[n, d\] numbers"):
            read_features(tmp_path / "bad.npy")
    (tmp_path / "text.npy").write_text("hello")
    with pytest.raises(ValueError, match=r"text.npy: cannot be read"):
        read_features(tmp_path / "text.npy")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("u.csv", "path,f0\na,1\n".encode("utf-16"), "cannot be read: .*; save it as UTF-8"),
        ("w.csv", b"path,f0,f1\na,1,2\nb,x,3\n", "column f0: expected numbers, got 'x' in row 1"),
        ("s.csv", b"path;f0;f1\na;1,5;2\n", "expected columns of numbers with commas between them, got path;f0;f1"),
        ("e.csv", b"", "cannot be read: No columns to parse from file"),
        ("e.npz", b"", "cannot be read: No data left in file"),
        ("t.npz", 200, "cannot be read: File is not a zip file"),  # truncated
        ("f.npz", -100, "cannot be read: Bad CRC-32 for file 'features.npy'"),  # another byte
    ],
)
def test_damaged_feature_files(
    name: str, content: bytes | int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if isinstance(content, int):
        np.savez(tmp_path / "whole.npz", features=np.arange(300.0).reshape(100, 3))
        whole = (tmp_path / "whole.npz").read_bytes()
        content = whole[:content] if content > 0 else whole[:500] + bytes([whole[500] ^ 255]) + whole[501:]
    (tmp_path / name).write_bytes(content)
    assert re.search(f"{name}: {message}", error(capsys, "cluster", tmp_path / name))


def test_numbers_of_other_machines_and_objects(tmp_path: Path) -> None:
    x = np.random.default_rng(0).random((4, 3))
    for kind in (">f4", np.longdouble, np.float16, ">i2"):
        np.save(tmp_path / "x.npy", (100 * x).astype(kind))
        np.testing.assert_array_equal(
            torch.tensor(read_features(tmp_path / "x.npy")[0]).double(), (100 * x).astype(kind)
        )
    np.save(tmp_path / "o.npy", x.astype(object), allow_pickle=True)
    np.savez(tmp_path / "o.npz", features=x.astype(object))
    for name in ("o.npy", "o.npz"):
        with pytest.raises(ValueError, match=rf"{name}: cannot be read: .*; save numbers alone, such as array\.astype"):
            read_features(tmp_path / name)


def test_parquet_needs_a_package_or_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"\.parquet files need the package pyarrow: pip install pyarrow"):
        write_columns(tmp_path / "x.parquet", {"a": [1]})
    assert list(tmp_path.iterdir()) == []
