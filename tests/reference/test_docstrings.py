"""What is said of arguments is said once, at the operator."""

from __future__ import annotations

import inspect

import pytest

from ise_fast import ops, reference


# interpolation_degree is one function in both.
@pytest.mark.parametrize("name", sorted(set(reference.__all__) - {"interpolation_degree"}))
def test_the_reference_refers_to_the_operator(name: str) -> None:
    text, operator = inspect.getdoc(getattr(reference, name)) or "", getattr(ops, name)
    described = inspect.getdoc(operator) or ""
    assert f"`ise_fast.ops.{name}`" in text
    assert "Args:" not in text
    assert not {line.strip() for line in text.splitlines()[1:] if line.strip()} & {
        line.strip() for line in described.splitlines()
    }
    arguments = described.partition("Args:")[2]
    assert not [p for p in inspect.signature(operator).parameters if f"\n    {p}: " not in arguments]
