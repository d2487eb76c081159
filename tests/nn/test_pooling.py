import pytest
import torch

from ise_fast.nn import AveragePooling, GeMPooling


def test_average():
    x = torch.randn(3, 4, 5, 2)
    torch.testing.assert_close(AveragePooling()(x), x.flatten(2).mean(2))


@pytest.mark.parametrize("p", [1.0, 3.0, 6.5])
def test_gem_by_its_formula(p):
    x = torch.rand(3, 4, 5, 2, dtype=torch.float64) + 0.1
    expected = (x**p).flatten(2).mean(2) ** (1 / p)
    torch.testing.assert_close(GeMPooling(p)(x.float()).double(), expected, rtol=1e-5, atol=0)


def test_gem_learns_p():
    x = torch.rand(2, 3, 4, 4)
    pool = GeMPooling()
    pool(x).sum().backward()
    step = 1e-2
    with torch.no_grad():
        slope = (GeMPooling(3 + step)(x).sum() - GeMPooling(3 - step)(x).sum()) / (2 * step)
    torch.testing.assert_close(pool.p.grad, slope, rtol=1e-3, atol=1e-4)


def test_gem_takes_negative_and_half_input():
    x = -torch.rand(2, 3, 4, 4)
    torch.testing.assert_close(GeMPooling()(x), torch.full((2, 3), 1e-6))
    x = torch.full((2, 3, 4, 4), 100.0, dtype=torch.float16)
    output = GeMPooling()(x)
    assert output.dtype == torch.float16
    torch.testing.assert_close(output, torch.full((2, 3), 100.0, dtype=torch.float16), rtol=2e-3, atol=0)


def test_gem_on_meta():
    assert GeMPooling().to("meta")(torch.rand(2, 3, 4, 4, device="meta")).shape == (2, 3)


def test_gem_compiles_without_graph_break():
    x = torch.rand(2, 3, 4, 4)
    assert torch.compile(GeMPooling(), fullgraph=True, backend="eager")(x).equal(GeMPooling()(x))


def test_gem_says_its_p():
    assert repr(GeMPooling(2.5)) == "GeMPooling(p=2.5, eps=1e-06)"
    assert repr(GeMPooling().to("meta")) == "GeMPooling(p=unknown, eps=1e-06)"


@pytest.mark.parametrize(("name", "value"), [("p", 0.0), ("p", -1.0), ("eps", 0.0), ("p", float("nan"))])
def test_gem_bad_arguments(name, value):
    with pytest.raises(ValueError, match=f"{name}: expected a positive number, got {value}"):
        GeMPooling(**{name: value})
