"""CycAs' loss: people of one frame should find themselves again by way of another frame. No labels, no memory."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import softmax

from ise_fast._checks import check_columns, check_device, check_features, check_number
from ise_fast.nn._precision import without_autocast
from ise_fast.ops._inputs import in_working_precision


class CycleAssociationLoss(nn.Module):
    """Mean over the rows of the smaller set of how far the way there and back misses the row itself, by a margin.

        A = softmax over y of t(m) x y^T,   A' = softmax over x of t(n) y x^T,   G = A A',   t(K) = ln(K + 1) / delta
        loss = 1 / n sum over i of relu(max_j G_ij - G_ii + margin) + relu(max_j G_ji - G_ii + margin),   j other than i

    The sets are the people of two frames of one camera, a moment apart, so that most of them are in both. Matrices are
    of the size of a frame: PyTorch's own operators do. Computed in float32 (float64 of float64), also under autocast.

    Args:
        delta: the softmax is sharp where cosines differ by this much, > 0.
        margin: by which a row must be nearer to itself than to others.

    Raises:
        TypeError, ValueError: naming the argument.

    Source: Wang et al., CycAs: Self-supervised Cycle Association for Learning Re-identifiable Descriptions, ECCV 2020.

    Example:
        >>> people = torch.eye(4)
        >>> float(CycleAssociationLoss(delta=0.05)(people, people.flip(0))) < 0.01
        True
    """

    def __init__(self, delta: float = 0.5, margin: float = 0.5) -> None:
        super().__init__()
        self.delta = check_number("delta", delta, 0, above=True)
        self.margin = check_number("margin", margin, 0)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """The loss, differentiable in both.

        Args:
            x: [n, d] floating, unit rows, one frame, n >= 1.
            y: [m, d], another one, m >= 1.

        Raises:
            TypeError, ValueError: naming the argument.
        """
        first, second = check_features("x", x), check_features("y", y)
        check_columns("y", second, "x", first)
        check_device("y", second, "x", first)
        for name, rows in (("x", first), ("y", second)):
            if len(rows) == 0:
                raise ValueError(f"{name}: expected at least one row, got shape {tuple(rows.shape)}")
        if len(first) > len(second):
            first, second = second, first
        n, m = (torch.tensor([len(rows)], device=rows.device) for rows in (first, second))
        return cycle_losses(first[None], second[None], n, m, self.delta, self.margin)[0]

    def extra_repr(self) -> str:
        return f"delta={self.delta}, margin={self.margin}"


def cycle_losses(x: Tensor, y: Tensor, n: Tensor, m: Tensor, delta: float, margin: float) -> Tensor:
    """`CycleAssociationLoss` of pairs of sets that are known to be right: nothing waits for a GPU.

    Computed in float32 (float64 of float64), also under autocast.

    Args:
        x: [P, at least n, d] the smaller set of each pair, then any rows.
        y: [P, at least m, d] the other set of each, likewise.
        n: [P] int64, rows of x that count.
        m: [P] int64, rows of y that count.
        delta: as in the loss.
        margin: as in the loss.

    Returns:
        [P].
    """
    with without_autocast(x.device):  # sharpened cosines in bfloat16 would turn the gradient
        return _losses(in_working_precision("x", x), in_working_precision("y", y), n, m, delta, margin)


def _losses(x: Tensor, y: Tensor, n: Tensor, m: Tensor, delta: float, margin: float) -> Tensor:
    of_x, of_y = (torch.arange(rows.shape[1], device=x.device) < count[:, None] for rows, count in ((x, n), (y, m)))
    cosines = x @ y.mT
    cycle = _chances(cosines, of_y, m, delta) @ _chances(cosines.mT, of_x, n, delta)
    own = cycle.diagonal(dim1=1, dim2=2)
    itself = torch.eye(x.shape[1], dtype=torch.bool, device=x.device)
    others = cycle.masked_fill(itself | ~of_x[:, :, None], 0)  # the greatest of no others is 0
    forth, around = ((others.amax(dim) - own + margin).relu() for dim in (2, 1))
    return (forth + around).masked_fill(~of_x, 0).sum(1) / n


def _chances(cosines: Tensor, real: Tensor, count: Tensor, delta: float) -> Tensor:
    """Softmax over the rows that count, [P, rows from, rows to]."""
    sharpness = (count + 1).to(cosines.dtype).log() / delta
    return softmax((sharpness[:, None, None] * cosines).masked_fill(~real[:, None], -torch.inf), dim=2)
