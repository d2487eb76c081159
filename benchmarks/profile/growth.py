"""How counts grow with the sizes of a problem: exponents between two sizes, and sums of powers fitted to several."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.optimize import nnls

from benchmarks.profile.counts import Counts, Kernel, Shape
from benchmarks.profile.model import Resources, resources

#: a power of every dimension, e.g. (("B", 1), ("d", 1)); the constant is ()
Term = tuple[tuple[str, int], ...]

#: dimensions that rows and pairs of rows are counted by: their squares occur. The others occur once in a term.
SQUARED = ("N", "B")


def doubled(shape: Shape, dimension: str, times: int = 2) -> Shape:
    return {**shape, dimension: shape[dimension] * times}


def shapes_to_count(small: Shape) -> list[Shape]:
    """Shapes that tell the terms apart: every combination of small and doubled, and quadruples where squares occur."""
    names = list(small)
    corners = [
        {name: small[name] * factor for name, factor in zip(names, factors, strict=True)}
        for factors in itertools.product((1, 2), repeat=len(names))
    ]
    return corners + [doubled(small, name, 4) for name in names if name in SQUARED]


def exponent(small: float, large: float) -> float:
    """p where a count grows as size^p when the size doubles; 0 for what stays below one."""
    return math.log2(max(large, 1.0) / max(small, 1.0))


def _terms(names: Sequence[str]) -> list[Term]:
    powers = [range(3) if name in SQUARED else range(2) for name in names]
    return [
        tuple((name, p) for name, p in zip(names, chosen, strict=True) if p)
        for chosen in itertools.product(*powers)
        if sum(chosen) <= 3
    ]


def _value(term: Term, shape: Shape) -> float:
    return float(math.prod(shape[name] ** power for name, power in term))


def predict(shapes: Sequence[Shape], values: Sequence[float], target: Shape) -> float:
    """The value at `target` of the sum of powers, with coefficients of at least zero, that fits the values best."""
    terms = _terms(list(target))
    wanted = np.maximum(np.asarray(values, dtype=float), 1e-9)
    matrix = np.array([[_value(term, shape) for term in terms] for shape in shapes]) / wanted[:, None]
    scale = matrix.max(0)
    coefficients, _ = nnls(matrix / scale, np.ones(len(shapes)))
    return float(sum(c / s * _value(term, target) for c, s, term in zip(coefficients, scale, terms, strict=True)))


def extrapolate(shapes: Sequence[Shape], runs: Sequence[Counts], target: Shape) -> dict[str, Resources]:
    """Each kernel's resources at `target`, from runs at smaller shapes."""
    names = sorted({name for run in runs for name in run.kernels})
    return {name: _extrapolated([run.kernels.get(name) for run in runs], shapes, target) for name in names}


def _extrapolated(kernels: Sequence[Kernel | None], shapes: Sequence[Shape], target: Shape) -> Resources:
    rows: list[Mapping[str, float]] = [(resources(k) if k else Resources()).values() for k in kernels]
    return Resources(**{name: predict(shapes, [row[name] for row in rows], target) for name in rows[0]})
