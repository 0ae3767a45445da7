"""Compiles the CUDA kernels as C++ (``shim.h``): objects for the programs of this folder, an extension for Python.

``python tests/hardware/cuda/shim_build.py FOLDER`` leaves the extension there, with which ``cuda_through_shim.py`` runs
tests (``make shim``). The compiler is the host's; nothing here needs CUDA.
"""

import os
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
KERNELS = [*sorted((ROOT / "csrc/cuda").glob("*.cu")), *sorted((ROOT / "csrc/cuda").glob("*.cpp"))]
INNER_LOOPS = ROOT / "csrc/cpu/isa/kernels.cpp"
HOST = [  # what does not depend on the threads of a block
    ROOT / "csrc/contract.cpp",
    *sorted((ROOT / "csrc/cpu").rglob("*.cpp")),
]
BINDINGS = sorted((ROOT / "csrc/bindings").glob("*.cpp"))
EXTENSION = f"_C{sysconfig.get_config_var('EXT_SUFFIX')}"
THREADS = 64  # of a block: two warps, enough for every barrier to matter
FLAGS = ["-std=c++17", "-O1", "-fPIC", "-fno-strict-aliasing", "-pthread"]
INCLUDES = [f"-I{ROOT / 'csrc'}", f"-I{HERE}"]


def compiler(*arguments: object) -> None:
    result = subprocess.run(["g++", *FLAGS, *map(str, arguments)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def compiled(source: Path, folder: Path, *flags: str, threads: int = THREADS) -> Path:
    output = folder / f"{source.parent.name}_{source.name}.o"
    if source == INNER_LOOPS and flags:  # sanitizers, which take longest over it, see it in hardware/cpu
        flags = ("-O0",)
    compiler(*flags, f"-DGECO_CUDA_THREADS={threads}", *INCLUDES, "-x", "c++", "-c", source, "-o", output)
    return output


def all_compiled(sources: list[Path], folder: Path, *flags: str, threads: int = THREADS) -> list[Path]:
    """On every core: where the sanitizers are run, little else is left to do meanwhile."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(lambda source: compiled(source, folder, *flags, threads=threads), sources))


def extension(folder: Path, kernels: list[Path]) -> Path:
    """The module ``_C`` of such objects of the kernels; its cuda backend takes tensors in host memory."""
    import pybind11

    macros = [
        "-DGECO_CUDA",
        '-DGECO_CUDA_TENSORS="is_cpu"',
        '-DGECO_CUDA_ARCHITECTURES="90"',
        '-DGECO_CUDA_VERSION="none"',
    ]
    folders = [f"-I{pybind11.get_include()}", f"-I{sysconfig.get_path('include')}"]
    bindings = all_compiled(BINDINGS, folder, "-fvisibility=hidden", *macros, *folders)
    compiler("-shared", *bindings, *kernels, "-o", folder / EXTENSION)
    return folder / EXTENSION


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        objects = all_compiled([*HOST, *KERNELS], Path(scratch))
        built = extension(Path(scratch), objects)
        built.replace(folder / EXTENSION)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
