"""The comparison of methods: tuned on another seed, resumed, tolerant of what is missing or fails."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from benchmarks import methods, methods_table
from benchmarks.methods import ARMS, RATES, TUNING_SEED, MethodRun, available, main
from ise_fast.engine.config import parse
from ise_fast.methods import LABELS, METHODS


def planted(run: MethodRun) -> dict[str, Any]:
    """The second rate is best; CAP always fails, and MMCL on the second seed."""
    if run.arm == "CAP" or (run.arm == "MMCL" and run.seed == 2):
        return {"failed": "no clusters"}
    score = 0.3 + 0.01 * run.seed + 0.1 * (run.arm == "ISE") - abs(run.lr - RATES[1])
    quality = {"ARI": score, "precision": 0.5, "recall": 0.25}
    result = {"mAP": score, "rank1": score + 0.1, "clusters": 40 + run.seed, "epoch_seconds": 1.0}
    return {**result, "quality": quality}


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[MethodRun]:
    runs: list[MethodRun] = []
    monkeypatch.setattr(methods, "train", lambda dataset, run, further: (runs.append(run), planted(run))[1])
    return runs


def test_runs_and_table(trained: list[MethodRun], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(methods, "METHODS", {name: m for name, m in METHODS.items() if name != "buc"})
    arms = available(ARMS)
    assert set(ARMS) - set(arms) >= {"BUC"}
    words = ["synthetic", "--jobs", "1", "--out", str(tmp_path), "--seeds"]
    main([*words, "1"])
    assert [run for run in trained if run.seed == TUNING_SEED] == [
        MethodRun(arm, TUNING_SEED, rate) for arm in arms for rate in RATES
    ]
    reported = [run for run in trained if run.seed != TUNING_SEED]
    assert [run.arm for run in reported] == [arm for arm in arms if arm != "CAP"]
    assert {run.lr for run in reported} == {RATES[1]}
    done = len(trained)
    main([*words, "3", "--minutes", "0"])
    assert len(trained) == done
    main([*words, "3"])
    assert {run.seed for run in trained[done:]} == {2, 3}

    text = methods_table.section(tmp_path / "methods-synthetic.jsonl")
    rows = [line for line in text.splitlines() if line.startswith("|")][2:]
    assert (
        rows[0]
        == "| ISE | 3 | 42.0 ± 1.0 | 52.0 ± 1.0 | 42 ± 1 | 42.0 ± 1.0 | 50.0 ± 0.0 | 25.0 ± 0.0 | 0.002 | 1 ± 0 |"
    )
    assert any(row.startswith("| MMCL | 2 (1 failed) | 32.0 ± 1.4 |") for row in rows)
    assert "Not run: CAP, BUC." in text
    assert "Nothing else was tuned" in text


def test_a_run_that_fails_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise subprocess.CalledProcessError(1, "train", output=b"epoch 1\n0 clusters, 8 needed\n")

    monkeypatch.setattr(methods, "launch", fails)
    assert methods.train("synthetic", MethodRun("ISE", 1, 1e-3), []) == {"failed": "0 clusters, 8 needed"}


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_has_the_budget_of_the_preset(arm: str) -> None:
    plain = parse(["--dataset", "synthetic"]).flat()
    flat = parse(["--dataset", "synthetic", *ARMS[arm]]).flat()
    budget = ("arch", "batch_size", "num_instances", "iters", "epochs", "step_size", "optimizer", "eps", "k1")
    assert {name: flat[name] for name in budget} == {name: plain[name] for name in budget}


def test_every_method_and_source_of_labels_has_an_arm() -> None:
    flags = [parse(["--dataset", "synthetic", *words]).plan for words in ARMS.values()]
    assert {plan.method for plan in flags} == METHODS.keys()
    labels = {plan.labels or METHODS[plan.method].labels for plan in flags}
    assert labels == LABELS.keys()


def test_what_a_run_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[list[str]] = []
    monkeypatch.setattr(methods, "launch", lambda flags, further: told.append([*flags, *further]) or {"mAP": 0.5})
    run = MethodRun("CAP", 4, 1e-3)
    assert methods.train("omniglot", run, ["--data-dir", "D"]) == {"mAP": 0.5}
    flat = parse(told[0]).flat()
    assert (flat["method"], flat["seed"], flat["lr"], flat["data_dir"]) == ("cap", 4, 1e-3, "D")
