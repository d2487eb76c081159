"""Features that look like those of a re-identification network: clusters of unequal size, cameras, and hubs."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize


def clustered_features(
    n: int, d: int, identities: int, *, seed: int = 0, cameras: int = 6, noise: float = 0.9
) -> Tensor:
    """[n, d] unit rows: an identity's centre, a shift shared by its camera, and noise whose size differs by image.

    The centres lie in a subspace of 64 dimensions, as learnt features do; a twentieth of the images are a mixture of
    two identities (occlusions), which makes hubs and noise points.
    """
    g = torch.Generator().manual_seed(seed)
    rank = min(64, d)
    basis = torch.randn(rank, d, generator=g) / d**0.5
    centres = torch.randn(identities, rank, generator=g)
    shifts = 0.3 * torch.randn(cameras, rank, generator=g)
    popularity = torch.rand(identities, generator=g) + 0.2
    identity = torch.multinomial(popularity, n, replacement=True, generator=g)
    camera = torch.randint(cameras, (n,), generator=g)
    x = centres[identity] + shifts[camera]
    mixed = torch.rand(n, generator=g) < 0.05
    x[mixed] = (x[mixed] + centres[torch.randint(identities, (int(mixed.sum()),), generator=g)]) / 2
    x = x + noise * torch.rand(n, 1, generator=g) * torch.randn(n, rank, generator=g)
    return normalize(x @ basis + 0.05 * torch.randn(n, d, generator=g) / d**0.5, dim=1)
