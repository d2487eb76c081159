"""Arrays of other libraries: what the user passes is seen as a torch tensor, results go back as what came."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

#: Turns a result into the kind of array that the user passed.
Restore = Callable[[Tensor], Any]


def to_numpy(tensor: Tensor) -> Any:
    return tensor.cpu().numpy()


def same(tensor: Tensor) -> Tensor:
    return tensor


def is_foreign(x: Any) -> bool:
    """A torch tensor or an array of another DLPack library, as opposed to what NumPy takes (arrays, lists, frames)."""
    return isinstance(x, Tensor) or (hasattr(x, "__dlpack__") and not isinstance(x, np.ndarray | np.generic))


def from_foreign(name: str, x: Any) -> tuple[Tensor, Restore]:
    """The array as a tensor that shares its memory, and the way back.

    Raises:
        TypeError: if its library has no from_dlpack to take results back.
    """
    if isinstance(x, Tensor):
        return x.detach(), same
    library = sys.modules[type(x).__module__.split(".")[0]]
    restore = getattr(library, "from_dlpack", None)
    if restore is None:
        raise TypeError(
            f"{name}: expected a NumPy, torch or CuPy array, or one of a library with from_dlpack, got {type(x)}"
        )
    return torch.utils.dlpack.from_dlpack(x), restore


def floats(x: Tensor) -> Tensor:
    """Integers and bool become float64, as those of NumPy; on a GPU, whose kernels take none, float32."""
    if x.is_floating_point() or x.is_complex():  # the latter nobody takes
        return x
    return x.to(torch.float64 if x.device.type == "cpu" else torch.float32)


def learn_columns(estimator: Any, count: int) -> None:
    """What `fit` learns of columns without names; those of an earlier table are forgotten, as in scikit-learn."""
    estimator.n_features_in_ = count
    if hasattr(estimator, "feature_names_in_"):
        del estimator.feature_names_in_


def from_numpy(x: np.ndarray[Any, Any]) -> Tensor:
    """A validated NumPy array as a tensor: float32 stays, everything else becomes float64, as in scikit-learn."""
    x = np.asarray(x, dtype=np.float32 if x.dtype == np.float32 else np.float64)
    if not x.flags.writeable or any(stride < 0 for stride in x.strides):  # torch takes neither
        x = x.copy()
    return torch.from_numpy(x)
