"""Methods by name, and those of others."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from ise_fast import methods
from ise_fast.engine.config import TrainConfig, parse
from ise_fast.engine.errors import UsageError
from ise_fast.methods import METHODS, find_labels, find_method, register_method

PACKAGE = Path(methods.__file__).parent


def imported(path: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    return names | {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}


def test_nothing_is_imported_from_above() -> None:
    for path in PACKAGE.glob("**/*.py"):
        above = [n for n in imported(path) if n.startswith(("ise_fast.engine", "ise_fast.data", "ise_fast.models"))]
        assert not above, path


def test_trainer_and_step_name_no_method() -> None:
    for name in ("trainer", "step", "loss_step", "step_graph", "state", "assemble"):
        text = (PACKAGE.parent / "engine" / f"{name}.py").read_text()
        assert not [word for word in (*METHODS, *methods.LABELS, "ISELoss", "degree") if word in text.split()], name
        classes = {node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant)}
        assert not classes & METHODS.keys()


def test_a_method_has_all_that_the_docs_promise() -> None:
    for method in METHODS.values():
        assert method.title
        assert method.source
        assert method.labels in methods.LABELS


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nope", "--method: expected one of ise, cluster-contrast.*or package.module:NAME, got 'nope'"),
        ("no_such_module:X", "--method: no_such_module:X cannot be loaded .ModuleNotFoundError"),
        ("ise_fast.methods:NOPE", "--method: ise_fast.methods:NOPE cannot be loaded .AttributeError"),
        ("ise_fast.methods:flag", "--method: expected ise_fast.methods:flag to be a Method, got function"),
    ],
)
def test_no_such_method(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find_method(name)
    with pytest.raises(UsageError, match=message):
        parse(["--method", name])


def test_no_such_labels() -> None:
    with pytest.raises(UsageError, match=r"--labels: expected one of dbscan.*got 'nope'"):
        parse(["--labels", "nope"])
    with pytest.raises(ValueError, match="to be a LabelSource, got Method"):
        find_labels("ise_fast.methods.ise:ISE")


def test_register(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ise_fast.methods.registry.METHODS", dict(METHODS))
    own = METHODS["ise"]
    register_method("mine", own)
    register_method("mine", own)
    assert find_method("mine") is own
    with pytest.raises(ValueError, match="not taken, got 'mine'"):
        register_method("mine", METHODS["cluster-contrast"])
    with pytest.raises(TypeError, match="mine: expected a Method, got str"):
        register_method("mine", "ise")  # type: ignore[arg-type]


OWN = """
from dataclasses import dataclass
from ise_fast.methods import Method, flag
from ise_fast.methods.cluster_contrast import CLUSTER_CONTRAST as other, ContrastSettings
@dataclass(frozen=True)
class Settings(ContrastSettings):
    "Mine."
    margin: float = flag(0.5, "of mine")
METHOD = Method("Mine", "nowhere", Settings, other.memory, other.objective)
"""


def test_a_method_of_ones_own_brings_its_flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_flags.py").write_text(OWN)
    (tmp_path / "c.yaml").write_text("method: own_flags:METHOD\nmargin: 0.75\n")
    monkeypatch.syspath_prepend(tmp_path)
    words = ["--method=own_flags:METHOD", "--margin", "0.25"]
    config = parse(words)
    assert (config.settings["margin"], config.settings["temp"]) == (0.25, 0.05)
    assert parse(words[:1]).settings["margin"] == 0.5
    assert parse(["--config", str(tmp_path / "c.yaml")]).settings["margin"] == 0.75
    assert TrainConfig.from_flat(config.flat()) == config
    with pytest.raises(UsageError, match="--margin"):
        parse(["--margin", "0.25"])
    # Where the module is not there, the network of such a checkpoint can still be evaluated.
    monkeypatch.delitem(sys.modules, "own_flags")
    (tmp_path / "own_flags.py").unlink()
    assert TrainConfig.from_flat(config.flat()).model == config.model


STRANGE = """
import dataclasses
from ise_fast.methods import METHODS
@dataclasses.dataclass(frozen=True)
class Plain(METHODS["ise"].settings):
    knob: int = 3
class NoData: pass
@dataclasses.dataclass
class NoDefault:
    knob: int
PLAIN, NO_DATA, NO_DEFAULT = (dataclasses.replace(METHODS["ise"], settings=s) for s in (Plain, NoData, NoDefault))
def __getattr__(name):
    raise SystemExit(3)
"""


def test_strange_methods_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "strange.py").write_text(STRANGE)
    monkeypatch.syspath_prepend(tmp_path)
    assert parse(["--method", "strange:PLAIN", "--knob", "4"]).settings["knob"] == 4  # without `flag`
    for name, message in (
        ("NO_DATA", "expected the settings of strange:NO_DATA to be a dataclass, got <class 'strange.NoData'>"),
        ("NO_DEFAULT", "expected a default of knob in the settings of strange:NO_DEFAULT, got none"),
        ("BYE", r"strange:BYE cannot be loaded \(SystemExit: 3\)"),
    ):
        with pytest.raises(UsageError, match=f"--method: {message}"):
            parse(["--method", f"strange:{name}"])
