"""Which sizes to run, and on what."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, field

import torch

#: images and identities of the training sets (Market-1501, MSMT17, MSMT17 with its gallery; the last is made up)
IDENTITIES = {12_936: 751, 32_621: 1_041, 126_441: 4_101, 1_000_000: 30_000}


@dataclass(frozen=True)
class Setting:
    """Sizes and device.

    Args:
        device: where the operators run.
        quick: tiny sizes for a check that everything works; such times are not to be quoted.
        sizes: numbers of images N for the labels; () for the default of the mode.
        growth: also curves: the labels over N from 2,000 to 100,000 with d = 256, the head over K, B, d and k.
        reference_limit: largest N for the reference.
        slow_limit: largest N for peers and for the published way, which build N x N matrices.
    """

    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    quick: bool = False
    sizes: tuple[int, ...] = ()
    growth: bool = False
    reference_limit: int = 3_000
    slow_limit: int = 12_936

    def label_sizes(self) -> list[tuple[int, int]]:
        """(N, d) of the cases of the pseudo labels."""
        return [(300, 64)] if self.quick else [(n, 2048) for n in self.sizes or (3_000, 12_936)]

    def growth_sizes(self) -> list[tuple[int, int]]:
        """(N, d) of the curve of the pseudo labels."""
        return [(n, 256) for n in (2_000, 5_000, 12_936, 32_621, 100_000)] if self.growth else []


def identities(n: int) -> int:
    """How many identities a set of n images has: 17 images each, as in Market-1501, unless n is a known set."""
    return IDENTITIES.get(n, max(2, n // 17))


def missing(*modules: str) -> str:
    """Why a peer cannot run, "" if it can."""
    absent = [module for module in modules if importlib.util.find_spec(module) is None]
    return f"{', '.join(absent)} not installed" if absent else ""
