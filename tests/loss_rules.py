"""What holds for every loss operator with one gradient: checked by the tests of each."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

Loss = Callable[[Tensor], Tensor]


def value_and_gradient(loss: Loss, features: Tensor) -> tuple[Tensor, Tensor]:
    leaf = features.detach().clone().requires_grad_()
    value = loss(leaf)
    value.backward()
    assert leaf.grad is not None
    return value.detach(), leaf.grad


def assert_same(ours: tuple[Tensor, Tensor], expected: tuple[Tensor, Tensor]) -> None:
    for mine, theirs in zip(ours, expected, strict=True):
        assert mine.equal(theirs)


def assert_within_budget(ours: Loss, plain: Loss, truth: Loss, features: Tensor, amplification: float = 1) -> None:
    """|ours - f64| <= 2 |float32 PyTorch - f64| + small, for the loss and its gradient; `truth` takes float64."""
    mine, my_gradient = value_and_gradient(ours, features)
    other, other_gradient = value_and_gradient(plain, features)
    exact, exact_gradient = value_and_gradient(truth, features.double())
    assert (mine - exact).abs() <= 2 * (other - exact).abs().nan_to_num() + 2e-6 * exact.abs() + 1e-7
    rounding = (other_gradient - exact_gradient).abs().max().nan_to_num()
    small = 2e-6 * exact_gradient.abs().max() * amplification
    assert (my_gradient - exact_gradient).abs().max() <= 2 * rounding + small


def check_loss_rules(name: str, loss: Loss, features: Tensor) -> None:
    """Scaled gradients, no gradient, half precision, autocast, strides, compile, threads, refused derivatives."""
    expected = value_and_gradient(loss, features)
    value, gradient = expected
    assert value.dtype == gradient.dtype == torch.float32
    torch.testing.assert_close(value_and_gradient(lambda f: 3 * loss(f), features)[1], 3 * gradient)
    assert not loss(features).requires_grad
    assert loss(features).equal(value)
    with torch.no_grad():
        assert loss(features.clone().requires_grad_()).equal(value)
    with torch.inference_mode():
        assert loss(features).equal(value)

    half = features.to(torch.bfloat16)
    expected_half = value_and_gradient(loss, half.float())
    in_half = value_and_gradient(loss, half)
    assert_same(in_half, (expected_half[0], expected_half[1].to(torch.bfloat16)))

    with torch.autocast(features.device.type, dtype=torch.bfloat16):
        assert_same(value_and_gradient(loss, features), expected)
    leaf = features.T.contiguous().T.requires_grad_()
    strided = loss(leaf)
    strided.backward()
    assert_same((strided.detach(), leaf.grad), expected)

    compiled = torch.compile(lambda f: loss(2 * f), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(
        value_and_gradient(compiled, features),
        value_and_gradient(lambda f: loss(2 * f), features),
        rtol=1e-6,
        atol=1e-7,
    )
    if features.device.type == "cpu":
        before = torch.get_num_threads()
        try:
            for threads in (1, 3):
                torch.set_num_threads(threads)
                assert_same(value_and_gradient(loss, features), expected)
        finally:
            torch.set_num_threads(before)

    leaf = features.clone().requires_grad_()
    (first,) = torch.autograd.grad(loss(leaf), leaf, create_graph=True)
    with pytest.raises(NotImplementedError, match=f"{name}: second derivatives are not available"):
        first.square().sum().backward()
    with pytest.raises(NotImplementedError, match=f"{name}: forward-mode derivatives are not available"):
        torch.func.jvp(loss, (features,), (features,))
