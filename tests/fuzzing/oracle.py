"""One case: what must hold whatever an operator was given."""

from __future__ import annotations

import inspect
import random
import re
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from fuzzing import arguments as raw
from fuzzing import mutations, wrapped
from fuzzing.arguments import Arguments
from ise_fast import ops, reference
from ise_fast.types import CSRGraph, Groups

REFUSALS = (ValueError, TypeError, MemoryError)
# torch's own of what it knows to be wrong before an operator is called, or of tensors that are none.
OF_TORCH = (*REFUSALS, RuntimeError, AttributeError)
# Names in messages that are not those of the operator's arguments: what a schema calls otherwise, and parts of a graph.
OTHER_NAMES = {"graph", "members", "positives", "mode", "indptr", "indices", "values"}
# NaN says that a match is missing; backward operators, and one between checked ones, pass on what they are given.
MAY_BE_NAN = {"rank_metrics", "support_samples_backward", "ise_loss_backward", "cluster_nce_loss_backward",
              "loss_backward", "pattern_products"}  # fmt: skip
# A finite distance of float64 that float32 cannot hold is rounded to infinity; its place in the order is right.
MAY_BE_INFINITE = {"knn", "radius_graph", "radius_pairs", "reliable_labels"}
# Reads of its second argument what the groups to refresh name; the reference checks all of it.
READS_A_PART = {"refresh_groups_"}
FAKE_SHARE = 0.1


def run_case(kind: str, name: str, seed: int) -> str:
    """'answered' or 'refused'; AssertionError where something else came of it."""
    rng = random.Random(f"{kind} {name} {seed}")
    made = (raw.EXAMPLES if kind == "raw" else wrapped.FUNCTIONS)[name](rng)
    foreign, changes = False, rng.choice([0, 1, 1, 2])
    for _ in range(changes):
        made, by_torch = mutations.mutate(made, rng)
        foreign |= by_torch
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # rows that are not of unit length
        if kind == "raw":
            return _raw_case(name, made, foreign, changes == 0, rng)
        return _wrapped_case(name, made, foreign, changes == 0)


def _raw_case(name: str, made: Arguments, foreign: bool, valid: bool, rng: random.Random) -> str:
    operator = raw.operators()[name]
    parameters = operator._schema.arguments
    written = [a.name for a in parameters if a.alias_info is not None and a.alias_info.is_write]
    copies = _plain(made) if not foreign and _whole(made) else None
    results, error = _attempt(operator, made, written)
    if error is not None:
        assert not valid, f"valid arguments were refused: {error}"
        _check_refusal(error, {a.name for a in parameters}, foreign)
        return "refused"
    if copies is None:
        return "answered"
    numbers = {k: _tensor(copies[k]).isfinite() for k in written}  # a row that is not touched stays what it was
    again = operator(**copies)
    assert same(results, again), "strides decide the answer"
    assert all(same(made[k], copies[k]) for k in written), "strides decide what is written"
    _check_numbers(name, [*_flat(results), *(made[k][numbers[k]] for k in written)])
    if rng.random() < FAKE_SHARE:
        _check_fake(operator, copies, _flat(again))
    return "answered"


def _wrapped_case(name: str, made: Arguments, foreign: bool, valid: bool) -> str:
    function, oracle = getattr(ops, name), getattr(reference, name)
    written = [wrapped.WRITTEN[name]] if name in wrapped.WRITTEN else []
    copies = _plain(made) if not foreign and _whole(made) else None
    results, error = _attempt(function, made, written)
    if error is not None:
        assert not valid, f"valid arguments were refused: {error}"
        _check_refusal(error, set(inspect.signature(function).parameters), foreign)
        return "refused"
    if copies is None:
        return "answered"
    found = [*_flat(results), *(made[k] for k in written)]
    _check_numbers(name, found)
    expected, error = _attempt(oracle, copies, [])
    if error is not None and ("expected finite values" in str(error) or name in READS_A_PART):
        return "answered"  # what the answer does not depend on need not be read
    assert error is None, f"the reference refuses what the operator answers: {error}"
    _check_equal(name, found, [*_flat(expected), *(copies[k] for k in written)], _tame(made))
    return "answered"


def _attempt(function: Callable[..., Any], made: Arguments, written: list[str]) -> tuple[Any, Exception | None]:
    """The result or the error; with an error nothing may be written."""
    before = {k: made[k].clone() for k in written if isinstance(made[k], Tensor) and mutations.memory_is_there(made[k])}
    try:
        return function(**made), None
    except Exception as error:  # _check_refusal judges it
        refused = error
    for k, value in before.items():
        assert same(made[k], value), f"{k} was written before the error: {refused}"
    return None, refused


