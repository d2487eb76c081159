"""docs/results.md is what its program makes of the records and notes."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from benchmarks import peers, recall, results


def test_the_page_is_made_from_the_records(tmp_path: Path) -> None:
    records = tmp_path / "results"  # a copy, since figures are drawn beside the records
    shutil.copytree(results.RECORDS, records)
    assert results.page(records) == results.TARGET.read_text()


@pytest.mark.parametrize("main", [results.main, recall.main, peers.main], ids=lambda main: main.__module__)
def test_help_does_nothing_else(
    main: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["program", "--help"])
    monkeypatch.setattr(results, "page", lambda records: pytest.fail("made anew"))
    with pytest.raises(SystemExit) as end:
        main()  # type: ignore[operator]
    assert end.value.code == 0
    assert "usage: python -m benchmarks." in capsys.readouterr().out
