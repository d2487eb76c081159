"""What a workload is, and the features that workloads are made of.

The number of pairs and set members of a row decides what the sparse operators cost, and a network's features keep it as
their number grows: more images are more people, not more images of one person. Random rows of a small set do not. So
features here are of 16 images an identity and 4 identities that look alike, far from all others: the 30 neighbours of
a row lie in its own 64 rows at every N, its row of V' has 42 entries and 16 pairs within eps, so that counts grow with
N as they do at a published size (features of a real network were seen to have 26 entries and 18 pairs).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Call = Callable[[Any], Any]  # of torch.ops.ise_fast_ptx
Shape = dict[str, int]

IMAGES, ALIKE = 16, 4  # of an identity; identities that look alike


@dataclass(frozen=True)
class Workload:
    """An operator and how it is called.

    Args:
        prepare: makes the inputs of a shape and gives the call; for a dry run they need no values.
        small: the shape from which predictions set out, and which the budgets hold; every dimension is doubled for its
            growth.
        published: shapes of which times are predicted.
        flops: of the matrix products that the problem needs at least, on tensor cores.
        bytes: that must be read or written at least.
        dry: launches and products do not depend on results, so they can be counted at the published shapes.
        terms: what counts are sums of, such as "N^2*d" (growth.py); none: products of powers of all dimensions.
        most_numbers: of scratch at a counted shape, so that small inputs go in as many tiles as large ones.
        smaller: the shape that the budgets hold instead, where `small` takes long to count.
    """

    prepare: Callable[[Shape, bool], Call]
    small: Shape
    published: tuple[Shape, ...]
    flops: Callable[[Shape], float]
    bytes: Callable[[Shape], float]
    dry: bool = False
    terms: tuple[str, ...] = ()
    most_numbers: Callable[[Shape], int] | None = None
    smaller: Shape | None = None

    @property
    def held(self) -> Shape:
        """The shape that the budgets hold."""
        return self.smaller or self.small


def no_products(shape: Shape) -> float:
    return 0.0


def generator(seed: int) -> torch.Generator:
    """On the device where tensors are made: the interpreter's inputs lie on the CPU, those of the clock on a GPU."""
    return torch.Generator(torch.get_default_device()).manual_seed(seed)


def unit_rows(n: int, d: int, seed: int = 0, dry: bool = False) -> Tensor:
    if dry:
        return torch.empty(n, d)
    rows = torch.randn(n, d, generator=generator(seed))
    return torch.nn.functional.normalize(rows, dim=1)


def images(n: int, d: int, dry: bool = False, seed: int = 0) -> Tensor:
    """Unit rows as features of a network that has learnt something (see above). Another seed: other images of the same
    people."""
    if dry:
        return torch.empty(n, d)
    person = torch.arange(n) // IMAGES
    people = -(-n // IMAGES)
    kinds = unit_rows(-(-people // ALIKE), d, 1)[torch.arange(people) // ALIKE]
    centres = torch.nn.functional.normalize(kinds + 0.8 * unit_rows(people, d, 2), dim=1)
    return torch.nn.functional.normalize(centres[person] + 0.7 * unit_rows(n, d, 3 + seed), dim=1)
