"""The C++ kernels of the CPU under ThreadSanitizer, and under AddressSanitizer with UndefinedBehaviorSanitizer.

``run_lagrangian.cpp`` and ``run_models.cpp`` are the programs: tensors in blocks of exactly their size, several
threads, values compared with the definitions. Threads are the standard library's: GCC's ThreadSanitizer takes OpenMP's
for races.
"""

import os
import platform
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

SCENARIOS = ["pixels", "windows"]

ROOT = Path(__file__).parents[3]
IS_X86_64 = platform.machine() in ("x86_64", "AMD64")
KERNELS = [*sorted((ROOT / "csrc/cpu").rglob("*.cpp")), ROOT / "csrc/contract.cpp"]
OF_EACH_SET = ROOT / "csrc/cpu/isa/kernels.cpp"  # compiled for every instruction set
FLAGS = ["-std=c++17", "-O1", "-g1", "-fno-omit-frame-pointer", "-pthread", "-DGECO_STD_THREADS"]
INCLUDES = [f"-I{ROOT / folder}" for folder in ("csrc", "tests/hardware/cpu", "tests/hardware/cuda")]

# As in CMakeLists.txt.
INSTRUCTION_SETS = {
    "avx2": ["-mavx2", "-mfma", "-mf16c"],
    "avx512": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma", "-mf16c", "-mprefer-vector-width=512"],
}
SANITIZERS = {
    "thread": ["-fsanitize=thread"],
    "address": ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-D_GLIBCXX_ASSERTIONS"],
}

pytestmark = [pytest.mark.sanitize, pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")]


def succeed(*command):
    result = subprocess.run([*map(str, command)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def compile_file(source, folder, flags, instruction_set=None):
    wide = [f"-DGECO_INSTRUCTION_SET={instruction_set}", *INSTRUCTION_SETS[instruction_set]] if instruction_set else []
    if instruction_set and not _may_run(instruction_set):  # linked, never called
        flags = ["-O0", "-g0", "-DGECO_X86_64"]
    compiled = folder / f"{source.stem}{instruction_set or ''}.o"
    succeed("g++", *FLAGS, *flags, *wide, *INCLUDES, "-c", source, "-o", compiled)
    return compiled


def _may_run(instruction_set):
    """Whether this processor has the instructions, as far as the system says."""
    processors = Path("/proc/cpuinfo")
    if not processors.exists():
        return True
    needed = [flag[2:] for flag in INSTRUCTION_SETS[instruction_set] if flag.startswith("-mavx")]
    return set(needed) <= set(processors.read_text().split())


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=pytest.mark.xdist_group(f"cpu, {name}")) for name in SANITIZERS]
)
def sanitizer(request, tmp_path_factory):
    """Name of a sanitizer that works here."""
    folder = tmp_path_factory.mktemp("works")
    source, program = folder / "nothing.cpp", folder / "nothing"
    source.write_text("int main() { return 0; }\n")
    built = subprocess.run(["g++", *SANITIZERS[request.param], source, "-o", program], capture_output=True)
    if built.returncode != 0 or subprocess.run([program], capture_output=True).returncode != 0:
        pytest.skip(f"g++ has no working {request.param} sanitizer here")
    return request.param


@pytest.fixture(scope="module")
def programs(sanitizer, tmp_path_factory):
    """The folder that has both, built with the sanitizer."""
    folder = tmp_path_factory.mktemp(sanitizer)
    flags = [*SANITIZERS[sanitizer], *(["-DGECO_X86_64"] if IS_X86_64 else [])]
    mains = [ROOT / "tests/hardware/cpu" / f"{name}.cpp" for name in ("run_lagrangian", "run_models")]
    sources = [(source, folder, flags) for source in [*mains, *KERNELS]]
    sources += [(OF_EACH_SET, folder, flags, name) for name in (INSTRUCTION_SETS if IS_X86_64 else [])]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        compiled = list(pool.map(lambda arguments: compile_file(*arguments), sources))
    shared = compiled[len(mains) :]
    for main in compiled[: len(mains)]:
        succeed("g++", *FLAGS, *flags, *shared, main, "-o", folder / main.stem)
    return folder


@pytest.fixture(scope="module")
def program(programs):
    """That of the criterion's kernels."""
    return programs / "run_lagrangian"


def run(program, scenario, capability):
    if capability != "baseline" and not _may_run(capability):
        pytest.skip(f"this processor has no {capability}")
    environment = {**os.environ, "GECO_EXT_CPU_CAPABILITY": capability}
    return subprocess.run([program, scenario], env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("capability", ["baseline", *INSTRUCTION_SETS])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_nothing_is_reported(program, scenario, capability):
    expect_success(run(program, scenario, capability), capability)


@pytest.mark.parametrize("capability", ["baseline", *INSTRUCTION_SETS])
def test_nothing_is_reported_of_the_models(programs, capability):
    expect_success(run(programs / "run_models", "all", capability), capability)


def expect_success(result, capability):
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stderr == ""
    used, _, calls = result.stdout.partition(":")
    assert used == capability
    assert int(calls.split()[0]) > 100


@pytest.mark.parametrize("capability", ["baseline", *INSTRUCTION_SETS])
def test_what_is_wrong_is_reported(program, sanitizer, capability):
    scenario, report = {"thread": ("race", "data race"), "address": ("overrun", "heap-buffer-overflow")}[sanitizer]
    result = run(program, scenario, capability)
    assert result.returncode != 0
    assert report in result.stderr
