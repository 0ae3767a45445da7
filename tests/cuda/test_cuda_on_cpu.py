"""The CUDA kernels, run as C++ where there is no GPU: against the kernels of the CPU, and under ThreadSanitizer.

``shim.h`` runs a kernel on fibers, ``run_lagrangian.cpp`` is the program. The compiler is the host's; nothing here
needs CUDA.
"""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = [
    ROOT / "tests/cuda/run_lagrangian.cpp",
    *sorted((ROOT / "csrc").glob("*/*.cu")),
    ROOT / "csrc/cuda/plan.cpp",
    ROOT / "csrc/call.cpp",
    *(path for path in sorted((ROOT / "csrc/cpu").glob("*.cpp")) if not path.stem.startswith("run_avx")),
]
# Two warps to a block: enough for every barrier to matter.
FLAGS = ["-std=c++17", "-O1", "-g", "-fno-strict-aliasing", "-pthread", "-DGECO_CUDA_THREADS=64"]
INCLUDES = [f"-I{ROOT / 'csrc'}", f"-I{ROOT / 'tests/cuda'}"]

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")


def build(folder: Path, *flags: str) -> Path:
    program = folder / "run_lagrangian"
    command = ["g++", *FLAGS, *flags, *INCLUDES, "-x", "c++", *map(str, SOURCES), "-o", str(program)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return program


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
