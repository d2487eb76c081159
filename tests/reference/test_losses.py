"""Reference losses against the published values and gradients, against a second derivation, and by gradcheck."""

from __future__ import annotations

import math

import pytest
import torch
from golden_data import load, names
from torch import Tensor
from torch.nn.functional import normalize

from ise_fast.reference import cluster_nce_loss, ise_loss


def batch(
    seed: int, b: int, clusters: int, d: int, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor, Tensor]:
    """Unit features near their centroids, labels of unequal group sizes, unit centroids."""
    generator = torch.Generator().manual_seed(seed)
    centroids = normalize(torch.randn(clusters, d, generator=generator, dtype=dtype), dim=1)
    labels = torch.randint(clusters, (b,), generator=generator)
    features = normalize(centroids[labels] + 0.3 * torch.randn(b, d, generator=generator, dtype=dtype), dim=1)
    return features, labels, centroids


@pytest.mark.parametrize("name", names("head"))
def test_golden(name: str) -> None:
    g = load(name)
    arguments = {
        "k": g["topk"],
        "temperature": g["tau"],
        "lp_temperature": g["tau_lp"],
        "lp_weight": g["lp_weight"],
    }
    features = g["features"].clone().requires_grad_()
    out = ise_loss(features, g["labels"], g["memory_before"], g["effective_lambda"], **arguments)
    out.loss.backward()
    assert out.contrastive.item() == pytest.approx(g["loss_cc"], rel=2e-6)
    assert out.label_preserving.item() == pytest.approx(g["loss_lp"], rel=2e-6)
    assert out.loss.item() == pytest.approx(g["loss"], rel=2e-6)
    torch.testing.assert_close(out.supports.flatten(0, 1), g["supports"], rtol=0, atol=1e-7)
    assert not out.supports.requires_grad

    # The published gradient is float32: allow what float32 itself loses against float64 on the same input.
    exact = g["features"].double().requires_grad_()
    ise_loss(exact, g["labels"], g["memory_before"].double(), g["effective_lambda"], **arguments).loss.backward()
    rounding = (features.grad - exact.grad).abs().max()
    assert (g["grad"] - exact.grad).abs().max() <= 2 * rounding + 1e-7
    assert rounding <= 2e-6 * exact.grad.abs().max()


@pytest.mark.parametrize(("k", "degree", "tau"), [(1, 0.25, 0.05), (3, 0.1, 1.0), (2, 0.0, 0.05), (5, 0.25, 0.01)])
def test_against_loops(k: int, degree: float, tau: float) -> None:
    """The definition again, one number at a time."""
    features, labels, centroids = batch(0, 7, 6, 5)
    out = ise_loss(features, labels, centroids, degree, k=k, temperature=tau, lp_weight=0.5)

    def cross_entropy(row: Tensor, label: int) -> float:
        logits = [float(row @ c) / tau for c in centroids]
        top = max(logits)
        return math.log(sum(math.exp(z - top) for z in logits)) + top - logits[label]

    y = labels.tolist()
    supports: list[tuple[int, Tensor]] = []
    for f, label in zip(features, y, strict=True):
        others = sorted((-float(f @ c), j) for j, c in enumerate(centroids) if j != label)[:k]
        for _, j in others:
            u = f + degree * (centroids[j] - centroids[label])
            supports.append((label, u / u.norm()))
    rows = [*zip(y, features, strict=True), *supports]
    contrastive = sum(cross_entropy(row, label) for label, row in rows) / len(rows)
    preserving = 0.0
    for f, label in zip(features, y, strict=True):
        by_label: dict[int, list[float]] = {}
        for other, s in supports:
            by_label.setdefault(other, []).append(float(f @ s) / 0.6)
        e_p = math.exp(min(by_label.pop(label)))
        e_g = sum(math.exp(max(values)) for values in by_label.values())
        preserving -= math.log(e_p / (e_p + e_g + 1e-6) + 1e-6) / len(y)
    assert out.contrastive.item() == pytest.approx(contrastive, rel=1e-12)
    assert out.label_preserving.item() == pytest.approx(preserving, rel=1e-12)
    assert out.loss.item() == pytest.approx(contrastive + 0.5 * preserving, rel=1e-12)


