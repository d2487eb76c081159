"""Rows that are hard to search: ties, copies, crowds, hubs, few axes, far from zero, of all lengths."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import normalize


def rows(kind: str, n: int = 260, d: int = 33) -> Tensor:
    g = torch.Generator().manual_seed(n + d)
    x = torch.randn(n, d, generator=g)
    kinds: dict[str, Callable[[], Tensor]] = {
        "isotropic": lambda: x,
        "integers": lambda: torch.randint(-2, 3, (n, d), generator=g).float(),
        "copies": lambda: x[torch.arange(n) % (n // 40)],
        "low rank": lambda: torch.randn(n, 3, generator=g) @ torch.randn(3, d, generator=g),
        "falling spectrum": lambda: x * torch.arange(1, d + 1) ** -1.5,
        "equal": lambda: x[:1].repeat(n, 1),
        "zeros": lambda: torch.zeros(n, d),
        "far": lambda: x + 100,
        "collapsed": lambda: normalize(x[:1] + 1e-4 * x, dim=1),
        "one axis": lambda: torch.cat([x[:, :1], torch.zeros(n, d - 1)], dim=1),
        "constant rows": lambda: (1 + 3e-3 * x[:, :1]).expand(n, d).contiguous(),
        "hub": lambda: torch.cat([torch.zeros(1, d), normalize(x[1:], dim=1)]),
        "mixed scales": lambda: x * 10 ** torch.linspace(-15, 15, n)[:, None],
        "huge": lambda: x * 1e37,
    }
    return kinds[kind]()


KINDS = (
    *("isotropic", "integers", "copies", "low rank", "falling spectrum", "equal", "zeros", "far", "collapsed"),
    *("one axis", "constant rows", "hub", "mixed scales", "huge"),
)
