"""Argument checks shared by `ops` and `reference`: each message names the argument, what was expected and what came.

The checks of shape, dtype and device read no data, so they also run on fake tensors under torch.compile; `check_finite`
and `check_label_range` read data (on a GPU they wait for it).
"""

from __future__ import annotations

import math
import operator
import sys
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from ise_fast.types import CSRGraph, NotUnitRowsWarning

HALF_OR_SINGLE = (torch.float32, torch.float16, torch.bfloat16)
FLOATING = (*HALF_OR_SINGLE, torch.float64)
_NOT_THE_USER = ("ise_fast", "torch", "sklearn")


def _names(dtypes: Sequence[torch.dtype]) -> str:
    return " or ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)


def check_dense(name: str, x: object) -> Tensor:
    """A torch tensor with one number after the other (any strides): what the operators read.

    Raises:
        TypeError: if it is none, or sparse.
        ValueError: if its memory has been freed (torch itself would read at address 0).
    """
    if not isinstance(x, Tensor):
        raise TypeError(f"{name}: expected a torch tensor, got {type(x).__name__}")
    if x.layout is not torch.strided:
        raise TypeError(f"{name}: expected a dense tensor, got layout {str(x.layout).removeprefix('torch.')}")
    if _is_freed(x):
        raise ValueError(f"{name}: expected a tensor with memory, got one whose storage was freed")
    return x


def _is_freed(x: Tensor) -> bool:
    """Whether a plain CPU tensor has elements and no memory; of others torch may refuse to tell."""
    if type(x) is not Tensor or torch.compiler.is_compiling() or x.device.type != "cpu" or x.numel() == 0:
        return False
    if torch._C._functorch.is_functorch_wrapped_tensor(x) or x._is_zerotensor():
        return False
    return x.untyped_storage().nbytes() == 0


def check_all_dense(**tensors: object) -> None:
    """The same for several arguments; None stands for one that was not given.

    Raises:
        TypeError: naming the first that is no dense tensor.
    """
    for name, x in tensors.items():
        if x is not None:
            check_dense(name, x)


def check_tensor(name: str, x: object, dim: int, dtypes: Sequence[torch.dtype]) -> Tensor:
    """A tensor of `dim` dimensions and one of `dtypes`.

    Raises:
        TypeError: if it is no tensor or has another dtype.
        ValueError: if it has another number of dimensions.
    """
    tensor = check_dense(name, x)
    if tensor.dim() != dim:
        raise ValueError(f"{name}: expected {dim} dimensions, got shape {tuple(tensor.shape)}")
    if tensor.dtype not in dtypes:
        raise TypeError(f"{name}: expected dtype {_names(dtypes)}, got {_names([tensor.dtype])}")
    return tensor


def check_finite(name: str, x: Tensor) -> None:
    """No NaN and no infinity.

    Raises:
        ValueError: naming the first row that has one.
    """
    bad = ~torch.isfinite(x)
    if bad.any():
        row = int(bad.nonzero()[0, 0])
        raise ValueError(f"{name}: expected finite values, got NaN or infinity in row {row}")


def check_features(name: str, x: object, dtypes: Sequence[torch.dtype] = FLOATING) -> Tensor:
    """A finite floating matrix, at least one column wide; returned in float32, or float64 if it came so.

    Raises:
        TypeError: if it is no tensor or has a dtype outside `dtypes`.
        ValueError: if it is not a matrix, has no column, or holds NaN or infinity.
    """
    matrix = check_tensor(name, x, 2, dtypes)
    if matrix.shape[1] == 0:
        raise ValueError(f"{name}: expected at least one column, got shape {tuple(matrix.shape)}")
    check_finite(name, matrix)
    return matrix if matrix.dtype == torch.float64 else matrix.float()


def warn_unless_unit_rows(name: str, x: Tensor) -> bool:
    """Say so, and return true, where a row's length is not 1 within a hundredth (float16 keeps three digits).

    Python shows a warning once for each line that calls; the line it names is the user's. Fake tensors and
    torch.compile have no data to look at; a GPU is waited for.
    """
    if torch.compiler.is_compiling() or isinstance(x, FakeTensor) or x.device.type == "meta" or x.numel() == 0:
        return False
    lengths = torch.linalg.vector_norm(x.detach(), dim=1)
    low, high = torch.stack(lengths.aminmax()).tolist()
    if low >= 0.99 and high <= 1.01:
        return False
    warnings.warn(
        f"{name}: expected rows of unit length, got lengths from {low:.3g} to {high:.3g}; nothing normalises them "
        f"here: pass torch.nn.functional.normalize({name}, dim=1)",
        NotUnitRowsWarning,
        stacklevel=_users_level(),
    )
    return True


