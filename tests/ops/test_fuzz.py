"""Almost valid arguments for every operator, raw and wrapped: a right answer, or one line that names an argument.

The cases run in a process of their own (tests/fuzzing), so that one that dies is counted and told like any other.
ISE_FAST_FUZZ sets how many each operator gets.
"""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from fuzzing import arguments, oracle, wrapped
from fuzzing.runner import run
from torch import Tensor

from ise_fast import ops

SANITIZED = "ISE_FAST_TESTED" in os.environ
CASES = int(os.environ.get("ISE_FAST_FUZZ", "40" if SANITIZED else "200"))
OPERATORS = arguments.operators()


def test_every_operator_is_fuzzed() -> None:
    """A new operator needs an entry in tests/fuzzing, and one that is gone leaves."""
    assert set(arguments.EXAMPLES) == set(OPERATORS)
    assert set(wrapped.FUNCTIONS) == set(ops.__all__)


def fuzz(kind: str, names: list[str], folder: Path) -> None:
    counts = run(kind, names, CASES, folder)
    failures = [line for name in names for line in counts[name].failures]
    assert not failures, "\n".join(["to be repeated with", *failures])
    for name, count in counts.items():
        print(f"{kind} {name}: {count.cases} cases, {count.answered} answered, {count.refused} refused")
        assert count.cases == CASES
        assert min(count.answered, count.refused) >= CASES // 20  # both were tried


def test_operators_answer_rightly_or_refuse(tmp_path: Path) -> None:
    fuzz("raw", sorted(OPERATORS), tmp_path)


def test_functions_answer_rightly_or_refuse(tmp_path: Path) -> None:
    fuzz("wrapped", sorted(wrapped.FUNCTIONS), tmp_path)


# Each kind: sizes that depend on the data, several outputs, arguments that are written. opcheck traces the others.
COMPILED = ["dbscan", "dbscan_dense", "jaccard_pairs", "kmeans", "kmeans_start", "kmeans_step", "knn", "radius_graph",
            "unite_", "update_memory_"]  # fmt: skip


@pytest.mark.parametrize("name", COMPILED)
def test_compiled_calls_are_the_same(name: str) -> None:
    """A graph of the raw operator alone, through functionalization, which reads schema and fake rule."""
    operator = OPERATORS[name]
    for seed in range(2):
        made = arguments.example(name, random.Random(seed))
        tensors = {key: value for key, value in made.items() if isinstance(value, Tensor)}
        others = {key: value for key, value in made.items() if key not in tensors}

        def call(tensors: dict[str, Tensor], others: dict[str, Any] = others) -> Any:
            return operator(**tensors, **others)

        torch._dynamo.reset()
        copies = {key: value.clone() for key, value in tensors.items()}
        with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
            compiled = torch.compile(call, backend="aot_eager", fullgraph=True)(copies)
        assert oracle.same(compiled, call(tensors))
        assert all(oracle.same(copies[key], tensors[key]) for key in tensors)


@pytest.mark.parametrize("name", [n for n in sorted(OPERATORS) if n.endswith("_")])
def test_negative_views(name: str) -> None:
    """torch puts what an operator wrote into such a view back from its first result, which ours do not have."""
    operator, made = OPERATORS[name], arguments.EXAMPLES[name](random.Random(0))
    target = operator._schema.arguments[0].name
    expected = {**made, target: made[target].clone()}
    operator(**expected)
    for key, value in made.items():
        if not isinstance(value, Tensor) or not value.is_floating_point():
            continue
        view = {**made, target: made[target].clone()}
        view[key] = torch.complex(value, -value).conj().imag
        assert view[key].is_neg()
        if key == target:
            with pytest.raises(ValueError, match=rf"^{target}: expected a tensor to write into, got a negative view"):
                operator(**view)
        else:
            operator(**view)
            assert view[target].equal(expected[target])
