"""The CUDA kernels, run as C++ where there is no GPU: against the kernels of the CPU and the definitions, through
Python, and under sanitizers.

``shim.h`` runs a kernel on fibers; ``run_lagrangian.cpp``, ``run_windows.cpp`` and ``run_models.cpp`` are the programs.
The compiler is the host's; nothing here needs CUDA.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from shim_build import HERE, HOST, KERNELS, ROOT, THREADS, all_compiled, compiled, compiler, extension

# Those that sanitizers run, and how many barriers a thread of their longest kernel passes.
BARRIERS = {"run_lagrangian": 6, "run_windows": 6, "run_models": 3}
PROGRAMS = [HERE / f"{name}.cpp" for name in BARRIERS]
MODEL_KERNELS = [*(ROOT / f"csrc/cuda/{name}.cu" for name in ("gaussian", "lstm_gates", "affine_coupling"))]
# With functions and lines for the reports; variables as well would take a third longer to compile.
THREAD = ["-fsanitize=thread", "-g1"]
# Alignment is among what is undefined. Not optimised: it compiles in half the time, and hides nothing from them.
ADDRESS = ["-O0", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g1"]

# Files of tests that another one repeats on the CUDA kernels, or that are about the time and memory of a step.
FILES_LEFT_OUT = ["test_structural_similarity", "test_windows_properties", "test_windows_execution", "test_allocation"]
# Much the same again, and slow on fibers.
LEFT_OUT = ["gradcheck", "over_the_whole_range", "two_hundred_steps", "16/9", "13/2"]

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")


def build(folder: Path, *flags: str) -> dict[str, Path]:
    """The programs, by name."""
    return linked(folder, all_compiled(HOST, folder, *flags), KERNELS, PROGRAMS, *flags)


def linked(
    folder: Path, host: list[Path], kernels: list[Path], programs: list[Path], *flags: str, threads: int = THREADS
) -> dict[str, Path]:
    """Programs with kernels whose blocks have so many threads."""
    objects = all_compiled([*kernels, *programs], folder, *flags, threads=threads)
    shared, mains = objects[: len(kernels)], objects[len(kernels) :]
    for main, source in zip(mains, programs, strict=True):
        compiler(*flags, main, *host, *shared, "-o", folder / source.stem)
    return {source.stem: folder / source.stem for source in programs}


def host_objects(programs: dict[str, Path]) -> list[Path]:
    """What other programs than these can be linked with, whatever threads their blocks have."""
    folder = next(iter(programs.values())).parent
    return [path for path in folder.glob("*.o") if path.name.startswith(("cpu_", "csrc_", "isa_"))]


def run(program: Path, *arguments: str) -> subprocess.CompletedProcess:
    environment = {**os.environ, "ASAN_OPTIONS": "detect_stack_use_after_return=0"}  # fibers bring their own stacks
    return subprocess.run([program, *arguments], capture_output=True, text=True, env=environment)


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> dict[str, Path]:
    return build(tmp_path_factory.mktemp("plain"))


def built_with(sanitizer: list[str], folder: Path) -> dict[str, Path]:
    """The programs, or a skipped test where the compiler has no such sanitizer."""
    source = folder / "nothing.cpp"
    source.write_text("int main() { return 0; }\n")
    linked = subprocess.run(["g++", *sanitizer, str(source), "-o", str(folder / "nothing")], capture_output=True)
    if linked.returncode != 0 or subprocess.run([folder / "nothing"], capture_output=True).returncode != 0:
        pytest.skip(f"g++ has no working {sanitizer[0]} here")
    return build(folder, *sanitizer)


@pytest.fixture(scope="module")
def under_thread_sanitizer(tmp_path_factory) -> dict[str, Path]:
    return built_with(THREAD, tmp_path_factory.mktemp("thread"))


@pytest.fixture(scope="module")
def under_address_sanitizer(tmp_path_factory) -> dict[str, Path]:
    return built_with(ADDRESS, tmp_path_factory.mktemp("address"))


@pytest.mark.parametrize("program", BARRIERS)
def test_the_kernels_compute_what_they_should(plain, program):
    """Every kind of term, type and layout; training, evaluation, several processes; one launch, the same bits, and as
    many bytes as the design says."""
    result = run(plain[program], "all")
    assert result.returncode == 0, result.stdout + result.stderr


def test_groups_of_several_warps_beside_each_other(plain, tmp_path):
    """Model kernels whose blocks do several examples with two warps each: four warps to a block."""
    kernels = [*MODEL_KERNELS, ROOT / "csrc/cuda/example_grid.cu"]
    programs = linked(tmp_path, host_objects(plain), kernels, [HERE / "run_models.cpp"], threads=128)
    result = run(programs["run_models"], "memory")
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.fixture(scope="module")
def as_on_a_device(plain, tmp_path_factory) -> dict[str, Path]:
    return linked(tmp_path_factory.mktemp("device"), host_objects(plain), KERNELS, PROGRAMS, threads=256)


@pytest.mark.parametrize("program", BARRIERS)
def test_the_plan_of_a_large_device(as_on_a_device, program):
    """Blocks of as many threads as on a device, and as many of them as 132 multiprocessors are given."""
    result = run(as_on_a_device[program], "h100")
    assert result.returncode == 0, result.stdout + result.stderr


def test_devices_are_left_as_they_were_found(plain, tmp_path):
    """No context where nobody computes, none made current, no error left for the next launch."""
    kernels = [path for path in plain["run_windows"].parent.glob("*.o") if not path.name.startswith("cuda_run_")]
    source = HERE / "run_device.cpp"
    compiler(compiled(source, tmp_path), *kernels, "-o", tmp_path / "run_device")
    result = run(tmp_path / "run_device")
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.sanitize
@pytest.mark.xdist_group("cuda, thread")
@pytest.mark.parametrize("program", BARRIERS)
def test_barriers_and_fences_are_all_there_and_all_needed(under_thread_sanitizer, program):
    """No data race with them; a report whenever threads leave out their n-th barrier or fence."""
    intact = run(under_thread_sanitizer[program], "races")
    assert intact.returncode == 0, intact.stdout + intact.stderr
    for kind, count in (("barrier", BARRIERS[program]), ("fence", 2)):
        for which in range(1, count + 1):
            broken = run(under_thread_sanitizer[program], "races", kind, str(which))
            assert "data race" in broken.stderr, f"{kind} {which} is not missed"


@pytest.mark.sanitize
@pytest.mark.xdist_group("cuda, address")
@pytest.mark.parametrize("program", BARRIERS)
def test_memory_is_used_as_it_may_be(under_address_sanitizer, program):
    result = run(under_address_sanitizer[program], "memory")
    assert result.returncode == 0, result.stdout + result.stderr


def properties() -> list[Path]:
    """The files with tests of all backends: they use the fixture ``backend``."""
    takes_backend = re.compile(r"^def \w+\([^)]*\bbackend\b|usefixtures\(\"backend\"\)", re.MULTILINE)
    files = [path for path in sorted((ROOT / "tests").rglob("test_*.py")) if "hardware" not in path.parts]
    return [path for path in files if path.stem not in FILES_LEFT_OUT and takes_backend.search(path.read_text())]


@pytest.mark.skipif(importlib.util.find_spec("pybind11") is None, reason="needs pybind11")
def test_the_backend_passes_the_tests_of_all_backends(plain, tmp_path):
    """Python, bindings and kernels together, on tensors in host memory."""
    kernels = [path for path in plain["run_windows"].parent.glob("*.o") if not path.name.startswith("cuda_run_")]
    environment = {
        **os.environ,
        "GECO_EXT_SHIM_EXTENSION": str(extension(tmp_path, kernels)),
        "PYTHONPATH": str(HERE),
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "cuda_through_shim", "-p", "no:cacheprovider"]
    chosen = " and not ".join(["cuda", *LEFT_OUT])
    result = subprocess.run(
        [*command, "-k", chosen, *properties()], env=environment, cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "passed" in result.stdout
    assert "skipped" not in result.stdout
