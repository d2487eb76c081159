"""setuptools' build backend, which first looks whether a build is possible at all.

A build links against the torch that is installed. An isolated environment has none, so `pip install .` would fetch
cmake, ninja and pybind11 and fail after that: here it fails at once, in one line, with what to type instead.
"""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

import setuptools
from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403 - the hooks that stay as they are

if int(setuptools.__version__.split(".")[0]) < 77:  # Python 3.11 puts 65 into new environments
    sys.exit(f'ise_fast: the build needs setuptools 77, got {setuptools.__version__}: pip install "setuptools>=77"')


def get_requires_for_build_wheel(config_settings: Any = None) -> list[str]:
    """What a wheel needs besides torch.

    Raises:
        SystemExit: one line, if torch is not installed.
    """
    _need_torch()
    return [*build_meta.get_requires_for_build_wheel(config_settings), "cmake>=3.27", "ninja", "pybind11>=2.13"]


def get_requires_for_build_editable(config_settings: Any = None) -> list[str]:
    """As for a wheel."""
    return get_requires_for_build_wheel(config_settings)


def _need_torch() -> None:
    if importlib.util.find_spec("torch") is None:
        command = 'pip install "torch>=2.10" numpy cmake ninja pybind11 "setuptools>=77"'
        sys.exit(
            f"ise_fast: the build needs the torch that it will run beside: {command}, then pip install -v "
            "--no-build-isolation ..."
        )