@pytest.mark.parametrize(("k", "degree"), [(1, 0.25), (2, 0.0), (3, 0.9)])
def test_gradcheck(k: int, degree: float) -> None:
    features, labels, centroids = batch(k, 6, 5, 4)
    features.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda f: ise_loss(f, labels, centroids, degree, k=k, temperature=0.5, lp_weight=0.7).loss, features
    )
    assert torch.autograd.gradcheck(lambda f: cluster_nce_loss(f, labels, centroids, 0.5), features)


def test_order_of_the_batch_does_not_matter() -> None:
    features, labels, centroids = batch(3, 12, 5, 8)
    shuffle = torch.randperm(12, generator=torch.Generator().manual_seed(3))
    plain = ise_loss(features, labels, centroids, 0.2, k=2)
    shuffled = ise_loss(features[shuffle], labels[shuffle], centroids, 0.2, k=2)
    assert plain.loss.item() == pytest.approx(shuffled.loss.item(), rel=1e-13)


def test_one_label_and_one_row() -> None:
    """No other label in the batch: e_p / (e_p + 1e-6) + 1e-6, nearly 1."""
    features, _, centroids = batch(4, 3, 2, 4)
    for b in (1, 3):
        out = ise_loss(features[:b], torch.ones(b, dtype=torch.int64), centroids, 0.1)
        assert abs(out.label_preserving.item()) < 1e-5


def test_degree_zero_supports_are_the_features() -> None:
    features, labels, centroids = batch(5, 6, 4, 8)
    out = ise_loss(features, labels, centroids, 0.0, k=2)
    torch.testing.assert_close(out.supports, features[:, None].expand(-1, 2, -1), rtol=0, atol=1e-15)
    assert out.contrastive.item() == pytest.approx(cluster_nce_loss(features, labels, centroids).item(), rel=1e-12)


def test_contrastive_takes_the_direction_only() -> None:
    """As the published memory, which normalises its input: no gradient along a feature, no effect of its length."""
    features, labels, centroids = batch(7, 6, 4, 8)
    features = features.requires_grad_()
    loss = cluster_nce_loss(features, labels, centroids, temperature=1.0)
    loss.backward()
    assert features.grad is not None
    assert features.grad.norm(dim=1).min() > 1e-3
    assert (features.grad * features).sum(dim=1).abs().max() < 1e-14
    assert cluster_nce_loss(3 * features, labels, centroids, temperature=1.0).item() == pytest.approx(
        loss.item(), rel=1e-13
    )


def test_half_precision_features() -> None:
    features, labels, centroids = batch(6, 8, 5, 16, torch.float32)
    half = features.bfloat16().requires_grad_()
    out = ise_loss(half, labels, centroids, 0.2)
    expected = ise_loss(half.detach().float(), labels, centroids, 0.2)
    assert out.loss.dtype == torch.float32
    assert torch.equal(out.loss.detach(), expected.loss)
    out.loss.backward()
    assert half.grad is not None
    assert half.grad.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"features": torch.zeros(0, 2), "labels": torch.zeros(0, dtype=torch.int64)}, ValueError, "features: .* row"),
        ({"temperature": 0.0}, ValueError, r"temperature: expected a finite number in \(0, inf\), got 0"),
        ({"lp_temperature": -1}, ValueError, "lp_temperature"),
        ({"lp_weight": -0.1}, ValueError, r"lp_weight: expected a finite number in \[0, inf\), got -0.1"),
        ({"degree": 2}, ValueError, "degree"),
        ({"k": 3}, ValueError, "k: expected an integer in .1, 2."),
        ({"labels": torch.tensor([0, 5])}, ValueError, "labels"),
        ({"gram": torch.zeros(2, 2)}, ValueError, r"gram: expected \[3, 3\]"),
        ({"gram": torch.zeros(3, 3, dtype=torch.float64)}, TypeError, "gram: expected dtype float32"),
    ],
)
def test_bad_input(change: dict[str, object], error: type[Exception], message: str) -> None:
    good = {"features": torch.eye(2), "labels": torch.tensor([0, 1]), "centroids": torch.ones(3, 2), "degree": 0.25}
    ise_loss(**good)
    with pytest.raises(error, match=f"^{message}"):
        ise_loss(**good | change)
