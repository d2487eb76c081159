"""Files of features: a table of numbers, one row an image, beside columns such as path, id and camera."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ise_fast.data.files import is_utf8, publish
from ise_fast.engine.errors import UsageError

SUFFIXES = (".npz", ".npy", ".csv", ".parquet")
NAMES = "surrogateescape"  # a file's name that is not UTF-8 keeps its bytes
REMEDIES = {  # by what a library says
    **dict.fromkeys(("pickle", "Python objects"), "; save numbers alone, such as array.astype(numpy.float32)"),
    **dict.fromkeys(("can't decode", "surrogates not allowed"), "; save it as UTF-8"),
}
Columns = Mapping[str, Sequence[Any] | NDArray[Any]]


def write_features(path: Path, features: NDArray[np.float32], columns: Columns) -> None:
    """Write features [n, d] and further columns [n] as the suffix of `path` says; complete or not at all.

    npz: arrays `features` and the columns. npy: the features alone. csv and parquet: the columns, then f0, f1, ....

    Raises:
        ImportError: parquet without pandas and pyarrow.
        OSError: if the file cannot be written.
    """
    kind = path.suffix.lower()
    with publish(path) as temporary, temporary.open("wb") as file:
        if kind == ".npy":
            np.save(file, features)
        elif kind == ".npz":
            arrays: dict[str, Any] = {name: np.asarray(values) for name, values in columns.items()}
            np.savez(file, features=features, **arrays)
        else:
            table = _table(kind, columns)
            numbers = _pandas(kind).DataFrame(features, columns=[f"f{i}" for i in range(features.shape[1])])
            table = _pandas(kind).concat([table, numbers], axis=1)
            _write_table(table, kind, file)


def read_features(path: Path) -> tuple[NDArray[Any], dict[str, NDArray[Any]]]:
    """Features [n, d] and the other columns of a file; npy is mapped into memory, not read.

    npz: the array called features, or the only one of two dimensions. csv and parquet: the columns of numbers called
    f0, f1, ... or, if there are none, all columns of numbers, or one column of lists.

    Raises:
        UsageError: if the file has no such numbers.
        ImportError: parquet without pandas and pyarrow.
        OSError: if the file cannot be read.
    """
    kind = path.suffix.lower()
    if kind in (".csv", ".parquet"):
        _pandas(kind)
    try:
        return _read(path, kind)
    except (UsageError, OSError, MemoryError):
        raise
    except Exception as error:  # a damaged file surfaces as one of a dozen types
        why = " ".join(str(error).split()) or type(error).__name__
        remedy = next((remedy for said, remedy in REMEDIES.items() if said in why), "")
        raise UsageError(f"{path}: cannot be read: {why}{remedy}") from error


def _read(path: Path, kind: str) -> tuple[NDArray[Any], dict[str, NDArray[Any]]]:
    if kind == ".npy":
        return _matrix(path, np.load(path, mmap_mode="r", allow_pickle=False)), {}
    if kind == ".npz":
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        wide = [name for name, array in arrays.items() if array.ndim == 2]
        name = "features" if "features" in arrays else wide[0] if len(wide) == 1 else None
        if name is None:
            raise UsageError(f"{path}: expected an array 'features', got {_shapes(arrays)}")
        features = _matrix(path, arrays.pop(name))
        return features, {key: array for key, array in arrays.items() if array.shape == features.shape[:1]}
    table = _read_csv(path) if kind == ".csv" else _pandas(kind).read_parquet(path)
    numbers = [name for name in table.columns if str(name)[:1] == "f" and str(name)[1:].isdigit()]
    numbers = numbers or [name for name in table.columns if table[name].dtype.kind in "fiu"]
    lists = [name for name in table.columns if len(table) and isinstance(table[name].iloc[0], (list, np.ndarray))]
    if len(lists) == 1:
        features, numbers = np.stack(table[lists[0]].to_list()), lists
    elif not numbers:
        names = ", ".join(str(name) for name in table.columns[:5])
        raise UsageError(f"{path}: expected columns of numbers with commas between them, got {names}")
    else:
        for name in numbers:
            _require_numbers(path, table[name])
        features = table[numbers].to_numpy(dtype=np.float64 if kind == ".csv" else None)
    return _matrix(path, features), {str(n): table[n].to_numpy() for n in table.columns if n not in numbers}


def write_columns(path: Path, columns: Columns) -> None:
    """Write equally long columns as csv, json, npz or parquet; npy: the last column alone.

    Raises:
        ImportError, OSError: as `write_features`.
    """
    kind = path.suffix.lower()
    plain: dict[str, Any] = {name: np.asarray(values) for name, values in columns.items()}
    with publish(path) as temporary, temporary.open("wb") as file:
        if kind == ".npy":
            np.save(file, list(plain.values())[-1])
        elif kind == ".npz":
            np.savez(file, **plain)
        elif kind == ".json":
            file.write((json.dumps({name: values.tolist() for name, values in plain.items()}) + "\n").encode())
        else:
            _write_table(_table(kind, plain), kind, file)


def check_names(path: Path, names: Iterable[object]) -> None:
    """Names of files need not be UTF-8, which parquet takes alone; csv keeps their bytes.

    Raises:
        UsageError: for a name that `path` cannot hold.
    """
    if path.suffix.lower() != ".parquet":
        return
    for name in map(str, names):
        if not is_utf8(name):
            shown = name.encode(errors="backslashreplace").decode()
            raise UsageError(f"{path}: parquet holds no name that is not UTF-8, such as {shown}; take .csv or .npz")


def _table(kind: str, columns: Columns) -> Any:
    """A table whose texts stay the strings of Python: those of pandas are UTF-8."""
    pandas, arrays = _pandas(kind), {name: np.asarray(values) for name, values in columns.items()}
    return pandas.DataFrame(
        {n: pandas.Series(a, dtype=object if a.dtype.kind in "UO" else None) for n, a in arrays.items()}
    )


def _read_csv(path: Path) -> Any:
    pandas = _pandas(".csv")
    try:
        return pandas.read_csv(path, encoding_errors=NAMES)
    except UnicodeEncodeError:  # a name that is not UTF-8
        table = pandas.read_csv(path, encoding_errors=NAMES, dtype=object)
        for name in table.columns:
            with contextlib.suppress(ValueError, TypeError):  # texts
                table[name] = pandas.to_numeric(table[name])
        return table


def _write_table(table: Any, kind: str, file: IO[bytes]) -> None:
    if kind == ".csv":
        table.to_csv(file, index=False, errors=NAMES)
    else:
        table.to_parquet(file, index=False)


def _require_numbers(path: Path, column: Any) -> None:
    if column.dtype.kind in "fiu":
        return
    for row, value in enumerate(column.tolist()):
        try:
            float(value)
        except (TypeError, ValueError):
            raise UsageError(f"{path}: column {column.name}: expected numbers, got {value!r} in row {row}") from None


def _matrix(path: Path, array: NDArray[Any]) -> NDArray[Any]:
    if array.ndim != 2 or array.dtype.kind not in "fiu" or 0 in array.shape:
        raise UsageError(f"{path}: expected [n, d] numbers, got shape {array.shape} of {array.dtype}")
    if array.dtype.itemsize > 8:  # long double
        return array.astype(np.float64)
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def _shapes(arrays: Mapping[str, NDArray[Any]]) -> str:
    return ", ".join(f"{name} {array.shape}" for name, array in arrays.items()) or "an empty archive"


def _pandas(kind: str) -> Any:
    try:
        import pandas

        if kind == ".parquet":
            import pyarrow  # noqa: F401
    except ImportError as error:
        raise ImportError(f"{kind} files need the package {error.name}: pip install {error.name}") from error
    return pandas
