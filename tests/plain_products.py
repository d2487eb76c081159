"""pytest -p plain_products: cuBLAS's products by tests/simt/plain_products.cu, which compute-sanitizer can follow.

ISE_FAST_PLAIN_PRODUCTS names the library that nvcc made of that file. Where every library looks first, ours finds these
products before those of cuBLAS, which it knows through PyTorch alone. A run that formed none fails: whatever it was to
show, it has not shown it. In one process only (no -n).
"""

from __future__ import annotations

import ctypes
import os

import pytest

LIBRARY = "ISE_FAST_PLAIN_PRODUCTS"  # environment variable
if LIBRARY not in os.environ:
    raise pytest.UsageError(f"-p plain_products: expected the path of a library in {LIBRARY}, got none")
products = ctypes.CDLL(os.environ[LIBRARY], mode=ctypes.RTLD_GLOBAL)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if products.plain_products_formed() == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.write_line(f"products formed by {os.environ[LIBRARY]}: {products.plain_products_formed()}")
