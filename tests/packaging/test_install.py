"""The package as others get it: the source distribution, and what is built from it in a fresh environment."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

import ise_fast

ROOT = Path(__file__).parents[2]


def run(*command: str | Path, cwd: Path, path: str | None = None, fails: bool = False) -> str:
    """What a command says, with nothing of this checkout on Python's path; PATH is the system's unless given."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PIP"))}
    environment["PATH"] = path or os.defpath
    done = subprocess.run([*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True)
    assert (done.returncode != 0) == fails, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sdist")
    code = f"import setuptools.build_meta as b; print(b.build_sdist({str(folder)!r}))"
    run(sys.executable, "-c", code, cwd=ROOT)
    return next(folder.glob("*.tar.gz"))


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a new environment, which sees the packages of this one but not its scripts. Not activated."""
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder, with_pip=True)
    site = next(folder.glob("lib/python*/site-packages"))
    for old in site.glob("setuptools*"):  # Python 3.11 puts one in that is too old, and it would hide the one here
        shutil.rmtree(old)
    (site / "shared.pth").write_text(sysconfig.get_path("purelib") + "\n")
    scripts = Path(sysconfig.get_path("scripts"))
    for tool in ("cmake", "ninja"):
        (folder / "bin" / tool).symlink_to(scripts / tool)
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def installed(sdist: Path, fresh: Path) -> str:
    """Installs the source distribution without the CUDA operators; returns what pip said."""
    os.environ["ISE_FAST_CMAKE_ARGS"], before = "-DISE_FAST_CUDA=OFF", os.environ.get("ISE_FAST_CMAKE_ARGS")
    try:
        options = ("--no-build-isolation", "--no-deps", "--no-index", "--disable-pip-version-check")
        return run(fresh, "-m", "pip", "install", "-v", *options, sdist, cwd=sdist.parent)
    finally:
        os.environ.pop("ISE_FAST_CMAKE_ARGS")
        if before is not None:
            os.environ["ISE_FAST_CMAKE_ARGS"] = before


def test_sdist_has_every_source_that_cmake_names(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    sources = set(re.findall(r"(?:csrc|python)/[\w/]+\.\w+", (ROOT / "CMakeLists.txt").read_text()))
    headers = {str(path.relative_to(ROOT)) for path in (ROOT / "csrc").rglob("*.*h")}
    needed = sources | headers | {"CMakeLists.txt", "setup.py", "python/build_backend.py", "LICENSE", "README.md"}
    assert needed - names == set()
    assert not [name for name in names if name.endswith((".so", ".pyc")) or name.startswith("tests/")]


def test_sdist_installs_in_an_environment_that_is_not_activated(installed: str, fresh: Path, tmp_path: Path) -> None:
    assert re.search(r"\[\d+/\d+\] Building CXX", installed), "-v shows how far the build is"
    code = (
        "import torch, ise_fast; from ise_fast.cluster import DBSCAN; x = torch.randn(50, 8);"
        "print(ise_fast.__version__, ise_fast.ops.knn(x, 3).indices[:, 0].equal(torch.arange(50)), ise_fast.__file__);"
        "DBSCAN().fit(x.numpy())"
    )
    version, found, place = run(fresh, "-c", code, cwd=tmp_path).split()
    assert (version, found) == (ise_fast.__version__, "True")
    assert Path(place).is_relative_to(fresh.parents[1])


def test_metadata_says_what_an_index_shows(installed: str, fresh: Path, tmp_path: Path) -> None:
    code = "import importlib.metadata as m; [print(f'{k}: {v}') for k, v in m.metadata('ise_fast').items()]"
    text = run(fresh, "-c", code, cwd=tmp_path)
    for line in (f"Version: {ise_fast.__version__}", "License-Expression: MIT", "Requires-Python: >=3.11"):
        assert line in text
    for extra in ("cluster", "train", "timm", "export", "infomap", "cupy", "all"):
        assert f"Provides-Extra: {extra}" in text
    assert "Classifier: Typing :: Typed" in text


def test_without_torch_the_first_line_says_what_to_do(sdist: Path, tmp_path: Path) -> None:
    """As in the isolated environment that pip makes by default: it has setuptools and nothing else."""
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (project,) = (path for path in tmp_path.iterdir() if path.is_dir())
    code = (
        "import sys; sys.path.insert(0, 'python'); import importlib.util as u; real = u.find_spec;"
        "u.find_spec = lambda name, *a: None if name == 'torch' else real(name, *a);"
        "import build_backend; build_backend.get_requires_for_build_wheel()"
    )
    text = run(sys.executable, "-c", code, cwd=project, fails=True)
    assert text.splitlines()[0].startswith("ise_fast: the build needs the torch that it will run beside: pip install")
    assert len(text.splitlines()) == 1


def test_an_old_setuptools_is_named(tmp_path: Path) -> None:
    (tmp_path / "setuptools").mkdir()
    (tmp_path / "setuptools/__init__.py").write_text('__version__ = "65.5.0"')
    (tmp_path / "setuptools/build_meta.py").write_text("")
    code = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT / 'python')!r}]; import build_backend"
    text = run(sys.executable, "-c", code, cwd=tmp_path, fails=True)
    assert text == 'ise_fast: the build needs setuptools 77, got 65.5.0: pip install "setuptools>=77"\n'


CUDA_BUILD = ROOT / "build" / str(sys.implementation.cache_tag) / "CMakeFiles" / "ise_fast_cuda.dir"


@pytest.mark.skipif(not CUDA_BUILD.is_dir(), reason="the CUDA operators were not built in this checkout")
def test_the_cuda_wheel_works_without_a_gpu_and_holds_no_library_of_torch(fresh: Path, tmp_path: Path) -> None:
    scripts = f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}"
    run(ROOT / "python/wheel.sh", "cuda", "-DISE_FAST_CUDA=ON", cwd=tmp_path, path=scripts)
    (wheel,) = (ROOT / "dist/cuda").glob("*.whl")
    assert "manylinux" in wheel.name
    with zipfile.ZipFile(wheel) as archive:
        libraries = {Path(name).name for name in archive.namelist() if ".so" in name}
    assert libraries == {"libise_fast_cuda.so", f"_C{sysconfig.get_config_var('EXT_SUFFIX')}"}
    run(fresh, "-m", "pip", "install", "--no-deps", "--no-index", "--target", tmp_path / "site", wheel, cwd=tmp_path)
    code = (
        "import sys; sys.path.insert(0, 'site'); import torch, ise_fast._library as library;"
        "print(library.has_cuda_operators == (torch.version.cuda is not None), library.build_info()['cuda'] != 'none')"
    )
    assert run(fresh, "-c", code, cwd=tmp_path).split() == ["True", "True"]


def test_it_goes_away_again(installed: str, fresh: Path, tmp_path: Path) -> None:
    """The last test of this file: the others need what it removes."""
    assert "Successfully uninstalled ise_fast" in run(fresh, "-m", "pip", "uninstall", "-y", "ise_fast", cwd=tmp_path)
    assert "ModuleNotFoundError: No module named 'ise_fast'" in run(
        fresh, "-c", "import ise_fast", cwd=tmp_path, fails=True
    )
