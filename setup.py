"""Builds the C++/CUDA libraries by calling CMake; everything else about the package is in pyproject.toml.

`python setup.py build_ext` builds in place; `pip install -v --no-build-isolation .` builds into the wheel and shows how
far it is. cmake and ninja are those beside the interpreter, if there are any: an environment need not be activated.
Environment: MAX_JOBS, TORCH_CUDA_ARCH_LIST, ISE_FAST_CMAKE_ARGS (further arguments for CMake),
ISE_FAST_BUILD_DIR (objects; default: build/ and the name of the interpreter).
"""

import os
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent


class CMakeBuild(build_ext):
    """Configure and build CMakeLists.txt, libraries into the package folder."""

    def initialize_options(self) -> None:
        super().initialize_options()
        self.inplace = "build_ext" in sys.argv

    def copy_extensions_to_source(self) -> None:
        """In place: all libraries, also the CUDA one, which is no Python module and therefore unknown to setuptools."""
        for library in (Path(self.build_lib) / "ise_fast").glob("*.so"):
            self.copy_file(str(library), str(ROOT / "ise_fast"))

    def build_extension(self, ext: Extension) -> None:
        try:
            import pybind11
            import torch
        except ImportError as error:
            sys.exit(f"ise_fast: {error.name} is needed to build: install it first, then --no-build-isolation")
        output = Path(self.get_ext_fullpath(ext.name)).resolve().parent
        build = Path(os.environ.get("ISE_FAST_BUILD_DIR", ROOT / "build" / str(sys.implementation.cache_tag)))
        build.mkdir(parents=True, exist_ok=True)
        configure = [
            *("cmake", "-S", str(ROOT), "-B", str(build), "-G", "Ninja"),
            f"-DISE_FAST_TORCH_DIR={Path(torch.__file__).parent}",
            f"-DISE_FAST_OUTPUT_DIR={output}",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
            *shlex.split(os.environ.get("ISE_FAST_CMAKE_ARGS", "")),
        ]
        jobs = os.environ.get("MAX_JOBS", str(os.cpu_count() or 1))
        for command in (configure, ["cmake", "--build", str(build), "--parallel", jobs]):
            if subprocess.run(command, env=tool_environment()).returncode:
                sys.exit(f"ise_fast: failed: {shlex.join(command)}")


def tool_environment() -> dict[str, str]:
    """The environment with this interpreter's scripts first: a system may have an older cmake."""
    folders = [sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath)]
    return {**os.environ, "PATH": os.pathsep.join(folders)}


setup(ext_modules=[Extension("ise_fast._C", sources=[])], cmdclass={"build_ext": CMakeBuild})
