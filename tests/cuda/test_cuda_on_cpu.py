"""The CUDA kernels, run as C++ where there is no GPU: against the kernels of the CPU, and under ThreadSanitizer.

``shim.h`` runs a kernel on fibers, ``run_lagrangian.cpp`` is the program. The compiler is the host's; nothing here
needs CUDA.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
KERNELS = [
    *sorted((ROOT / "csrc").glob("*/*.cu")),
    ROOT / "csrc/cuda/plan.cpp",
    ROOT / "csrc/call.cpp",
    ROOT / "csrc/lines.cpp",
    *(path for path in sorted((ROOT / "csrc/cpu").glob("*.cpp")) if not path.stem.startswith("run_avx")),
]
# Two warps to a block: enough for every barrier to matter.
FLAGS = ["-std=c++17", "-O1", "-g", "-fno-strict-aliasing", "-pthread", "-DGECO_CUDA_THREADS=64"]
INCLUDES = [f"-I{ROOT / 'csrc'}", f"-I{ROOT / 'tests/cuda'}"]

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")


def build(folder: Path, *flags: str) -> Path:
    program = folder / "run_lagrangian"
    compile_to(program, [ROOT / "tests/cuda/run_lagrangian.cpp", *KERNELS], *flags)
    return program


def compile_to(output: Path, sources: list[Path], *flags: str) -> None:
    command = ["g++", *FLAGS, *flags, *INCLUDES, "-x", "c++", *map(str, sources), "-o", str(output)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def run(program: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([program, *arguments], capture_output=True, text=True)


def test_the_kernels_compute_what_the_cpu_kernels_compute(tmp_path):
    """Every kind of term, type and layout; training, evaluation, several processes; one launch, the same bits."""
    result = run(build(tmp_path), "all")
    assert result.returncode == 0, result.stdout + result.stderr


def sanitizer_works(folder: Path) -> bool:
    source = folder / "empty.cpp"
    source.write_text("int main() { return 0; }\n")
    program = folder / "empty"
    built = subprocess.run(["g++", "-fsanitize=thread", str(source), "-o", str(program)], capture_output=True)
    return built.returncode == 0 and subprocess.run([program], capture_output=True).returncode == 0


def test_barriers_and_fences_are_all_there_and_all_needed(tmp_path):
    """No data race with them; a report whenever threads leave out their n-th barrier or fence."""
    if not sanitizer_works(tmp_path):
        pytest.skip("g++ has no working ThreadSanitizer here")
    program = build(tmp_path, "-fsanitize=thread")
    intact = run(program, "races")
    assert intact.returncode == 0, intact.stdout + intact.stderr
    for kind, count in (("barrier", 6), ("fence", 2)):
        for which in range(1, count + 1):
            broken = run(program, "races", kind, str(which))
            assert "data race" in broken.stderr, f"{kind} {which} is not missed"


@pytest.mark.skipif(importlib.util.find_spec("pybind11") is None, reason="needs pybind11")
def test_the_backend_passes_the_tests_of_all_backends(tmp_path):
    """Python, bindings and kernels together, on tensors in host memory."""
    import pybind11

    extension = tmp_path / f"_C{sysconfig.get_config_var('EXT_SUFFIX')}"
    macros = ["-DGECO_CUDA", '-DGECO_CUDA_ARCHITECTURES="90"', '-DGECO_CUDA_VERSION="none"']
    folders = [f"-I{pybind11.get_include()}", f"-I{sysconfig.get_path('include')}"]
    sources = [ROOT / "csrc/bindings.cpp", *KERNELS]
    compile_to(extension, sources, "-shared", "-fPIC", "-fvisibility=hidden", *macros, *folders)
    environment = {**os.environ, "GECO_EXT_SHIM_EXTENSION": str(extension), "PYTHONPATH": str(ROOT / "tests/cuda")}
    command = [sys.executable, "-m", "pytest", "-q", "-k", "cuda", "-p", "cuda_through_shim", "-p", "no:cacheprovider"]
    tests = [ROOT / "tests/test_backends.py", ROOT / "tests/test_autograd.py"]
    result = subprocess.run([*command, *tests], env=environment, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "passed" in result.stdout
    assert "skipped" not in result.stdout
