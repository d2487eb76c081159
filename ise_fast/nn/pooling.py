"""From a feature map to one vector per image."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ise_fast.nn._precision import without_autocast


class AveragePooling(nn.Module):
    """Mean over all positions. Shape: [B, C, H, W] to [B, C]."""

    def forward(self, input: Tensor) -> Tensor:
        return input.mean(dim=(2, 3))


class GeMPooling(nn.Module):
    """Generalised mean over all positions, (mean of x^p)^(1/p), with a learnable p.

    p = 1 is the average and p towards infinity the maximum. Values below `eps` are raised to it, since a negative
    number has no real power. Computed in float32 whatever the input: x^3 leaves the range of float16 at x = 40.

    Args:
        p: start value of the exponent, positive.
        eps: smallest value taken, positive.

    Shape:
        [B, C, H, W] to [B, C].

    Source: Radenovic, Tolias, Chum 2018, "Fine-tuning CNN image retrieval with no human annotation", equation 3.
    """

    def __init__(self, p: float = 3.0, eps: float = 1e-6) -> None:
        super().__init__()
        for name, value in (("p", p), ("eps", eps)):
            if not value > 0:
                raise ValueError(f"{name}: expected a positive number, got {value}")
        self.p = nn.Parameter(torch.tensor(float(p)))
        self.eps = eps

    def forward(self, input: Tensor) -> Tensor:
        with without_autocast(input.device):
            powers = input.float().clamp(min=self.eps).pow(self.p)
            return powers.mean(dim=(2, 3)).pow(1 / self.p).to(input.dtype)

    def extra_repr(self) -> str:
        p = "unknown" if self.p.is_meta else f"{self.p.item():.3g}"
        return f"p={p}, eps={self.eps}"


POOLINGS: dict[str, type[nn.Module]] = {"avg": AveragePooling, "gem": GeMPooling}
