"""What a source distribution holds, the package without its extension, and what is said where there is no compiler."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIBRARIES = sorted({Path(find_spec(name).origin).parents[1] for name in ("torch", "numpy")})
PACKAGES = {"geco_ext": "geco_ext", "models": "geco_ext/models", "experiments": "geco_ext/experiments"}

pytestmark = pytest.mark.skipif(
    find_spec("scikit_build_core") is None or find_spec("pybind11") is None, reason="needs what builds the package"
)


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """The files that a build sees, and some tests, which setuptools would find."""
    path = tmp_path_factory.mktemp("package") / "sources"
    ignored = shutil.ignore_patterns("*.so", "__pycache__", "*.egg-info", "results")
    for folder in (*PACKAGES, "cmake", "csrc", "tools"):
        links = [name for name in os.listdir(ROOT / folder) if (ROOT / folder / name).is_symlink()]
        shutil.copytree(
            ROOT / folder, path / folder, ignore=lambda at, names, links=links: {*ignored(at, names), *links}
        )
    for file in (file for file in ROOT.iterdir() if file.is_file() and not file.name.startswith(".")):
        shutil.copy(file, path)
    (path / "tests").mkdir()
    for file in ROOT.glob("tests/test_*.py"):
        shutil.copy(file, path / "tests")
    return path


@pytest.fixture(scope="module")
def built(sources):
    """A source distribution, and a wheel made of it without the extension, where there is no compiler."""
    code = "from scikit_build_core.setuptools import build_meta as b; "
    _in_an_environment(sources, code + "b.build_sdist('../built')")
    (distribution,) = sources.parent.glob("built/*.tar.gz")
    with tarfile.open(distribution) as archive:
        archive.extractall(sources.parent, filter="data")
    unpacked = sources.parent / distribution.name.removesuffix(".tar.gz")
    done = _in_an_environment(unpacked, code + "b.build_wheel('../built')", PATH="/nowhere", GECO_EXT_EXTENSION="OFF")
    assert done.returncode == 0, done.stdout
    (wheel,) = sources.parent.glob("built/*.whl")
    return unpacked, wheel


def _in_an_environment(folder, code, *options, **environment):
    """Output and exit status of Python in a folder; no compiler is named."""
    clean = {k: v for k, v in os.environ.items() if k not in ("CXX", "CMAKE_ARGS", "GECO_EXT_EXTENSION", "PYTHONPATH")}
    return subprocess.run(
        [sys.executable, *options, "-c", code],
        cwd=folder,
        env=clean | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )


def _modules(folder):
    return {str(file.relative_to(folder)) for file in folder.rglob("*.py")}


def test_the_source_distribution_holds_what_a_build_needs_and_no_tests(sources, built):
    unpacked, _ = built
    assert not (unpacked / "tests").exists()
    assert not (unpacked / "Makefile").exists()
    for folder in (*PACKAGES, "cmake", "csrc"):
        held = {str(file.relative_to(unpacked)) for file in (unpacked / folder).rglob("*") if file.is_file()}
        needed = {
            str(file.relative_to(sources))
            for file in (sources / folder).rglob("*")
            if file.is_file() and (folder not in PACKAGES or file.suffix == ".py" or file.name == "py.typed")
        }
        assert needed - held == set()
    named = re.findall(r"\b(?:csrc|cmake)/[\w/]+\.\w+", (unpacked / "CMakeLists.txt").read_text())
    assert len(named) > 40
    assert [name for name in named if not (unpacked / name).is_file()] == []


def test_without_the_extension_the_package_is_pure_and_whole(sources, built):
    _, wheel = built
    assert wheel.name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    expected = {f"{place}/{name}" for folder, place in PACKAGES.items() for name in _modules(sources / folder)}
    assert names == expected | {"geco_ext/py.typed"}


def test_without_the_extension_the_reference_serves_the_cpu(built, tmp_path):
    with zipfile.ZipFile(built[1]) as archive:
        archive.extractall(tmp_path)
    done = _in_an_environment(
        tmp_path,
        "import torch, geco_ext; assert 'cpu' not in geco_ext.available_backends(); x = torch.zeros(2, 1, 8, 8);"
        "y = x.clone().requires_grad_(); criterion = geco_ext.GECOLoss([geco_ext.ReconstructionError(0.1)]);"
        "criterion(y + 0.2, x, torch.zeros(2)).backward(); print(criterion.last_constraint[0].item(), y.grad.norm())",
        "-S",  # an installation in place would lend its extension
        PYTHONPATH=os.pathsep.join(map(str, (tmp_path, *LIBRARIES))),
    )
    assert done.returncode == 0, done.stdout
    assert "there is no compiled extension for this Python (GECO_EXT_EXTENSION=OFF leaves it out)" in done.stdout
    assert float(done.stdout.splitlines()[-1].split()[0]) == pytest.approx(0.2**2 - 0.1**2)


@pytest.mark.parametrize(
    ("environment", "why"),
    [
        ({}, "none of c++, g++, clang++, icpx is in PATH"),
        ({"CXX": "no-such-compiler -m64"}, "CXX=no-such-compiler -m64 is not there"),
    ],
)
def test_where_there_is_no_compiler_one_line_says_what_to_do(sources, environment, why):
    """The first thing that pip asks for, before it gets PyTorch."""
    code = "from scikit_build_core.setuptools import build_meta as b; b.prepare_metadata_for_build_wheel('.')"
    done = _in_an_environment(sources, code, PATH="/nowhere", **environment)
    assert done.returncode == 1
    assert done.stdout == (
        f"geco_ext: no C++ compiler: {why}; install one (apt install g++; dnf install gcc-c++; conda install "
        "cxx-compiler), or leave the compiled kernels out: GECO_EXT_EXTENSION=OFF pip install .\n"
    )


@pytest.mark.parametrize(
    ("there", "of_python", "given", "chosen"),
    [
        (["clang++"], "g++", {}, "clang++"),
        (["clang++"], "x86_64-conda-linux-gnu-c++ -pthread", {"CXX": ""}, "clang++"),
        (["clang++", "g++"], "g++ -pthread", {}, None),
        (["conda-linux-gnu-c++"], "conda-linux-gnu-c++ -pthread", {}, None),
        (["clang++", "c++"], "g++", {"CXX": "clang++"}, "clang++"),
        (["clang++"], "g++", {"CMAKE_ARGS": "-DCMAKE_CXX_COMPILER=/opt/c++"}, None),
    ],
)
def test_a_compiler_that_is_here_is_taken_for_that_which_built_python(
    tmp_path, monkeypatch, there, of_python, given, chosen
):
    """scikit-build-core takes the latter, without which CMake fails."""
    for name in there:
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    for name in ("CXX", "CMAKE_ARGS", "CMAKE_TOOLCHAIN_FILE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"PATH": str(tmp_path), **given}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.syspath_prepend(ROOT / "cmake")
    monkeypatch.setattr("sysconfig.get_config_var", lambda name: of_python)
    import cxx_compiler

    assert cxx_compiler.problem() is None
    cxx_compiler.choose()
    assert os.environ.get("CXX") == chosen


def test_another_word_for_the_extension_is_refused(sources):
    code = "from scikit_build_core.setuptools import build_meta as b; b.prepare_metadata_for_build_wheel('.')"
    done = _in_an_environment(sources, code, GECO_EXT_EXTENSION="maybe")
    assert done.stdout == "geco_ext: GECO_EXT_EXTENSION must be ON or OFF, got 'maybe'\n"
