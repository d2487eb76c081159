"""How counts grow with the sizes of a problem: exponents between two sizes, and sums of terms fitted to several.

A term is a product of powers of dimensions and of logarithms, written "N^2*d", "N*log N" or "N*log N/T"; "1" is the
constant.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.optimize import nnls

from benchmarks.profile.counts import Counts, Kernel, Shape
from benchmarks.profile.model import Resources, resources

#: dimensions that rows and pairs of rows are counted by: their squares occur. The others occur once in a term.
SQUARED = ("N", "B")
#: dimensions that a thread loops along, and which of them are too short to tell what a long one costs
COLUMNS, SHORT = ("d", "K"), 128
#: of a sum of powers: its terms have at most so many factors
MOST_FACTORS = 3
#: a longest block that grows by less has not grown
NOISE = 1.02


def doubled(shape: Shape, dimension: str, times: int = 2) -> Shape:
    return {**shape, dimension: shape[dimension] * times}


def powers(names: Sequence[str]) -> tuple[str, ...]:
    """The terms of a problem about which nothing is known: all products of powers, but pairs of rows with d alone."""
    ranges = [range(3) if name in SQUARED else range(2) for name in names]
    chosen = [
        c
        for c in itertools.product(*ranges)
        if sum(c) <= MOST_FACTORS
        and not (2 in c and any(p and n not in (*SQUARED, "d") for n, p in zip(names, c, strict=True)))
    ]
    return tuple(
        "*".join(f"{name}^{p}" if p > 1 else name for name, p in zip(names, c, strict=True) if p) or "1" for c in chosen
    )


def shapes_to_count(small: Shape, terms: Sequence[str] = ()) -> list[Shape]:
    """Shapes that tell the terms apart: all combinations of small and doubled, quadruples where terms curve, and some
    with much longer loops along the columns, which are unrolled and wait for memory otherwise than short ones."""
    names, all_terms = list(small), terms or powers(list(small))
    corners = [
        {name: small[name] * factor for name, factor in zip(names, factors, strict=True)}
        for factors in itertools.product((1, 2), repeat=len(names))
    ]
    curved = [name for name in names if any(f"{name}^" in term or f"log {name}" in term for term in all_terms)]
    long = [name for name in names if name in COLUMNS and small[name] <= SHORT]
    shapes = corners + [doubled(small, name, 4) for name in curved] + [doubled(small, name, 16) for name in long]
    if len(long) > 1:
        wide = small | {name: 16 * small[name] for name in long}
        shapes += [wide, *(doubled(wide, name) for name in names if name in SQUARED)]
    return shapes


def exponent(small: float, large: float) -> float:
    """p where a count grows as size^p when the size doubles; 0 for what stays below one."""
    return math.log2(max(large, 1.0) / max(small, 1.0))


def value(term: str, shape: Shape) -> float:
    """A term at a shape."""
    product = 1.0
    for factor in term.split("*"):
        name, _, power = factor.partition("^")
        if name.startswith("log "):
            above, _, below = name.removeprefix("log ").partition("/")
            product *= math.log2(shape[above] / (shape[below] if below else 1))
        elif name != "1":
            product *= float(shape[name]) ** int(power or 1)
    return product


def predict(shapes: Sequence[Shape], values: Sequence[float], target: Shape, terms: Sequence[str] = ()) -> float:
    """The value at `target` of the sum of terms, with coefficients of at least zero, that fits the values best."""
    terms = terms or powers(list(target))
    wanted = np.maximum(np.asarray(values, dtype=float), 1e-9)
    matrix = np.array([[value(term, shape) for term in terms] for shape in shapes]) / wanted[:, None]
    scale = matrix.max(0)
    coefficients, _ = nnls(matrix / scale, np.ones(len(shapes)))
    return float(sum(c / s * value(term, target) for c, s, term in zip(coefficients, scale, terms, strict=True)))


def _alone(shapes: Sequence[Shape], values: Sequence[float], name: str) -> tuple[float, float]:
    """How many times a dimension alone is made larger at most, and the value then."""
    base = shapes[0]
    return max(
        (shape[name] / base[name], found)
        for shape, found in zip(shapes, values, strict=True)
        if shape[name] > base[name] and all(shape[other] == base[other] for other in base if other != name)
    )


def power_law(shapes: Sequence[Shape], values: Sequence[float], target: Shape) -> float:
    """The value at `target`, each dimension with the exponent that it has alone.

    For a part that is no sum over rows: a fit of sums would take its noise for growth.
    """
    base, first = shapes[0], max(values[0], 1.0)
    result = first
    for name in base:
        times, found = _alone(shapes, values, name)
        grows = max(math.log(max(found, 1.0) / first) / math.log(times), 0.0)
        result *= (target[name] / base[name]) ** grows
    return result


def longest(shapes: Sequence[Shape], values: Sequence[float], blocks: Sequence[float], target: Shape) -> float:
    """What the longest of several blocks takes at `target`.

    A dimension that only makes more blocks hardly changes it: it has the exponent that was seen. Along any other a
    block works longer, and what it does once takes no longer: a constant and a slope. Two such loops lie in each other
    or follow each other, whichever is nearer to what both together were seen to take.
    """
    base, first = shapes[0], max(values[0], 1.0)
    result, slopes = first, {}
    for name in base:
        times, found = _alone(shapes, values, name)
        more = _alone(shapes, blocks, name)[1] / max(blocks[0], 1.0)
        grows, larger = max(found / first, 1.0), target[name] / base[name]
        if more > math.sqrt(times) or grows < NOISE or grows > times:
            result *= larger ** (math.log(grows) / math.log(times))
        else:
            slopes[name] = (grows - 1) / (times - 1)

    def nested(shape: Shape) -> float:
        return math.prod(1 + slope * (shape[name] / base[name] - 1) for name, slope in slopes.items())

    def one_by_one(shape: Shape) -> float:
        return 1 + sum(slope * (shape[name] / base[name] - 1) for name, slope in slopes.items())

    together = [k for k, shape in enumerate(shapes) if all((shape[n] > base[n]) == (n in slopes) for n in base)]
    seen = max(together, key=lambda k: math.prod(shapes[k].values()), default=0)
    wrong = [abs(rule(shapes[seen]) - values[seen] / first) for rule in (nested, one_by_one)]
    return result * (nested if wrong[0] < wrong[1] else one_by_one)(target)


def extrapolate(
    shapes: Sequence[Shape], runs: Sequence[Counts], target: Shape, terms: Sequence[str] = ()
) -> dict[str, Resources]:
    """Each kernel's resources at `target`, from runs at smaller shapes."""
    names = sorted({name for run in runs for name in run.kernels})
    return {name: _extrapolated([run.kernels.get(name) for run in runs], shapes, target, terms) for name in names}


def _extrapolated(
    kernels: Sequence[Kernel | None], shapes: Sequence[Shape], target: Shape, terms: Sequence[str]
) -> Resources:
    rows: list[Mapping[str, float]] = [(resources(k) if k else Resources()).values() for k in kernels]
    sums = {name: predict(shapes, [row[name] for row in rows], target, terms) for name in rows[0]}
    of_a_launch, blocks = (
        [row[name] / max(row["launches"], 1) for row in rows] for name in ("longest_block", "blocks")
    )
    return Resources(**{**sums, "longest_block": longest(shapes, of_a_launch, blocks, target) * sums["launches"]})
