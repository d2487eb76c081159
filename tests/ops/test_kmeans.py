"""k-means: every label, sum and mean equal to the plain method's, whatever the blocks, bounds and threads."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ise_fast import ops, reference


def rows(n: int, d: int, kind: str, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    centres = torch.randn(max(2, n // 12), d, generator=g)
    x = centres[torch.randint(len(centres), (n,), generator=g)] + 0.7 * torch.randn(n, d, generator=g)
    return {
        "clusters": torch.nn.functional.normalize(x, dim=1),
        "integers": x.round(),  # ties
        "copies": x[torch.arange(n) % 5],
        "far": x + 1000,  # the product decides nothing
        "huge": x * 1e25,
        "zeros": x * 0,
    }[kind]


@pytest.mark.parametrize("kind", ["clusters", "integers", "copies", "far", "huge", "zeros"])
@pytest.mark.parametrize(("n", "k", "d"), [(1, 1, 1), (70, 9, 33), (90, 12, 17)])
def test_step_and_run_equal_the_reference(device: torch.device, kind: str, n: int, k: int, d: int) -> None:
    x = rows(n, d, kind)
    centres = x[torch.randperm(n, generator=torch.Generator().manual_seed(1))[:k]].clone()
    ours, expected = ops.kmeans_step(x.to(device), centres.to(device)), reference.kmeans_step(x, centres)
    assert ours.labels.cpu().equal(expected.labels)
    assert ours.counts.cpu().equal(expected.counts)
    assert ours.sums.cpu().equal(expected.sums)
    torch.testing.assert_close(ours.distances.cpu(), expected.distances, rtol=1e-12, atol=0)
    torch.testing.assert_close(ours.inertia.cpu(), expected.inertia, rtol=1e-12, atol=0)
    for iterations in (1, 3, 100):
        run, truth = (
            ops.kmeans(x.to(device), centres.to(device), iterations=iterations),
            reference.kmeans(x, centres, iterations=iterations),
        )
        assert run.labels.cpu().equal(truth.labels)
        assert run.centres.cpu().equal(truth.centres)
        assert run.iterations == truth.iterations
        assert run.inertia == pytest.approx(truth.inertia, rel=1e-12)


def test_float64() -> None:
    x = rows(200, 9, "clusters").double()
    run, truth = (api.kmeans(x, x[:20]) for api in (ops, reference))
    assert run.labels.equal(truth.labels)
    assert run.centres.equal(truth.centres)
    assert run.centres.dtype == torch.float64


@pytest.mark.parametrize("power", [-400, 130, 400])
def test_a_power_of_two_changes_no_label(power: int) -> None:
    """Bounds are float32, and these numbers are beyond it."""
    x = rows(600, 8, "clusters").double() + rows(600, 8, "integers")
    plain, scaled = (ops.kmeans(y, y[::30].contiguous()) for y in (x, x * 2.0**power))
    assert scaled.labels.equal(plain.labels)
    assert scaled.iterations == plain.iterations > 2


def test_bounds_leave_nothing_out_in_many_columns_of_centres() -> None:
    """More centres than a tile of the product, several blocks of rows."""
    x = rows(2600, 6, "clusters")
    run = ops.kmeans(x, x[:1100], iterations=6)
    c = x[:1100]
    for _ in range(5):
        step = ops.kmeans_step(x, c)
        assert (step.counts > 0).all()
        c = (step.sums / step.counts[:, None]).float()
    c = (ops.kmeans_step(x, c).sums / ops.kmeans_step(x, c).counts[:, None]).float()
    assert run.centres.equal(c)
    assert run.labels.equal(ops.kmeans_step(x, c).labels)


@pytest.mark.parametrize("kind", ["few axes", "far", "ends of the range", "no axes"])
def test_axes_leave_nothing_out(kind: str) -> None:
    """Enough rows and centres for principal axes to be looked for."""
    n, k, d = 3000, 120, 300
    g = torch.Generator().manual_seed(2)
    x = rows(n, 12, "clusters") @ torch.randn(12, d, generator=g) + 0.01 * torch.randn(n, d, generator=g)
    x[::50] = x[7]  # copies, all of one cluster
    if kind == "far":
        x += 300
    elif kind == "ends of the range":
        x[::2] *= 1e-3
        x[5:n:100] = 0
        x[6:n:200] = 1e-30
        x[7] *= 1e4
    elif kind == "no axes":
        x = rows(n, d, "clusters")
    c = x[torch.randperm(n, generator=g)[:k]]
    c[3] = c[2].nextafter(torch.zeros(d))  # two that few columns cannot tell apart
    run, truth = (api.kmeans(x, c, iterations=3) for api in (ops, reference))
    assert run.labels.equal(truth.labels)
    assert run.centres.equal(truth.centres)
    assert run.inertia == pytest.approx(truth.inertia, rel=1e-12)


def test_empty_centres_take_the_farthest_rows() -> None:
    x = torch.tensor([[0.0], [1.0], [2.0], [10.0]])
    out = ops.kmeans(x, torch.tensor([[1.0], [100.0], [200.0]]), iterations=1)
    assert out.centres.flatten().tolist() == [1.5, 10.0, 0.0]
    assert out.labels.tolist() == [2, 0, 0, 1]
    assert sorted(ops.kmeans(x, torch.full((4, 1), 50.0)).labels.tolist()) == [0, 1, 2, 3]  # K = N


@pytest.mark.parametrize("value", [0.0, 0.3])
@pytest.mark.parametrize(("n", "k"), [(2, 2), (7, 3), (40, 39)])
def test_equal_rows_end(device: torch.device, value: float, n: int, k: int) -> None:
    """A row that fills an empty centre goes back to the first of the equal ones, every time."""
    x = torch.full((n, 2), value)
    ours = ops.kmeans(x.to(device), x[:k].to(device), iterations=2**31)
    truth = reference.kmeans(x, x[:k], iterations=2**31)
    assert ours.labels.cpu().equal(truth.labels)
    assert ours.iterations == truth.iterations < 5


def test_labels_that_take_turns_end() -> None:
    """The float64 mean of equal rows is not always the row: two fillings follow each other for ever."""
    row = [-0.96908226035551, -0.35990513506435745]
    x = torch.tensor([row] * 5, dtype=torch.float64)
    centres = torch.tensor([[0.03, 0.64], row, [0.03, 0.64]], dtype=torch.float64)
    runs = [reference.kmeans(x, centres, iterations=n) for n in (1, 2, 3)]
    assert not runs[1].centres.equal(runs[2].centres)
    ours, truth = (api.kmeans(x, centres, iterations=2**31) for api in (ops, reference))
    assert ours.labels.equal(truth.labels)
    assert ours.centres.equal(truth.centres)
    assert ours.iterations == truth.iterations < 10


def test_threads_do_not_change_the_bits() -> None:
    x = rows(700, 65, "clusters")
    before = torch.get_num_threads()
    try:
        runs = []
        for threads in (1, 3):
            torch.set_num_threads(threads)
            chosen = ops.kmeans_start(x, 30, torch.Generator().manual_seed(3))
            runs.append((chosen, *ops.kmeans(x, x[chosen])))
    finally:
        torch.set_num_threads(before)
    assert all(a.equal(b) if isinstance(a, Tensor) else a == b for a, b in zip(*runs, strict=True))


@pytest.mark.parametrize("kind", ["clusters", "integers", "copies", "far", "zeros"])
@pytest.mark.parametrize("d", [3, 300])
def test_start_is_k_means_plus_plus(device: torch.device, kind: str, d: int) -> None:
    x = rows(60, d, kind)
    draws = [
        api.kmeans_start(y, 20, torch.Generator().manual_seed(5)) for api, y in ((ops, x.to(device)), (reference, x))
    ]
    assert draws[0].cpu().equal(draws[1])
    assert len(draws[1].unique()) == 20
    assert ops.kmeans_start(x, 1).shape == (1,)


@pytest.mark.parametrize("scale", [1e-42, 1e-20, 1e18, 1e300])
def test_start_at_the_ends_of_the_range(scale: float) -> None:
    """Rows as bytes have no meaning there, or their squares no finite value: distances decide."""
    x = rows(60, 40, "clusters").double() * scale
    x = x if scale > 1e30 else x.float()
    if scale > 1e30:
        with pytest.raises(ValueError, match="x: expected"):
            ops.kmeans_start(x, 5)
        return
    chosen = [api.kmeans_start(x, 20, torch.Generator().manual_seed(5)) for api in (ops, reference)]
    assert chosen[0].equal(chosen[1])


def test_start_draws_on_the_cpu_whatever_the_default_device() -> None:
    x = rows(40, 3, "clusters")
    expected = ops.kmeans_start(x, 5, torch.Generator().manual_seed(1))
    with torch.device("meta"):
        assert ops.kmeans_start(x, 5, torch.Generator().manual_seed(1)).equal(expected)


def test_start_among_several_chunks(device: torch.device) -> None:
    x = rows(2500, 2, "clusters")
    chosen = [
        api.kmeans_start(y, 12, torch.Generator().manual_seed(5)) for api, y in ((ops, x.to(device)), (reference, x))
    ]
    assert chosen[0].cpu().equal(chosen[1])
    assert max(chosen[1]) >= 2048


def test_start_with_more_columns_than_an_integer_adds_up() -> None:
    x = torch.randint(-1, 2, (6, 140_000), generator=torch.Generator().manual_seed(0)).float()
    x[1] = x[0]
    x[1, -1] += 1
    chosen = [api.kmeans_start(x, 6, torch.Generator().manual_seed(5)) for api in (ops, reference)]
    assert chosen[0].equal(chosen[1])


def test_opcheck(device: torch.device) -> None:
    x = rows(30, 5, "clusters").to(device)
    draws = torch.rand(4, dtype=torch.float64, device=device)
    operators = torch.ops.ise_fast
    torch.library.opcheck(operators.kmeans_start.default, (x, draws))
    torch.library.opcheck(operators.kmeans_step.default, (x, x[:4]))
    torch.library.opcheck(operators.kmeans.default, (x, x[:4], 5))


GOOD: dict[str, Any] = {"x": torch.eye(3), "centres": torch.eye(3)[:2]}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": torch.ones(3, 3, dtype=torch.int64)}, TypeError, "x: expected a floating dtype"),
        ({"x": torch.eye(3) / 0}, ValueError, "x: expected finite values, .* in row 0"),
        ({"centres": torch.eye(3) / 0}, ValueError, "centres: expected finite values, .* in row 0"),
        ({"centres": torch.ones(2, 2)}, ValueError, "centres: expected size 3 in dimension 1"),
        ({"centres": torch.eye(3).double()}, ValueError, "centres: expected float32, got float64"),
        ({"centres": torch.ones(0, 3)}, ValueError, "centres: expected at least one row"),
        ({"centres": torch.ones(4, 3)}, ValueError, "centres: expected 1 to 3 rows"),
        ({"iterations": 0}, ValueError, "iterations: expected an integer of at least 1"),
    ],
)
def test_bad_input(change: dict[str, Any], error: type[Exception], message: str) -> None:
    ops.kmeans(**GOOD)
    with pytest.raises(error, match=f"^{message}"):
        ops.kmeans(**GOOD | change)
    with pytest.raises(ValueError, match=r"^clusters: expected an integer in"):
        ops.kmeans_start(torch.eye(3), 4)
