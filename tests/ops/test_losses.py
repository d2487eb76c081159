"""The compiled losses: published numbers, float32 error budgets against float64, and the rules of the operators."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from golden_data import load, names
from torch import Tensor
from torch.nn.functional import normalize

from ise_fast import ops, reference
from ise_fast.types import ISELossOutput


def batch(
    seed: int, b: int, clusters: int, d: int, noise: float = 0.3, labels: int | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """float64 unit features near their centroids, labels of unequal group sizes, unit centroids."""
    generator = torch.Generator().manual_seed(seed)
    centroids = normalize(torch.randn(clusters, d, generator=generator, dtype=torch.float64), dim=1)
    y = torch.randint(labels or clusters, (b,), generator=generator)
    features = centroids[y] + noise * torch.randn(b, d, generator=generator, dtype=torch.float64) / math.sqrt(d)
    return normalize(features, dim=1).float().double(), y, centroids.float().double()


def run(
    loss: Callable[..., ISELossOutput], features: Tensor, *arguments: Any, **options: Any
) -> tuple[list[Tensor], Tensor]:
    """The three losses and the gradient of the first, in float64."""
    leaf = features.clone().requires_grad_()
    out = loss(leaf, *arguments, **options)
    out.loss.backward()
    assert leaf.grad is not None
    return [value.detach().double().cpu() for value in out[:3]], leaf.grad.double().cpu()


def assert_within_budget(device: torch.device, f: Tensor, y: Tensor, c: Tensor, degree: float, **options: Any) -> None:
    """|ours - f64| <= 2 |same-dtype PyTorch - f64| + small, for the losses and the gradient, with and without Gram."""
    truth, truth_grad = run(reference.ise_loss, f, y, c, degree, **options)
    # What a rounding of a similarity becomes in a logit, against the defaults.
    amplification = max(1.0, 0.05 / options.get("temperature", 0.05), 0.6 / options.get("lp_temperature", 0.6))
    plain, plain_grad = run(reference.ise_loss, f.float(), y, c.float(), degree, **options)
    f, y, c = f.float().to(device), y.to(device), c.float().to(device)
    for gram in (None, c @ c.T):
        ours, grad = run(ops.ise_loss, f, y, c, degree, gram=gram, **options)
        for a, b, t in zip(ours, plain, truth, strict=True):
            rounding = (b - t).abs().nan_to_num()  # PyTorch's exp overflows for lp_temperature = 0.01, ours may not
            assert (a - t).abs() <= 2 * rounding + 2e-6 * t.abs() + 1e-7
        scale = truth_grad.abs().max()
        rounding = (plain_grad - truth_grad).abs().max().nan_to_num()
        assert (grad - truth_grad).abs().max() <= 2 * rounding + 2e-6 * scale * amplification


@pytest.mark.parametrize("name", names("head"))
def test_golden(name: str, device: torch.device) -> None:
    g = load(name)
    options = {"k": g["topk"], "temperature": g["tau"], "lp_temperature": g["tau_lp"], "lp_weight": g["lp_weight"]}
    f, y, c = (g[key].to(device) for key in ("features", "labels", "memory_before"))
    for gram in (None, c @ c.T):
        leaf = f.clone().requires_grad_()
        out = ops.ise_loss(leaf, y, c, g["effective_lambda"], gram=gram, **options)
        out.loss.backward()
        assert out.contrastive.item() == pytest.approx(g["loss_cc"], rel=2e-6)
        assert out.label_preserving.item() == pytest.approx(g["loss_lp"], rel=2e-6)
        assert out.loss.item() == pytest.approx(g["loss"], rel=2e-6)
        torch.testing.assert_close(out.supports.flatten(0, 1).cpu(), g["supports"], rtol=0, atol=1e-7)
        assert not out.supports.requires_grad
        torch.testing.assert_close(leaf.grad.cpu(), g["grad"], rtol=0, atol=2e-6 * float(g["grad"].abs().max()))


@pytest.mark.parametrize("k", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("degree", [0.0, 0.25])
def test_error_budget_by_k(device: torch.device, k: int, degree: float) -> None:
    assert_within_budget(device, *batch(k, 31, 33, 65), degree, k=k)


@pytest.mark.parametrize("tau", [0.01, 0.02, 0.025, 0.05, 0.1, 1.0])
@pytest.mark.parametrize("tau_lp", [0.01, 0.6, 1.0])
def test_error_budget_by_temperature(device: torch.device, tau: float, tau_lp: float) -> None:
    assert_within_budget(
        device, *batch(7, 33, 17, 31, noise=1.0), 0.25, k=2, temperature=tau, lp_temperature=tau_lp, lp_weight=0.5
    )


@pytest.mark.parametrize(
    ("b", "clusters", "d", "k"),
    [(1, 2, 1, 1), (1, 2, 3, 1), (2, 3, 33, 2), (5, 6, 31, 5), (257, 19, 8, 1), (31, 1031, 16, 2)],
)
def test_odd_shapes(device: torch.device, b: int, clusters: int, d: int, k: int) -> None:
    assert_within_budget(device, *batch(11, b, clusters, d), 0.25, k=k, temperature=0.2)


def test_batch_of_one_label(device: torch.device) -> None:
    f, y, c = batch(2, 7, 9, 12, labels=1)
    assert_within_budget(device, f, y, c, 0.25, k=3)
    out = ops.ise_loss(f.float().to(device), y.to(device), c.float().to(device), 0.25)
    assert abs(out.label_preserving.item()) < 1e-5


def test_own_probability_next_to_one_keeps_its_gradient(device: torch.device) -> None:
    """1 - p_o is about 1e-7: a rounded p_o would lose all of the gradient, cross_entropy in float32 does."""
    tau = 0.05
    angle = math.acos(-tau * 16.1 + 1)  # other centroid 16.1 tau below the own one
    c = torch.tensor([[1.0, 0.0], [math.cos(angle), math.sin(angle)]], dtype=torch.float64)
    f = c[:1].clone().requires_grad_()
    truth = reference.cluster_nce_loss(f, torch.tensor([0]), c, tau)
    truth.backward()
    assert 5e-8 < truth.item() < 2e-7
    leaf = f.detach().float().to(device).requires_grad_()
    loss = ops.cluster_nce_loss(leaf, torch.tensor([0], device=device), c.float().to(device), tau)
    loss.backward()
    assert loss.item() == pytest.approx(truth.item(), rel=1e-4)
    torch.testing.assert_close(leaf.grad.double().cpu(), f.grad, rtol=1e-4, atol=1e-12)


def test_losses_far_from_the_centroid_do_not_overflow(device: torch.device) -> None:
    """The own centroid is the worst one: exp of the difference is up to e^200."""
    c = torch.tensor([[-1.0, 0.0], [1.0, 0.0], [0.6, 0.8]], dtype=torch.float64)
    f = torch.tensor([[1.0, 0.0], [0.8, 0.6]], dtype=torch.float64)
    assert_within_budget(device, f, torch.tensor([0, 0]), c, 0.1, k=2, temperature=0.01)
    assert_within_budget(device, f, torch.tensor([0, 0]), c, 0.1, k=2, temperature=0.025)


def test_rows_of_the_batch_in_blocks() -> None:
    """More than 32 million products are taken in blocks of rows; the direct form of the label-preserving term."""
    f, y, c = batch(5, 260, 140_000, 16, noise=2.0, labels=40)
    y[-1] = 139_999
    ours, grad = run(ops.ise_loss, f.float(), y, c.float(), 0.25, temperature=0.2)
    truth, truth_grad = run(reference.ise_loss, f, y, c, 0.25, temperature=0.2)
    for a, t in zip(ours, truth, strict=True):
        assert a.item() == pytest.approx(t.item(), rel=5e-6)
    assert (grad - truth_grad).abs().max() <= 1e-5 * truth_grad.abs().max()


@pytest.mark.parametrize("gram", [False, True])
def test_gradcheck(gram: bool) -> None:
    f, y, c = batch(3, 6, 5, 4, noise=1.0)
    kept = c @ c.T if gram else None

    def losses(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        out = ops.ise_loss(features, y, c, 0.3, k=2, temperature=0.5, lp_weight=0.7, gram=kept)
        return out.loss, out.contrastive, out.label_preserving

    assert torch.autograd.gradcheck(losses, f.requires_grad_())
    assert torch.autograd.gradcheck(lambda x: ops.cluster_nce_loss(x, y, c, 0.5), f)


def test_each_loss_has_its_own_gradient(device: torch.device) -> None:
    f, y, c = (x.to(device) for x in batch(4, 9, 7, 16))
    f, c = f.float(), c.float()

    def gradient(combine: Callable[[ISELossOutput], Tensor]) -> Tensor:
        leaf = f.clone().requires_grad_()
        combine(ops.ise_loss(leaf, y, c, 0.25, k=2, lp_weight=0.5)).backward()
        assert leaf.grad is not None
        return leaf.grad

    parts = gradient(lambda o: o.contrastive), gradient(lambda o: o.label_preserving)
    torch.testing.assert_close(gradient(lambda o: o.loss), parts[0] + 0.5 * parts[1])
    torch.testing.assert_close(gradient(lambda o: 3 * o.loss + o.contrastive), 4 * parts[0] + 1.5 * parts[1])


@pytest.mark.parametrize("implementation", [ops, reference])
@pytest.mark.parametrize("rows", [9, 300])
def test_a_weight_of_zero_leaves_the_label_preserving_term_out(
    device: torch.device, implementation: Any, rows: int
) -> None:
    f, y, c = (x.to(device) for x in batch(4, rows, 7, 16))
    f, c = f.float(), c.float()

    def result(weight: float) -> tuple[ISELossOutput, Tensor]:
        leaf = f.clone().requires_grad_()
        out = implementation.ise_loss(leaf, y, c, 0.25, k=2, lp_weight=weight)
        return out, torch.autograd.grad(out.contrastive if weight else out.loss, leaf)[0]

    (without, grad), (full, contrastive_grad) = result(0.0), result(0.5)
    assert without.label_preserving == 0 < full.label_preserving
    assert without.loss == without.contrastive == full.contrastive
    assert torch.equal(grad, contrastive_grad)


def test_cluster_nce(device: torch.device) -> None:
    f, y, c = batch(6, 33, 17, 31)
    leaf, exact, plain = f.float().to(device).requires_grad_(), f.clone().requires_grad_(), f.float().requires_grad_()
    loss = ops.cluster_nce_loss(leaf, y.to(device), c.float().to(device))
    truth = reference.cluster_nce_loss(exact, y, c)
    other = reference.cluster_nce_loss(plain, y, c.float())
    for x in (loss, truth, other):
        x.backward()
    assert abs(loss.item() - truth.item()) <= 2 * abs(other.item() - truth.item()) + 2e-6 * truth.item()
    error = (leaf.grad.cpu() - exact.grad).abs().max()
    assert error <= 2 * (plain.grad - exact.grad).abs().max() + 1e-6 * exact.grad.abs().max()


def test_duplicated_centroids_and_ties(device: torch.device) -> None:
    """Centroids 1 and 2 coincide: the support steps towards the first of them; both count in the softmax."""
    c = torch.eye(4)[[0, 1, 1, 2]].to(device)
    f = normalize(torch.tensor([[0.8, 0.6, 0.0, 0.0]]), dim=1).to(device)
    y = torch.tensor([0], device=device)
    assert ops.nearest_centroids(f, c, y, 2).indices.tolist() == [[1, 2]]
    assert_within_budget(device, f.double().cpu(), y.cpu(), c.double().cpu(), 0.25, k=2)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_features(device: torch.device, dtype: torch.dtype) -> None:
    f, y, c = (x.to(device) for x in batch(8, 9, 7, 16))
    half = f.to(dtype).requires_grad_()
    single = half.detach().float().requires_grad_()
    out, expected = (ops.ise_loss(x, y, c.float(), 0.25) for x in (half, single))
    assert {value.dtype for value in out} == {torch.float32}
    out.loss.backward()
    expected.loss.backward()
    assert half.grad is not None
    assert half.grad.dtype == dtype
    if device.type == "cpu":  # where all is computed in float32
        assert out.loss.equal(expected.loss)
        assert half.grad.equal(single.grad.to(dtype))
    rounding = torch.finfo(dtype).eps
    assert (out.loss - expected.loss).abs() <= rounding
    assert (half.grad - single.grad).abs().max() <= 2 * rounding * single.grad.abs().max()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_centroids_are_what_they_are_in_float32(device: torch.device, dtype: torch.dtype) -> None:
    f, y, c = (x.to(device) for x in batch(8, 9, 7, 16))
    short = c.to(dtype)
    for features in (f.float(), f.to(dtype)):
        expected, found = (run(ops.ise_loss, features, y, table, 0.25) for table in (short.float(), short))
        assert all(map(torch.equal, found[0], expected[0]))
        assert found[1].equal(expected[1])


def test_a_network_under_autocast_hands_over_what_it_has(device: torch.device) -> None:
    """Features of bfloat16 from a layer under autocast; the gradient goes back through it."""
    f, y, c = (x.to(device) for x in batch(8, 9, 7, 16))
    layer = torch.nn.Linear(16, 16, device=device)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        rows = layer(f.float())
    assert rows.dtype == torch.bfloat16
    (ops.ise_loss(rows, y, c.float(), 0.25).loss + ops.cluster_nce_loss(rows, y, c.float())).backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.dtype == torch.float32
    assert layer.weight.grad.any()


def test_autocast_changes_nothing(device: torch.device) -> None:
    f, y, c = (x.to(device) for x in batch(8, 64, 129, 32))
    f, c = f.float(), c.float()
    plain, plain_grad = run(ops.ise_loss, f, y, c, 0.25)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        cast, cast_grad = run(ops.ise_loss, f, y, c, 0.25)
    assert all(map(torch.equal, cast, plain))
    assert cast_grad.equal(plain_grad)


def test_strided_input(device: torch.device) -> None:
    f, y, c = (x.to(device) for x in batch(9, 12, 7, 16))
    f, c = f.float(), c.float()
    gram = c @ c.T
    expected = run(ops.ise_loss, f, y, c, 0.25, k=2, gram=gram)
    strided = run(
        ops.ise_loss,
        f.T.contiguous().T,
        y.repeat_interleave(2)[::2],
        c.repeat_interleave(2, 0)[::2],
        0.25,
        k=2,
        gram=gram.T.contiguous().T,
    )
    assert all(map(torch.equal, strided[0], expected[0]))
    assert strided[1].equal(expected[1])


@pytest.mark.parametrize(("b", "clusters", "d"), [(7, 33, 1), (1, 70, 33), (40, 700, 5)])
def test_addresses_do_not_change_the_bits(b: int, clusters: int, d: int) -> None:
    """A table that begins inside a buffer, at no multiple of a vector."""
    generator = torch.Generator().manual_seed(0)
    f, c = (normalize(torch.randn(rows, d, generator=generator)) for rows in (b, clusters))
    y = torch.randint(clusters, (b,), generator=generator)

    def step(f: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        leaf = f.requires_grad_()
        loss = ops.cluster_nce_loss(leaf, y, c, 0.05)
        return loss.detach(), torch.autograd.grad(loss, leaf)[0]

    expected = step(f.clone(), c)
    for offset in (1, 3, 8):
        inside = torch.empty(offset + c.numel())[offset:].view_as(c).copy_(c)
        assert all(map(torch.equal, step(f.clone(), inside), expected))


def test_the_degree_may_be_a_tensor(device: torch.device) -> None:
    f, y, c = (x.to(device) for x in batch(9, 12, 7, 16))
    f, c = f.float(), c.float()
    degree = torch.tensor(0.0, dtype=torch.float64, device=device)
    for number in (0.1, 0.25):
        degree.fill_(number)
        for implementation in (ops, reference):
            expected = run(implementation.ise_loss, f, y, c, number, k=2)
            found = run(implementation.ise_loss, f, y, c, degree, k=2)
            assert all(map(torch.equal, found[0], expected[0]))
            assert found[1].equal(expected[1])


def test_threads_do_not_change_the_bits() -> None:
    f, y, c = batch(10, 130, 301, 257)
    f, c = f.float(), c.float()
    gram = c @ c.T
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 4, 1):
            torch.set_num_threads(threads)
            for g in (None, gram):
                losses, gradient = run(ops.ise_loss, f, y, c, 0.25, k=2, gram=g)
                results.append((*losses, gradient))
    finally:
        torch.set_num_threads(before)
    for i, other in enumerate(results):
        assert all(map(torch.equal, other, results[i % 2]))


def test_no_gradient_asked_for(device: torch.device) -> None:
    f, y, c = (x.to(device) for x in batch(9, 5, 7, 16))
    f, c = f.float(), c.float()
    out = ops.ise_loss(f, y, c, 0.25)
    assert not out.loss.requires_grad
    with torch.no_grad():
        assert ops.ise_loss(f.clone().requires_grad_(), y, c, 0.25).loss.equal(out.loss)
    with torch.inference_mode():
        assert ops.ise_loss(f, y, c, 0.25).loss.equal(out.loss)


def test_outputs_beside_the_losses_have_no_gradient(device: torch.device) -> None:
    f, y, c = (x.to(device) for x in batch(9, 5, 7, 16))
    leaf, c = f.float().requires_grad_(), c.float()
    heads = torch.ops.ise_fast
    *_, supports, _, _ = heads.ise_loss(leaf, y, c, 0.25, 2, 0.05, 0.6, 0.1, None, True)
    assert not torch.autograd.grad(supports.sum(), leaf)[0].any()
    _, internal = heads.cluster_nce_loss(leaf, y, c, 0.05, True)
    assert torch.autograd.grad(internal.sum(), leaf, allow_unused=True) == (None,)


def test_second_derivative_is_refused(device: torch.device) -> None:
    f, y, c = (x.to(device) for x in batch(9, 5, 7, 16))
    leaf, c = f.float().requires_grad_(), c.float()
    for name, loss in (
        ("ise_loss", lambda: ops.ise_loss(leaf, y, c, 0.25).loss),
        ("cluster_nce_loss", lambda: ops.cluster_nce_loss(leaf, y, c)),
    ):
        (gradient,) = torch.autograd.grad(loss(), leaf, create_graph=True)
        with pytest.raises(NotImplementedError, match=f"{name}: second derivatives are not available"):
            gradient.square().sum().backward()
    for name, tangent_of in (
        ("ise_loss", lambda x: ops.ise_loss(x, y, c, 0.25).loss),
        ("cluster_nce_loss", lambda x: ops.cluster_nce_loss(x, y, c)),
    ):
        with pytest.raises(NotImplementedError, match=f"{name}: forward-mode derivatives are not available"):
            torch.func.jvp(tangent_of, (leaf.detach(),), (leaf.detach(),))


def test_opcheck(device: torch.device) -> None:
    f, y, c = (x.to(device) for x in batch(9, 5, 7, 16))
    f, c = f.float(), c.float()
    heads = torch.ops.ise_fast
    for leaf in (f, f.clone().requires_grad_()):
        for gram in (None, c @ c.T):
            arguments = (leaf, y, c, 0.25, 2, 0.05, 0.6, 0.1, gram, leaf.requires_grad)
            torch.library.opcheck(heads.ise_loss.default, arguments)
        torch.library.opcheck(heads.cluster_nce_loss.default, (leaf, y, c, 0.05, leaf.requires_grad))
    one = torch.ones((), device=device)
    torch.library.opcheck(heads.ise_loss_backward.default, (one, one, one, f, f, f, 0.1))
    torch.library.opcheck(heads.cluster_nce_loss_backward.default, (one, f, f))
    half = f.half().requires_grad_()
    torch.library.opcheck(heads.ise_loss.default, (half, y, c, 0.25, 2, 0.05, 0.6, 0.1, c @ c.T, True))
    torch.library.opcheck(heads.cluster_nce_loss.default, (half, y, c.bfloat16(), 0.05, True))
    torch.library.opcheck(heads.ise_loss_backward.default, (one, one, one, f.half(), f, f, 0.1))
    torch.library.opcheck(heads.cluster_nce_loss_backward.default, (one, f.bfloat16(), f))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compile(device: torch.device, dtype: torch.dtype) -> None:
    f, y, c = (x.to(device) for x in batch(9, 6, 7, 16))
    c = c.float()

    def step(features: Tensor) -> tuple[Tensor, Tensor]:
        out = ops.ise_loss(normalize(features, dim=1), y, c, 0.25, k=2)
        return out.loss + ops.cluster_nce_loss(features, y, c), out.supports

    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    results = []
    for function in (step, compiled):
        leaf = (2 * f).to(dtype).requires_grad_()
        loss, supports = function(leaf)
        loss.backward()
        results.append((loss.detach(), supports, leaf.grad))
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


GOOD: dict[str, Any] = {"features": torch.eye(3), "labels": torch.arange(3), "centroids": torch.eye(3), "degree": 0.25}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"features": torch.ones(3)}, ValueError, r"features: expected 2 dimensions, got shape \[3\]"),
        (
            {"features": torch.ones(3, 3, dtype=torch.int64)},
            TypeError,
            "features: expected a floating dtype, got int64",
        ),
        ({"features": torch.zeros(0, 3), "labels": torch.arange(0)}, ValueError, "features: expected at least one row"),
        ({"features": torch.eye(3) * math.nan}, ValueError, "features: expected finite values, .* in row 0"),
        ({"centroids": torch.ones(3, 2)}, ValueError, r"centroids: expected size 3 in dimension 1, got shape \[3, 2\]"),
        (
            {"centroids": torch.eye(3).double()},
            ValueError,
            "centroids: expected float32, float16 or bfloat16, got float64",
        ),
        ({"centroids": torch.eye(3) / 0}, ValueError, "centroids: expected finite values, .* in row 0"),
        ({"labels": torch.tensor([0, 1, 3])}, ValueError, "labels: expected 0 to 2, got 3 at row 2"),
        ({"labels": torch.tensor([0, -1, 2])}, ValueError, "labels: expected 0 to 2, got -1 at row 1"),
        ({"labels": torch.zeros(3)}, ValueError, "labels: expected int64, got float32"),
        ({"degree": 1.5}, ValueError, r"degree: expected a finite number in \[0, 1\], got 1.5"),
        ({"degree": -0.1}, ValueError, r"degree: expected a finite number in \[0, 1\], got -0.1"),
        ({"degree": torch.tensor(0.5)}, TypeError, "degree: expected dtype float64, got float32"),
        ({"degree": torch.tensor([0.5]).double()}, ValueError, r"degree: expected 0 dimensions, got shape \(1,\)"),
        ({"degree": torch.tensor(1.5).double()}, ValueError, r"degree: expected a number in \[0, 1\], got 1.5"),
        ({"k": 3}, ValueError, "k: expected 1 to 2 .*, got 3"),
        ({"k": 0}, ValueError, "k: expected an integer of at least 1, got 0"),
        ({"temperature": 0}, ValueError, "temperature: expected a finite number"),
        ({"lp_temperature": -1}, ValueError, "lp_temperature: expected a finite number"),
        ({"lp_weight": -1}, ValueError, "lp_weight: expected a finite number"),
        ({"gram": torch.eye(2)}, ValueError, r"gram: expected size 3 in dimension 0, got shape \[2, 2\]"),
        ({"gram": torch.eye(3) * math.nan}, ValueError, "gram: expected finite inner products"),
    ],
)
def test_bad_input_names_the_argument(change: dict[str, Any], error: type[Exception], message: str) -> None:
    ops.ise_loss(**GOOD)
    with pytest.raises(error, match=f"^{message}"):
        ops.ise_loss(**GOOD | change)