def _check_refusal(error: Exception, parameters: set[str], foreign: bool) -> None:
    if foreign:
        assert isinstance(error, OF_TORCH), f"an error of another type: {error!r}"
        return
    assert isinstance(error, REFUSALS), f"an error of another type: {error!r}"
    if isinstance(error, MemoryError):
        return
    name = re.match(r"([\w.]+): ", str(error))
    named = name is not None and name[1].split(".")[0] in parameters | OTHER_NAMES
    assert named, f"an error that names no argument: {error!r}"
    assert "\n" not in str(error), f"an error of several lines: {error!r}"


def _check_numbers(name: str, found: list[Any]) -> None:
    if name in MAY_BE_NAN:
        return
    for value in found:
        x = _tensor(value)
        good = ~x.isnan() if name in MAY_BE_INFINITE else x.isfinite()
        assert bool(good.all()), "NaN or infinity in the answer, and no error"


def _check_equal(name: str, found: list[Any], expected: list[Any], tame: bool) -> None:
    """To the last bit; where products of float32 are read, near, if the numbers leave room for that."""
    assert len(found) == len(expected)
    for ours, theirs in zip(map(_tensor, found), map(_tensor, expected), strict=True):
        assert ours.shape == theirs.shape, f"shape {tuple(ours.shape)}, and {tuple(theirs.shape)} of the reference"
        if name not in wrapped.ROUNDED or not ours.is_floating_point():
            same = torch.equal(ours.nan_to_num(7), theirs.nan_to_num(7)) and ours.dtype == theirs.dtype
            assert same or not tame, f"{ours.tolist()} is not {theirs.tolist()} of the reference"
        elif tame:
            near = torch.allclose(ours.double(), theirs.double(), rtol=1e-3, atol=1e-4, equal_nan=True)
            assert near, f"{ours.tolist()} is far from {theirs.tolist()} of the reference"


def _check_fake(operator: Any, made: Arguments, real: list[Any]) -> None:
    """The fake rule tells devices, dtypes and, where they do not depend on the data, sizes."""
    mode = FakeTensorMode(shape_env=ShapeEnv())
    fake = {k: mode.from_tensor(v, static_shapes=True) if isinstance(v, Tensor) else v for k, v in made.items()}
    with mode:
        told = _flat(operator(**fake))
    assert len(real) == len(told), "the fake rule tells another number of tensors"
    for ours, theirs in zip(real, told, strict=True):
        kinds = [(x.dtype, x.device, x.dim()) for x in (ours, theirs)]
        assert kinds[0] == kinds[1], f"{kinds[0]}, and {kinds[1]} by the fake rule"
        sizes = zip(ours.shape, theirs.shape, strict=True)
        assert all(a == b for a, b in sizes if isinstance(b, int)), f"{ours.shape}, and {theirs.shape} by the fake rule"


def _tensors(made: Arguments) -> list[Tensor]:
    found: list[Tensor] = []
    for value in made.values():
        if isinstance(value, CSRGraph):
            found += [value.indptr, value.indices, value.values]
        elif isinstance(value, tuple):
            found += [x for x in value if isinstance(x, Tensor)]
        elif isinstance(value, Tensor):
            found.append(value)
    return found


def _whole(made: Arguments) -> bool:
    return all(map(mutations.memory_is_there, _tensors(made)))


def _tame(made: Arguments) -> bool:
    """Far from what float32 cannot hold, so that the reference's own rounding decides nothing."""
    numbers = [x.detach().double().abs().flatten() for x in _tensors(made) if x.is_floating_point()]
    numbers += [torch.tensor([abs(v)], dtype=torch.float64) for v in made.values() if isinstance(v, float)]
    gram = made.get("gram")
    if gram is not None:
        centroids = made["centroids"].to(gram.dtype)
        if not torch.allclose(gram, centroids @ centroids.mT, atol=1e-3):
            return False  # of other centroids: the reference makes its own
    return all(bool(((x == 0) | ((x > 1e-6) & (x < 1e6))).all()) for x in numbers)


def _plain(made: Arguments) -> Arguments:
    """Copies in their own memory, one number after the other."""
    return {key: _copy(value) for key, value in made.items()}


def _copy(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.clone(memory_format=torch.contiguous_format)
    if isinstance(value, CSRGraph):
        return CSRGraph(_copy(value.indptr), _copy(value.indices), _copy(value.values), value.shape)
    if isinstance(value, Groups):
        return Groups(*map(_copy, value))
    if isinstance(value, torch.Generator):
        copy = torch.Generator()
        copy.set_state(value.get_state())
        return copy
    return value


def _tensor(value: Any) -> Tensor:
    return torch.tensor(value, dtype=torch.float64) if isinstance(value, float) else torch.as_tensor(value)


def _flat(results: Any) -> list[Any]:
    """Tensors and numbers of what an operator returned."""
    if isinstance(results, CSRGraph):
        return [results.indptr, results.indices, results.values]
    if isinstance(results, tuple | list):
        return [part for result in results for part in _flat(result)]
    return [] if results is None else [results]


def same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.nan_to_num(7), b.nan_to_num(7))
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)
