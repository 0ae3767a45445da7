"""``make gpu`` on machines that lack something: one line that names it."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
specification = importlib.util.spec_from_file_location("machine", ROOT / "tests/hardware/gpu/harness/machine.py")
machine = importlib.util.module_from_spec(specification)
specification.loader.exec_module(machine)

needs_make = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@needs_make
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize("target", ["gpu", "gpu-test", "gpu-bench", "gpu-profile"])
def test_without_a_gpu_it_says_so_in_one_line_and_exits_2(target):
    result = subprocess.run(
        ["make", target, f"PYTHON={sys.executable}"], cwd=ROOT, capture_output=True, text=True, env=_environment()
    )
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert "there is no GPU here that PyTorch" in result.stderr


def test_missing_tools_are_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(shutil, "which", lambda program: None)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    monkeypatch.delenv("CUDACXX", raising=False)
    monkeypatch.setattr(machine, "_has", lambda module: module == "torch")
    found = {"setuptools": (65, 5), "scikit-build-core": (0, 11), "pip": (24, 0), "numpy": (2, 1), "pytest": (8, 4)}
    found["pytest-xdist"] = (3, 8)
    monkeypatch.setattr(machine, "_release", lambda name: found.get(name, ()))
    problem = machine.problem()
    assert problem.endswith(
        "still needs setuptools>=77 (found 65.5), pybind11>=2.13 (found none), cmake, ninja, "
        "nvcc (in PATH or CUDACXX), a C++ compiler"
    )
    assert "\n" not in problem


def test_nothing_is_said_where_nothing_is_missing(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(shutil, "which", lambda program: f"/usr/bin/{program}")
    monkeypatch.setattr(machine, "_has", lambda module: True)
    monkeypatch.setattr(machine, "_release", lambda name: (99,))
    assert machine.problem() is None


def test_releases_are_read():
    assert machine._release("pytest") >= (7,)
    assert machine._release("no such distribution") == ()


def test_pytorch_and_amd(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.version, "hip", "6.4")
    assert "NVIDIA" in machine.problem()
    monkeypatch.setattr(machine, "_has", lambda module: False)
    assert "PyTorch is needed" in machine.problem()


def _environment():
    """Without what a surrounding make would hand on."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
