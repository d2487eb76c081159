"""The products that runs under compute-sanitizer have in place of cuBLAS's: their arithmetic, and who finds them."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from simt.build import SIMT, VARIANT, build
from torch import Tensor

from benchmarks.profile.interpreter import NO_NVCC, NVCC

FLOAT, HALF, BFLOAT16 = 0, 2, 14  # cudaDataType_t
TYPES = {torch.float32: FLOAT, torch.float16: HALF, torch.bfloat16: BFLOAT16}
COMPUTE_32F, COMPUTE_16F = 68, 64
SUCCESS, NOT_INITIALIZED, INVALID_VALUE, INTERNAL_ERROR, NOT_SUPPORTED = 0, 1, 7, 14, 15

pytestmark = pytest.mark.skipif(VARIANT in os.environ, reason="a library of its own")


@pytest.fixture(scope="module")
def path() -> Path:
    """The products, compiled for the host."""
    return build("simt_plain_products") / "libsimt_plain_products.so"


class Matrices:
    """Random matrices [batches, rows, columns] that lie column by column, with NaN between columns and matrices."""

    def __init__(self, batches: int, rows: int, columns: int, dtype: torch.dtype, seed: int) -> None:
        self.memory = torch.full((batches, columns + 1, rows + 3), torch.nan, dtype=dtype)
        self.value = self.memory[:, :columns, :rows].mT
        self.value.copy_(torch.randn(batches, rows, columns, generator=torch.Generator().manual_seed(seed)))
        self.data, self.pitch, self.stride = self.memory.data_ptr(), rows + 3, self.memory.stride(0)


def call(
    library: ctypes.CDLL,
    a: Matrices,
    b: Matrices,
    c: Matrices,
    transposed: tuple[bool, bool] = (False, False),
    scales: tuple[float, float] = (1.0, 0.0),
    batches: int | None = None,
    **changed: int,
) -> int:
    """The status of cublasGemmStridedBatchedEx, or of cublasGemmEx without `batches`."""
    m, n, k = c.value.size(1), c.value.size(2), a.value.size(1 if transposed[0] else 2)
    alpha, beta = (ctypes.byref(ctypes.c_float(scale)) for scale in scales)
    given = {"compute": COMPUTE_32F}
    for name, x in (("a", a), ("b", b), ("c", c)):
        given |= {f"{name}_type": TYPES[x.memory.dtype], f"{name}_pitch": x.pitch}
    given |= changed

    def matrices(x: Matrices, name: str) -> list[Any]:
        stride = [] if batches is None else [ctypes.c_longlong(x.stride)]
        return [ctypes.c_void_p(x.data), given[f"{name}_type"], given[f"{name}_pitch"], *stride]

    function = library.cublasGemmEx if batches is None else library.cublasGemmStridedBatchedEx
    some = [] if batches is None else [batches]
    return int(
        function(
            *(None, int(transposed[0]), int(transposed[1]), m, n, k),
            *(alpha, *matrices(a, "a"), *matrices(b, "b"), beta, *matrices(c, "c"), *some, given["compute"], -1),
        )
    )


def operands(batches: int, m: int, n: int, k: int, dtype: torch.dtype, transposed: tuple[bool, bool]) -> Any:
    """A, B and C; A and B as they lie, so that op(A) is [m, k] and op(B) [k, n]."""
    a = Matrices(batches, *((k, m) if transposed[0] else (m, k)), dtype, 0)
    b = Matrices(batches, *((n, k) if transposed[1] else (k, n)), dtype, 1)
    return a, b, Matrices(batches, m, n, torch.float32, 2)


def product(a: Matrices, b: Matrices, transposed: tuple[bool, bool]) -> Tensor:
    left, right = (x.value.mT if turned else x.value for x, turned in zip((a, b), transposed, strict=True))
    return left.double() @ right.double()


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("transposed", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("batches", [None, 3])
def test_products_are_those_of_torch(
    path: Path, dtype: torch.dtype, transposed: tuple[bool, bool], batches: int | None
) -> None:
    library = ctypes.CDLL(str(path))
    for (m, n, k), scales in [((5, 31, 7), (1.0, 0.0)), ((33, 4, 9), (0.5, 1.0)), ((1, 1, 1), (-2.0, 0.25))]:
        a, b, c = operands(batches or 1, m, n, k, dtype, transposed)
        expected = scales[0] * product(a, b, transposed)
        if scales[1] == 0:
            c.value.fill_(torch.nan)  # what is multiplied by zero is not read
        else:
            expected += scales[1] * c.value.double()
        assert call(library, a, b, c, transposed, scales, batches) == SUCCESS
        torch.testing.assert_close(c.value.double(), expected, rtol=1e-6, atol=1e-6 * k)
        assert int(c.memory.isfinite().sum()) == c.value.numel()  # nothing beside the result was written


def test_what_csrc_does_not_ask_for_is_refused(path: Path) -> None:
    library = ctypes.CDLL(str(path))
    a, b, c = operands(1, 3, 2, 4, torch.float16, (False, False))
    before = c.memory.clone()
    for changed in ({"b_type": FLOAT}, {"c_type": HALF}, {"a_type": 1, "b_type": 1}, {"compute": COMPUTE_16F}):
        assert call(library, a, b, c, **changed) == NOT_SUPPORTED
    for pitch in ({"a_pitch": 2}, {"b_pitch": 3}, {"c_pitch": 2}):
        assert call(library, a, b, c, **pitch) == INVALID_VALUE
    assert call(library, a, b, c, batches=0) == SUCCESS
    torch.testing.assert_close(c.memory, before, rtol=0, atol=0, equal_nan=True)


def test_every_product_that_csrc_calls_is_here() -> None:
    declared = re.findall(r"\bint (cublas\w+)\(", (SIMT.parents[1] / "csrc" / "cuda" / "gemm.h").read_text())
    assert {"cublasSetMathMode", "cublasGemmEx"} <= set(declared)
    ours = (SIMT / "plain_products.cu").read_text()
    assert [name for name in declared if name != "cublasSetMathMode" and f" {name}(" not in ours] == []


# As libise_fast_cuda.so: it finds cuBLAS's products through a library that it depends on. form() is 3 x 3, or -1.
CUBLAS = "int cublasGemmEx() { return 0; }"
CALLER = """
int cublasGemmEx();
int form() {
  float one = 1, zero = 0, x = 3, y = -1;
  cublasGemmEx(0, 0, 0, 1, 1, 1, &one, &x, 0, 1, &x, 0, 1, &zero, &y, 0, 1, 68, -1);
  return y;
}
"""


@pytest.fixture(scope="module")
def caller(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("caller")
    for text, out, arguments in [
        (CUBLAS, folder / "libfake_cublas.so", []),
        (CALLER, folder / "libcaller.so", [folder / "libfake_cublas.so", f"-Wl,-rpath,{folder}"]),
    ]:
        command = ["gcc", "-w", "-shared", "-fPIC", "-x", "c", "-", "-x", "none", *arguments, "-o", out]
        subprocess.run(command, input=text, text=True, check=True)
    return folder / "libcaller.so"


def run_with_plugin(folder: Path, test: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """pytest -p plain_products on the text of a test function."""
    inherited = {name: value for name, value in os.environ.items() if name != "ISE_FAST_PLAIN_PRODUCTS"}
    (folder / "test_it.py").write_text(f"import ctypes\n\ndef test_it():\n    {test}\n")
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "plain_products", "test_it.py"],
        cwd=folder,
        env={**inherited, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(SIMT.parent), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_they_come_before_those_that_the_caller_depends_on(path: Path, caller: Path, tmp_path: Path) -> None:
    assert ctypes.CDLL(str(caller)).form() == -1
    test = f"assert ctypes.CDLL({str(caller)!r}).form() == 9"
    done = run_with_plugin(tmp_path, test, ISE_FAST_PLAIN_PRODUCTS=str(path))
    assert done.returncode == 0, done.stdout
    assert f"products formed by {path}: 1" in done.stdout


def test_a_run_that_formed_none_fails(path: Path, tmp_path: Path) -> None:
    done = run_with_plugin(tmp_path, "pass", ISE_FAST_PLAIN_PRODUCTS=str(path))
    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    assert "1 passed" in done.stdout
    assert f"products formed by {path}: 0" in done.stdout


def test_the_plugin_needs_a_library(tmp_path: Path) -> None:
    done = run_with_plugin(tmp_path, "pass")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "expected the path of a library in ISE_FAST_PLAIN_PRODUCTS, got none" in done.stdout


@pytest.mark.skipif(not NVCC, reason=NO_NVCC)
def test_nvcc_compiles_them_and_they_ask_the_library_for_its_stream(tmp_path: Path) -> None:
    """As benchmarks/gpu_check.sh does. Without a handle cuBLAS knows no stream; without cuBLAS nobody does."""
    out, source = tmp_path / "plain_products.so", SIMT / "plain_products.cu"
    subprocess.run([NVCC, "-std=c++20", "-arch=sm_90", "-shared", "-Xcompiler=-fPIC", "-o", out, source], check=True)
    status = call(ctypes.CDLL(str(out)), *operands(1, 2, 3, 4, torch.float32, (False, False)))
    assert status == (NOT_INITIALIZED if torch.version.cuda else INTERNAL_ERROR)