def _users_level() -> int:
    """The `stacklevel` of the first caller outside this package and what it calls us through (torch's modules,
    scikit-learn's fit_predict), as seen from the function that calls this one."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _NOT_THE_USER:
        frame, level = frame.f_back, level + 1
    return level


def check_columns(name: str, x: Tensor, other_name: str, other: Tensor) -> None:
    """Two matrices of vectors from one space, on one device, in one precision.

    Raises:
        ValueError: if the widths or devices differ.
        TypeError: if one is float64 and the other is not.
    """
    if x.shape[1] != other.shape[1]:
        raise ValueError(f"{name}: expected {other.shape[1]} columns as in {other_name}, got shape {tuple(x.shape)}")
    check_device(name, x, other_name, other)
    if (x.dtype == torch.float64) != (other.dtype == torch.float64):
        raise TypeError(f"{name}: expected the precision of {other_name} ({other.dtype}), got {x.dtype}")


def check_device(name: str, x: Tensor, other_name: str, other: Tensor) -> None:
    """Two tensors on one device.

    Raises:
        ValueError: if they are not.
    """
    if x.device != other.device:
        raise ValueError(f"{name}: expected device {other.device} as {other_name}, got {x.device}")


def check_label_vector(name: str, labels: object, rows: int, rows_of: str) -> Tensor:
    """int64, one label a row.

    Raises:
        TypeError: if it is no int64 tensor.
        ValueError: if it is not [rows].
    """
    vector = check_tensor(name, labels, 1, (torch.int64,))
    if vector.shape[0] != rows:
        raise ValueError(f"{name}: expected one label for each of the {rows} rows of {rows_of}, got {vector.shape[0]}")
    return vector


def check_label_range(name: str, labels: Tensor, count: int) -> None:
    """Every label has a centroid: 0 <= label < count. Also for indices into `count` rows.

    Raises:
        ValueError: with the first value outside.
    """
    bad = (labels < 0) | (labels >= count)
    if bad.any():
        raise ValueError(f"{name}: expected values in [0, {count}), got {int(labels[bad][0])}")


def check_int(name: str, value: object, low: int, high: int | None = None, why: str = "") -> int:
    """An integer (NumPy's too) with low <= value, and value <= high if given; `why` explains the upper bound.

    Raises:
        TypeError: if it is no integer.
        ValueError: if it is out of range.
    """
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name}: expected an integer, got {value!r}")
    number = operator.index(value)
    if abs(number) >= 1 << 63:
        raise ValueError(f"{name}: expected an integer of 64 bits, got {number}")
    if high is not None and not low <= number <= high:
        reason = f" ({why})" if why else ""
        raise ValueError(f"{name}: expected an integer in [{low}, {high}]{reason}, got {number}")
    if number < low:
        raise ValueError(f"{name}: expected an integer of at least {low}, got {number}")
    return number


def check_number(name: str, value: object, low: float, high: float = math.inf, *, above: bool = False) -> float:
    """A finite number in [low, high], or in (low, high] if `above`.

    Raises:
        TypeError: if it is no real number.
        ValueError: if it is NaN, infinite or out of range.
    """
    if isinstance(value, bool) or not hasattr(value, "__float__") or isinstance(value, Tensor):
        raise TypeError(f"{name}: expected a number, got {value!r}")
    number = float(value)
    inside = low < number <= high if above else low <= number <= high
    if not (math.isfinite(number) and inside):
        left, right = "(" if above else "[", ")" if high == math.inf else "]"
        raise ValueError(f"{name}: expected a finite number in {left}{low:g}, {high:g}{right}, got {number}")
    return number


def check_choice(name: str, value: object, choices: Sequence[str]) -> str:
    """One of the words in `choices`.

    Raises:
        ValueError: if it is not.
    """
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(choices)}, got {value!r}")
    return value


def check_graph(name: str, graph: CSRGraph) -> None:
    """A square, well-formed graph of distances: finite, at least 0, columns of a row strictly ascending.

    Raises:
        TypeError: if a part has the wrong dtype.
        ValueError: if the graph is not square, its parts do not fit together, or a distance is out of range.
    """
    rows, width = graph.shape
    if rows != width:
        raise ValueError(f"{name}: expected a square graph, got shape {graph.shape}")
    indptr = check_tensor(f"{name}.indptr", graph.indptr, 1, (torch.int64,))
    indices = check_tensor(f"{name}.indices", graph.indices, 1, (torch.int32, torch.int64))
    values = check_tensor(f"{name}.values", graph.values, 1, (torch.float32, torch.float64))
    check_device(f"{name}.indices", indices, f"{name}.values", values)
    check_device(f"{name}.indptr", indptr, f"{name}.values", values)
    if indptr.numel() != rows + 1:
        raise ValueError(f"{name}.indptr: expected {rows + 1} offsets for {rows} rows, got {indptr.numel()}")
    if indices.numel() != values.numel():
        raise ValueError(f"{name}.indices: expected {values.numel()} as in values, got {indices.numel()}")
    steps = indptr.diff()
    if indptr[0] != 0 or indptr[-1] != values.numel() or (steps < 0).any():
        raise ValueError(f"{name}.indptr: expected to rise from 0 to {values.numel()}, got {indptr.tolist()[:8]}...")
    check_label_range(f"{name}.indices", indices, width)
    row = torch.arange(rows, device=indptr.device).repeat_interleave(steps)
    if ((indices.diff() <= 0) & (row.diff() == 0)).any():
        raise ValueError(f"{name}.indices: expected strictly ascending columns in every row")
    check_finite(f"{name}.values", values[:, None])
    if (values < 0).any():
        raise ValueError(f"{name}.values: expected distances of at least 0, got {values.min().item()}")
