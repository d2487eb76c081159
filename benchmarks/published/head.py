"""The ISE step as published: supports, label-preserving term and memory update by loops over rows and labels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize


def support_samples(f: Tensor, y: Tensor, c: Tensor, degree: float, k: int) -> Tensor:
    """[B k, d]: row i k + j steps from feature i towards its j-th nearest other centroid."""
    similarity = f.detach() @ c.T
    supports = []
    for i in range(len(f)):
        own = int(y[i])
        others = similarity[i].clone()
        others[own] = -torch.inf
        for m in others.topk(k).indices.tolist():
            supports.append(normalize(f[i] + degree * (c[m] - c[own]), dim=0))
    return torch.stack(supports)


def label_preserving(f: Tensor, y: Tensor, supports: Tensor, support_y: Tensor, tau: float) -> Tensor:
    """Row by row: the farthest support of the own label against the closest one of each other label."""
    labels = sorted(set(y.tolist()))
    terms = []
    for i in range(len(f)):
        similarity = supports @ f[i] / tau
        positive = similarity[support_y == y[i]].min().exp()
        negatives = [similarity[support_y == label].max().exp() for label in labels if label != int(y[i])]
        others = torch.stack(negatives).sum() if negatives else torch.zeros_like(positive)
        terms.append(-torch.log(positive / (positive + others + 1e-6) + 1e-6))
    return torch.stack(terms).mean()


def ise_loss(
    f: Tensor,
    y: Tensor,
    c: Tensor,
    degree: float,
    k: int = 1,
    temperature: float = 0.05,
    lp_temperature: float = 0.6,
    lp_weight: float = 0.1,
) -> tuple[Tensor, Tensor, Tensor]:
    """(loss, supports [B k, d], their labels)."""
    supports = support_samples(f, y, c, degree, k)
    support_y = y.repeat_interleave(k)
    rows, rows_y = torch.cat([normalize(f, dim=1), supports]), torch.cat([y, support_y])
    contrastive = cross_entropy(rows @ c.T / temperature, rows_y)
    preserving = label_preserving(f, y, supports, support_y, lp_temperature)
    return contrastive + lp_weight * preserving, supports, support_y


def update_memory(c: Tensor, rows: Tensor, y: Tensor, momentum: float, mode: str) -> None:
    """In place: "hard" takes a label's least similar row, "momentum" each of its rows in turn."""
    by_label: dict[int, list[Tensor]] = {}
    for row, label in zip(rows, y.tolist(), strict=True):
        by_label.setdefault(label, []).append(row)
    for label, members in by_label.items():
        if mode == "hard":
            similarity = [float(row @ c[label]) for row in members]
            members = [members[similarity.index(min(similarity))]]
        for row in members:
            c[label] = normalize(momentum * c[label] + (1 - momentum) * row, dim=0)


def step(c: Tensor, f: Tensor, y: Tensor, degree: float, k: int, momentum: float) -> tuple[Tensor, Tensor, Tensor]:
    """Forward, backward, update of `c` in place; (loss, gradient, memory afterwards)."""
    leaf = f.detach().requires_grad_()
    loss, supports, support_y = ise_loss(leaf, y, c, degree, k)
    (gradient,) = torch.autograd.grad(loss, leaf)
    update_memory(c, torch.cat([f, supports.detach()]), torch.cat([y, support_y]), momentum, "hard")
    return loss.detach(), gradient, c.clone()
