"""Features that are not of unit length: one warning that says what to do, and none where they are."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ise_fast import ops, reference
from ise_fast.cluster import JaccardDBSCAN
from ise_fast.nn import ClusterMemory, ISELoss
from ise_fast.types import NotUnitRowsWarning

UnitRows = Callable[..., Tensor]


def ise(x: Tensor) -> None:
    memory = ClusterMemory(x.shape[1])
    memory.reset(torch.nn.functional.normalize(x.detach().float()[:4], dim=1))
    ISELoss()(x, torch.arange(x.shape[0]) % 4, memory, 0.5)


TAKES_UNIT_ROWS = {
    "jaccard_graph": lambda x: ops.jaccard_graph(x, 5, 2, eps=0.6),
    "jaccard_distance": lambda x: ops.jaccard_distance(x, 5, 2),
    "k_reciprocal_encoding": lambda x: ops.k_reciprocal_encoding(x, 5, 2),
    "reference": lambda x: reference.jaccard_graph(x, 5, 2, eps=0.6),
    "JaccardDBSCAN": lambda x: JaccardDBSCAN().fit(x),
    "JaccardDBSCAN of NumPy": lambda x: JaccardDBSCAN().fit(x.float().numpy()),
    "ISELoss": ise,
}


@pytest.mark.parametrize("name", TAKES_UNIT_ROWS)
@pytest.mark.parametrize(("scale", "low"), [(3.0, "3"), (0.9, "0.9"), (1.02, "1.02"), (1e-20, "1e-20")])
def test_other_lengths_are_warned_of_at_the_users_line(unit_rows: UnitRows, name: str, scale: float, low: str) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        TAKES_UNIT_ROWS[name](unit_rows(30, 8) * scale)
    assert [(warning.category, warning.filename) for warning in caught] == [(NotUnitRowsWarning, __file__)]
    assert f"expected rows of unit length, got lengths from {low} to " in str(caught[0].message)
    assert "torch.nn.functional.normalize" in str(caught[0].message)


@pytest.mark.parametrize("name", TAKES_UNIT_ROWS)
def test_one_row_is_enough(unit_rows: UnitRows, name: str) -> None:
    x = unit_rows(30, 8)
    x[17] *= 0.5
    with pytest.warns(UserWarning, match="got lengths from 0.5 to 1;"):
        TAKES_UNIT_ROWS[name](x)


@pytest.mark.parametrize("name", TAKES_UNIT_ROWS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_unit_rows_are_not(unit_rows: UnitRows, name: str, dtype: torch.dtype) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TAKES_UNIT_ROWS[name](unit_rows(30, 64).to(dtype))


def test_a_training_loop_sees_it_once(unit_rows: UnitRows) -> None:
    memory, labels = ClusterMemory(8), torch.arange(30) % 4
    memory.reset(unit_rows(4, 8))
    criterion = ISELoss()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        criterion(unit_rows(30, 8), labels, memory, 0.1)
        assert caught == []
        for progress in (0.2, 0.3, 0.4):
            criterion(2 * unit_rows(30, 8), labels, memory, progress)
    assert len(caught) == 1


def test_by_default_one_line_of_a_script_prints_it_once(unit_rows: UnitRows) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            ops.jaccard_graph(2 * unit_rows(30, 8), 5, 2, eps=0.5)
        ops.jaccard_graph(2 * unit_rows(30, 8), 5, 2, eps=0.5)
    assert len(caught) == 2  # the line in the loop, and the one after it


@pytest.mark.parametrize("rows", [0, 1])
def test_no_rows_have_no_length(rows: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if rows:
            ops.jaccard_graph(torch.eye(4)[:rows], 1, 1, eps=0.5)
        assert JaccardDBSCAN(min_samples=1).fit(np.eye(4)[: rows + 1]).labels_.max() >= 0


def test_the_loss_still_compiles_in_one_graph(unit_rows: UnitRows) -> None:
    memory, labels = ClusterMemory(8), torch.arange(30) % 4
    memory.reset(unit_rows(4, 8))
    criterion: Any = ISELoss()
    compiled = torch.compile(lambda f: criterion(f, labels, memory, 0.5).loss, fullgraph=True, backend="eager")
    features = 2 * unit_rows(30, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("error", NotUnitRowsWarning)
        found = compiled(features)
    with pytest.warns(NotUnitRowsWarning):
        assert found.equal(criterion(features, labels, memory, 0.5).loss)
