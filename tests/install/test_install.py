"""``tools/install.py``: what is shown of pip's words, and why an installation failed."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).resolve().parents[2] / "tools" / "install.py"
specification = importlib.util.spec_from_file_location("install", PROGRAM)
install = importlib.util.module_from_spec(specification)
specification.loader.exec_module(install)


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("  [3/14] Building CXX object CMakeFiles/_C.dir/csrc/bindings/cpu.cpp.o\n", "[3/14] csrc/bindings/cpu.cpp"),
        ("  [9/40] Building CUDA object CMakeFiles/_C.dir/csrc/cuda/step.cu.o\n", "[9/40] csrc/cuda/step.cu"),
        ("  -- geco_ext: C++ kernels, no CUDA kernels: why\n", "geco_ext: C++ kernels, no CUDA kernels: why"),
        ("  Running command Building editable for geco-ext (pyproject.toml)\n", "building the extension"),
        ("Collecting torch>=2.6 (from geco-ext==0.1.0)\n", "getting PyTorch, and what comes with it"),
        ("  Downloading torch-2.13.0-cp311.whl (190.1 MB)\n", "downloading torch-2.13.0-cp311 (190.1 MB)"),
        ("  Downloading six-1.17.0-py2.py3-none-any.whl (11 kB)\n", None),
        ("Requirement already satisfied: numpy\n", None),
    ],
)
def test_progress(line, shown):
    assert install.shown(line) == shown


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        (
            [
                "WARNING: Retrying (Retry(total=4)) after connection broken by 'NewConnectionError': /simple/torch/",
                "ERROR: No matching distribution found for torch>=2.6",
            ],
            "the package index cannot be reached",
        ),
        (["ERROR: No matching distribution found for torch==99"], "No matching distribution found for torch==99"),
        (["  csrc/a.cpp:3:1: error: 'x' was not declared", "  error: subprocess-exited"], "csrc/a.cpp:3:1: error: 'x'"),
        (["  -- The CXX compiler", "  No CMAKE_CXX_COMPILER could be found."], "no C++ compiler was found"),
        (["      geco_ext: no C++ compiler: none; install one"], "cannot be built: no C++ compiler: none; install one"),
        (
            [
                "  CMake Error at cmake/choose_cuda.cmake:30 (message):",
                "    geco_ext: GECO_EXT_CUDA=ON, but no compiler",
            ],
            "geco_ext: GECO_EXT_CUDA=ON, but no compiler",
        ),
        (["ERROR: something else"], "something else"),
        ([], "pip does not say why"),
    ],
)
def test_why_it_failed(said, problem):
    assert problem in install.problem(said)


def test_without_a_compiler_nothing_is_begun(tmp_path):
    command = [sys.executable, PROGRAM, tmp_path / "environment", "--editable", "."]
    result = subprocess.run(command, capture_output=True, text=True, env={"PATH": str(tmp_path)})
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "geco_ext: no C++ compiler: none of c++, g++, clang++, icpx is in PATH; install one" in result.stderr
    assert not (tmp_path / "environment").exists()
