"""Which builds compile the CUDA kernels, and for which GPUs: those that are here, unless asked otherwise."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CMAKE = Path(__file__).resolve().parents[2] / "cmake"
COMPILER, CODES = "/usr/bin/nvcc", "sm_80;sm_90;sm_120"
NO_GPU = "there is no NVIDIA GPU here; GECO_EXT_CUDA=ON compiles them all the same"


@pytest.mark.skipif(shutil.which("cmake") is None, reason="cmake is not in PATH")
@pytest.mark.parametrize(
    ("asked", "architectures", "compiler", "gpus", "expected"),
    [
        ("AUTO", "", COMPILER, "", f"OFF;{NO_GPU}"),
        ("AUTO", "", "", "90-real", "OFF;there is no CUDA compiler here (CUDACXX names one)"),
        ("AUTO", "", COMPILER, "80-real;120-real", "ON 80-real;120-real"),
        ("AUTO", "", COMPILER, "103-real", "ON 80-real;90;the CUDA compiler is too old or too new for sm_103"),
        ("AUTO", "90", COMPILER, "", "ON 90;GECO_EXT_CUDA_ARCHITECTURES asks for them"),
        ("ON", "", COMPILER, "", "ON 80-real;90;GECO_EXT_CUDA=ON"),
        ("ON", "90a", COMPILER, "80-real", "ON 90a"),
        ("1", "", COMPILER, "", "ON 80-real;90"),
        ("OFF", "90", COMPILER, "90-real", "OFF;GECO_EXT_CUDA=OFF"),
        ("ON", "", "", "90-real", "GECO_EXT_CUDA=ON, but no CUDA compiler was found"),
    ],
)
def test_what_is_compiled(tmp_path, asked, architectures, compiler, gpus, expected):
    script = tmp_path / "script.cmake"
    script.write_text(
        f"cmake_policy(VERSION 3.24)\n"
        f'set(GECO_EXT_CUDA "{asked}")\nset(GECO_EXT_CUDA_ARCHITECTURES "{architectures}")\n'
        f'include({CMAKE}/choose_cuda.cmake)\nchoose_cuda("{compiler}" "{CODES}" "{gpus}")\n'
        'if(use_cuda)\n  set(use_cuda "ON ${cuda_architectures}")\nendif()\n'
        'message("${use_cuda};${cuda_choice}")\n'
    )
    result = subprocess.run(["cmake", "-P", script], capture_output=True, text=True)
    said = " ".join(result.stderr.split())
    assert said.startswith(expected) if result.returncode == 0 else expected in said


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
@pytest.mark.parametrize(
    ("driver", "expected"),
    [
        ("int cuInit(int f) { return 0; } int cuDeviceGetCount(int *n) { return *n = 3, 0; }", "80-real;90-real"),
        ("int cuInit(int f) { return 0; } int cuDeviceGetCount(int *n) { return *n = 0, 0; }", ""),
        ("int cuInit(int f) { return 100; }", ""),
    ],
    ids=["three", "none", "driver without device"],
)
def test_the_driver_is_asked_what_is_here(tmp_path, driver, expected):
    """A stand-in for libcuda: a device of 8.0 between two of 9.0."""
    attribute = (
        "int cuDeviceGetAttribute(int *v, int which, int d) { return *v = which == 76 ? 0 : d == 1 ? 8 : 9, 0; }"
    )
    source = tmp_path / "driver.c"
    source.write_text(f"{driver} {attribute}")
    subprocess.run(["gcc", "-shared", "-fPIC", source, "-o", tmp_path / "libcuda.so.1"], check=True)
    environment = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path)}
    command = [sys.executable, CMAKE / "visible_gpus.py"]
    assert subprocess.run(command, env=environment, capture_output=True, text=True).stdout == f"{expected}\n"
