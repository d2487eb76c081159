"""Features that each try something else, and how their rows fall to the processes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from ise_fast.sharded import JaccardSettings


def clustered(n: int, d: int, seed: int, noise: float = 0.6) -> Tensor:
    """Unit rows around n / 10 centres, in any order."""
    g = torch.Generator().manual_seed(seed)
    centres = torch.randn(max(n // 10, 1), d, generator=g)
    spread = noise * torch.rand(n, 1, generator=g) * torch.randn(n, d, generator=g)
    return normalize(centres[torch.randint(len(centres), (n,), generator=g)] + spread, dim=1)


def copied(n: int, d: int, seed: int) -> Tensor:
    """Two fifths of the rows are copies of eight: crowds that crowd each other out of their lists."""
    g = torch.Generator().manual_seed(seed)
    x = clustered(n, d, seed)
    x[torch.randperm(n, generator=g)[: 2 * n // 5]] = x[torch.randint(8, (2 * n // 5,), generator=g)]
    return x


def overlapping(n: int, d: int, seed: int) -> Tensor:
    """A mixture in four dimensions whose parts overlap: one cluster that reaches over all processes."""
    g = torch.Generator().manual_seed(seed)
    centres = torch.randn(n // 20, 4, generator=g)
    x = centres[torch.randint(len(centres), (n,), generator=g)] + 0.5 * torch.randn(n, 4, generator=g)
    return normalize(x @ torch.randn(4, d, generator=g) + 0.1 * torch.randn(n, d, generator=g), dim=1)


def with_hubs(n: int, d: int, seed: int, hubs: int = 6) -> Tensor:
    """No structure but a few rows at the common direction, which are everybody's nearest: all pairs are near."""
    g = torch.Generator().manual_seed(seed)
    common = torch.randn(d, generator=g)
    x = common + 2 * torch.randn(n, d, generator=g)
    x[torch.randperm(n, generator=g)[:hubs]] = common + 0.01 * torch.randn(hubs, d, generator=g)
    return normalize(x, dim=1)


SIZE = 4  # the most processes


def sizes(number: int) -> tuple[int, int]:
    """How many processes share the case of that number: fewer than SIZE, in turn, and SIZE."""
    return 1 + number % (SIZE - 1), SIZE


#: Metrics and precisions of the plain DBSCAN.
PLAIN = (("euclidean", "float32"), ("cosine", "float32"), ("sqeuclidean", "float64"))


@dataclass(frozen=True)
class Case:
    """Rows, settings, and the share of each process (relative; None: even)."""

    x: Tensor
    settings: JaccardSettings
    shares: tuple[int, ...] | None = None

    def bounds(self, size: int) -> list[int]:
        """Where the rows of each of `size` processes begin, and the number of rows."""
        weights = ([1] * size if self.shares is None else list(self.shares))[:size]
        return [len(self.x) * sum(weights[:rank]) // max(sum(weights), 1) for rank in range(size + 1)]


def cases() -> dict[str, Case]:
    plain = JaccardSettings()
    integers = (clustered(903, 12, 2) * 6).round()
    return {
        "not divisible": Case(clustered(1003, 24, 0), plain),
        "copies": Case(copied(1001, 16, 1), plain),
        "ties": Case(integers, JaccardSettings(eps=0.7, k1=20, k2=4)),
        "one giant cluster": Case(overlapping(900, 32, 3), JaccardSettings(eps=0.7)),
        "wide": Case(clustered(700, 300, 4, noise=1.2), JaccardSettings(k1=17, k2=1)),
        "hubs": Case(with_hubs(400, 64, 5), JaccardSettings(eps=0.7)),
        "unequal shares": Case(clustered(1003, 24, 6), plain, (1, 0, 90, 9)),
        "fewer rows than k1": Case(clustered(7, 5, 7), JaccardSettings(min_samples=2)),
        "fewer rows than processes": Case(clustered(3, 5, 8), JaccardSettings(min_samples=1, k1=2, k2=2)),
        "crowds": Case(
            torch.cat([torch.eye(2, 9).repeat(150, 1), clustered(60, 9, 9)]), JaccardSettings(max_pairs=9000)
        ),
        "all equal": Case(torch.eye(1, 9).expand(150, 9).contiguous(), plain),
    }


@dataclass(frozen=True)
class Grouping(Case):
    """Rows for k-means, and from where it starts: K rows drawn, or centres."""

    clusters: int = 8
    centres: Tensor | None = None
    iterations: int = 300
    dtype: torch.dtype = torch.float32

    @property
    def rows(self) -> Tensor:
        return self.x.to(self.dtype)


def groupings() -> dict[str, Grouping]:
    plain = JaccardSettings()
    integers = (clustered(1500, 3, 2) * 2).round()
    # Nothing is near the second and the fifth; those who take the farthest rows make others empty.
    far = torch.cat([clustered(6, 8, 9), torch.full((2, 8), 50.0)])[[0, 6, 1, 2, 7, 3, 4, 5]]
    return {
        "chunks over processes": Grouping(clustered(2700, 12, 0), plain, clusters=6, iterations=5),
        "unequal shares": Grouping(clustered(2300, 5, 1), plain, (1, 0, 90, 9), clusters=6, iterations=3),
        "ties": Grouping(integers, plain, clusters=6, iterations=4),
        "fewer different rows": Grouping(torch.eye(3, 9).repeat(20, 1), plain, clusters=5),
        "as many as rows": Grouping(clustered(3, 5, 8), plain, clusters=3),
        "empty centres": Grouping(clustered(500, 8, 10), plain, (3, 1, 0, 2), centres=far, iterations=4),
        "float64": Grouping(clustered(1100, 6, 4), plain, clusters=4, iterations=2, dtype=torch.float64),
        "until the end": Grouping(clustered(60, 6, 5), plain, clusters=4),
    }
