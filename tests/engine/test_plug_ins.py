"""What the trainer does for a plug-in: labels that last, without features, and batches over groups of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from ise_fast.engine import checkpoint
from ise_fast.train import main
from tests.engine.conftest import watched_steps
from tests.engine.test_resume import after_step, assert_same_run

PLACE = "tests.engine.own_plug_ins"


def test_labels_that_last_and_groups(flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = [*flags, "--labels", f"{PLACE}:BY_NUMBER", "--method", f"{PLACE}:PAIRED", "--epochs", "3"]
    flags += ["--eval-step", "0", "--checkpoint-step", "1", "--keep-checkpoints", "20"]
    with watched_steps(monkeypatch) as steps:
        assert main([*flags, "--logs-dir", str(tmp_path / "whole")]) == 0
    seen = [batch for batch, _ in steps]
    assert [batch.epoch for batch in seen] == [0] * 4 + [1] * 4 + [2] * 4
    for batch in seen:
        assert torch.equal(batch.labels, batch.images // 8)
        assert len((batch.labels // 2).unique()) == 4  # 16 images, 4 of each group
    assert any(len(batch.labels.unique()) > 4 for batch in seen)

    records = [json.loads(line) for line in (tmp_path / "whole/metrics.jsonl").read_text().splitlines()]
    assert all("extract" not in record["seconds"] for record in records)
    assert [record["clusters"] for record in records] == [10, 10, 10]
    folder = tmp_path / "whole/checkpoints"
    memories = [
        checkpoint.load(folder / f"checkpoint-{at}.pt")["memory"]["centroids"]
        for at in ("0001-000000", "0001-000001", "0002-000000", "0002-000001")
    ]
    fresh = torch.eye(memories[0].shape[1])[:10]
    moved = [(rows != fresh).any(1).sum() for rows in memories]
    assert moved[1] > 4  # the memory of the second epoch is the first one's; a batch alone has 4 to 8 of its clusters
    assert moved[3] <= 8

    def dies() -> None:
        raise KeyError("killed")

    killed = [*flags, "--logs-dir", str(tmp_path / "killed"), "--resume", "auto"]
    for moment in (5, 2):  # at the first iteration of an epoch without new labels, then inside it
        with monkeypatch.context() as patch:
            after_step(patch, moment, dies)
            with pytest.raises(KeyError, match="killed"):
                main(killed)
    assert main(killed) == 0
    assert_same_run(tmp_path / "whole", tmp_path / "killed")
    state = checkpoint.load(folder / "checkpoint-0002-000001.pt")
    assert torch.equal(state["groups"], state["labels"] // 2)
