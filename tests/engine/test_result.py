"""What training gives to Python, and that a report that fails loses nothing."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from ise_fast import train
from ise_fast.engine.errors import UsageError


def test_the_epochs_of_a_run_are_a_table(flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = train.run([*flags, "--logs-dir", str(tmp_path / "run")])
    assert result.folder == tmp_path / "run"
    records = [json.loads(line) for line in (result.folder / "metrics.jsonl").read_text().splitlines()]
    assert list(result.history) == records
    assert result.summary == json.loads((result.folder / "metrics.json").read_text())
    table = result.epochs
    assert table.index.tolist() == [0, 1, 2]
    assert table["mAP"].tolist() == [record["mAP"] for record in records]
    assert table["seconds.train"][2] == records[2]["seconds"]["train"]
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match=r"^epochs: needs pandas \(pip install pandas\); history has the same"):
        _ = result.epochs


def test_wrong_arguments_are_an_error() -> None:
    with pytest.raises(UsageError, match="--epochs: expected"):
        train.run(["--epochs", "-1"])


@pytest.mark.parametrize("stage", ["sample_run", "write_report"])
def test_a_report_that_fails_is_a_line(
    stage: str, flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*arguments: Any) -> None:
        raise KeyError("colour\nof a curve")

    monkeypatch.setattr(train, stage, fail)
    assert train.main([*flags, "--epochs", "1", "--report", "--logs-dir", str(tmp_path / "run")]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "no report" in line]
    assert lines == [r"no report: 'colour\nof a curve'; the run itself is complete"]
    assert (tmp_path / "run/metrics.json").exists()
    assert "no report" in (tmp_path / "run/train.log").read_text()
