"""Learning rates by epoch, groups of weights, and runs by SGD."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ise_fast.engine.config import OptimConfig, parse
from ise_fast.engine.errors import UsageError
from ise_fast.engine.optimizer import build_optimizer, learning_rate, set_learning_rate
from ise_fast.models import build_model
from ise_fast.train import main
from tests.engine.test_resume import after_step, assert_same_run

OPTIM = OptimConfig(lr=1.0)
CAP = replace(OPTIM, milestones="20,40", warmup_epochs=10, warmup_start=0.01)


@pytest.mark.parametrize(
    ("config", "epoch", "rate"),
    [
        (replace(OPTIM, step_size=20), 19, 1.0), (replace(OPTIM, step_size=20), 40, 0.01),
        (replace(OPTIM, step_size=3, milestones="16"), 15, 1.0), (replace(OPTIM, milestones="16"), 16, 0.1),
        (CAP, 0, 0.01), (CAP, 5, 0.505), (CAP, 10, 1.0), (CAP, 20, 0.1), (CAP, 49, 0.01),
    ],
)  # fmt: skip
def test_learning_rate(config: OptimConfig, epoch: int, rate: float) -> None:
    assert learning_rate(config, epoch) == pytest.approx(rate, rel=1e-12)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_the_backbone_gets_its_share(optimizer: str) -> None:
    model = build_model("small", pretrained="none", num_features=8)
    config = replace(OPTIM, optimizer=optimizer, backbone_lr=0.1)  # type: ignore[arg-type]
    built = build_optimizer(model, config)
    set_learning_rate(built, 0.5)
    rates = {id(p): group["lr"] for group in built.param_groups for p in group["params"]}
    backbone = {id(p) for p in model.backbone.parameters()}
    assert rates == {id(p): 0.05 if id(p) in backbone else 0.5 for p in model.parameters() if p.requires_grad}
    assert len(backbone) < len(rates)


def test_sgd_is_nesterov_with_decay() -> None:
    built = build_optimizer(torch.nn.Linear(2, 2), replace(OPTIM, optimizer="sgd", weight_decay=5e-4))
    (group,) = built.param_groups
    assert (group["momentum"], group["nesterov"], group["weight_decay"]) == (0.9, True, 5e-4)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--milestones 40,20", "--milestones: expected rising epochs from 1 on, such as 20,40, got '40,20'"),
        ("--milestones x", "--milestones: expected rising epochs from 1 on, such as 20,40, got 'x'"),
        ("--milestones 0,3", "--milestones: expected rising epochs"),
        ("--optimizer sgd --sgd-momentum 0", "--sgd-momentum: expected more than 0 with Nesterov's momentum"),
        ("--optimizer adamw", "--optimizer: expected one of adam, sgd, got 'adamw'"),
        ("--backbone-lr 2", "--backbone-lr: expected a number from 0 to 1, got 2"),
        ("--warmup-epochs -1", "--warmup-epochs: expected a whole number from 0"),
    ],
)
def test_bad_settings(words: str, said: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse(words.split())
    assert said in str(raised.value)


def test_one_pass_by_sgd_killed_and_resumed(flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = "--optimizer sgd --lr 0.05 --backbone-lr 0.1 --milestones 1 --warmup-epochs 1 --reset-optimizer --iters 0"
    flags = [*flags, *words.split(), "--eval-step", "0", "--checkpoint-step", "1"]
    assert main([*flags, "--logs-dir", str(tmp_path / "whole")]) == 0

    def dies() -> None:
        raise KeyError("killed")

    killed = [*flags, "--logs-dir", str(tmp_path / "killed"), "--resume", "auto"]
    with monkeypatch.context() as patch:
        after_step(patch, 7, dies)  # in the second epoch
        with pytest.raises(KeyError, match="killed"):
            main(killed)
    assert main(killed) == 0
    assert_same_run(tmp_path / "whole", tmp_path / "killed")
    records = [json.loads(line) for line in (tmp_path / "whole/metrics.jsonl").read_text().splitlines()]
    assert [record["lr"] for record in records] == pytest.approx([0.0005, 0.005])
    names = sorted(path.name for path in (tmp_path / "whole/checkpoints").glob("checkpoint-*.pt"))
    count = (80 - records[1]["outliers"]) // 16  # one pass over the labelled images
    assert names[-2:] == [f"checkpoint-0001-{count - 1:06d}.pt", "checkpoint-0002-000000.pt"]
