"""Features that look like those of a network: drawn clusters with cameras and hubs, and a real network's spectrum."""

from __future__ import annotations

import numpy as np
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


def overlapping_features(n: int, d: int, *, rank: int = 8, seed: int = 0) -> Tensor:
    """[n, d] unit rows of identities that overlap: noise as large as what tells them apart, in `rank` dimensions.

    At 20,000 x 64 a row of V' has 97 entries and 1,970 rows are at a Jaccard distance below 1, as in real features;
    of `clustered_features` a few hundred are.
    """
    g = torch.Generator().manual_seed(seed)
    centres = torch.randn(max(1, n // 17), rank, generator=g)
    x = centres[torch.randint(len(centres), (n,), generator=g)] + torch.randn(n, rank, generator=g)
    x = x @ torch.randn(rank, d, generator=g) + 0.05 * torch.randn(n, d, generator=g)
    return normalize(x, dim=1)


# Variances of features of a real network along their principal axes: the unit rows of an ImageNet MobileNetV2 (1,280
# columns) on 5,840 drawings of 292 characters. At these ranks; those between lie on the power law of their neighbours.
_RANKS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1280)
# fmt: off
_WITHIN = (  # around the mean of a character
    2.3e-2, 1.9e-2, 1.2e-2, 1.0e-2, 6.7e-3, 5.0e-3, 3.9e-3, 2.7e-3, 1.8e-3, 1.3e-3, 8.0e-4, 5.6e-4, 3.3e-4, 2.2e-4,
    1.2e-4, 7.9e-5, 4.3e-5, 2.7e-5, 1.3e-5, 5.0e-6, 1.3e-6,
)
_BETWEEN = (  # of those means
    7.0e-2, 5.1e-2, 2.6e-2, 1.4e-2, 7.5e-3, 5.1e-3, 2.6e-3, 1.8e-3, 7.6e-4, 5.1e-4, 2.6e-4, 1.5e-4, 7.0e-5, 4.0e-5,
    1.7e-5, 9.1e-6, 3.8e-6, 2.0e-6, 7.1e-7, 2.4e-7, 6.1e-8,
)
# fmt: on
_MEAN_LENGTH = 0.758  # of the mean of all rows


def real_like_features(n: int, d: int, identities: int, *, seed: int = 0) -> Tensor:
    """[n, d] unit rows with the spectrum of a real network's features, within and between identities.

    Normal numbers with the measured variances along each axis, rows of unequal noise, turned at random. At 12,936 x
    2,048 the bounds of 128 and of 256 principal axes leave 266 and 116 rows for 30 neighbours; features resampled from
    the network's own leave 274 and 119.
    """
    g = torch.Generator().manual_seed(seed)
    axes = min(_RANKS[-1], d - 1)
    within, between = _deviations(_WITHIN, axes), _deviations(_BETWEEN, axes)
    identity = torch.randint(identities, (n,), generator=g)
    centres = torch.randn(identities, axes, generator=g) * between
    size = torch.exp(0.25 * torch.randn(n, 1, generator=g))
    x = centres[identity] + size * torch.randn(n, axes, generator=g) * within
    x = torch.cat([x, torch.full((n, 1), _MEAN_LENGTH)], dim=1)
    turn = torch.linalg.qr(torch.randn(d, axes + 1, generator=g))[0]
    return normalize(x @ turn.T, dim=1)


def _deviations(variances: tuple[float, ...], axes: int) -> Tensor:
    ranks = np.log(np.arange(1, axes + 1))
    return torch.tensor(np.exp(np.interp(ranks, np.log(_RANKS), np.log(variances)) / 2), dtype=torch.float32)
