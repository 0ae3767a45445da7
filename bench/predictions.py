"""What windows take on an H100, predicted from machine code: ``python bench/predictions.py`` (needs nvcc, no GPU).

Compiles the kernels for sm_90, plans each call as the library does (``window_plans.cpp``) and replays the loop in which
a warp goes down its strip (``issue_model.py``). ``--sass`` keeps the machine code.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import subprocess
import tempfile
from pathlib import Path

import issue_model

ROOT = Path(__file__).parents[1]
CSRC = ROOT / "csrc"
PLANNER = ["cuda/plan.cpp", "cuda/elementwise_plan.cpp", "cuda/window_plan.cpp", "contract.cpp"]
CLOCK = 1.755e9  # of an H100, in Hz
FILES = {(4, 0): "windows_of_4", (8, 0): "windows_of_8", (11, 0): "windows_of_11", (16, 0): "windows_of_16"}
FILES |= {(8, 4): "windows_of_4_and_8"}


def cuobjdump() -> str:
    """The toolkit's, or the one that Triton brings along."""
    triton = importlib.util.find_spec("triton")
    folder = Path(triton.origin).parent / "backends" / "nvidia" / "bin" if triton and triton.origin else None
    found = shutil.which("cuobjdump") or (folder and shutil.which("cuobjdump", path=str(folder)))
    if not found or not shutil.which("nvcc"):
        raise SystemExit("predictions.py needs nvcc and cuobjdump (of the CUDA toolkit, or of the triton package)")
    return found


def machine_code(name: str, folder: Path) -> dict[str, list[issue_model.Instruction]]:
    """Functions of a file of kernels, as compiled for sm_90."""
    cubin = folder / f"{name}.cubin"
    command = ["nvcc", "-rdc=true", "-std=c++17", "-O3", "-arch=sm_90", f"-I{CSRC}", "-cubin", "-o", str(cubin)]
    subprocess.run([*command, str(CSRC / "cuda" / f"{name}.cu")], check=True, capture_output=True)
    sass = subprocess.run([cuobjdump(), "-sass", str(cubin)], check=True, capture_output=True, text=True).stdout
    (folder / f"{name}.sass").write_text(sass)
    return issue_model.functions(sass)


def plans(folder: Path) -> list[list[str]]:
    """Name, sizes, channels and columns of the kernel, warps of a multiprocessor, trips of the slowest warp."""
    program = folder / "window_plans"
    sources = [ROOT / "bench/window_plans.cpp", *(CSRC / source for source in PLANNER)]
    includes = [f"-I{CSRC}", f"-I{ROOT / 'tests/hardware/cuda'}"]
    subprocess.run(["g++", "-std=c++17", "-O1", *includes, *map(str, sources), "-o", str(program)], check=True)
    return [line.split(";") for line in subprocess.check_output([str(program)], text=True).splitlines()]


def loops_with_stores(kernel: list[issue_model.Instruction]) -> set[tuple[int, int]]:
    """The innermost loops that store the gradient, which alone is stored as what nobody reads soon."""
    stores = [i for i, instruction in enumerate(kernel) if instruction.operation.startswith("STG.E.EF")]
    around = [[loop for loop in issue_model.loops(kernel) if loop[0] < store < loop[1]] for store in stores]
    return {min(loops, key=lambda pair: pair[1] - pair[0]) for loops in around if loops}


def predicted(name: str, numbers: list[int], folder: Path) -> str:
    """A row of the table."""
    size, smaller, channels, columns, warps, trips = numbers
    code = machine_code(FILES[size, smaller], folder)
    march = f"Float32ImagesILb0EEELi{channels}ELi{columns}ELi{size}ELi{smaller}E"
    kernel = next(instructions for function, instructions in code.items() if march in function)
    small = columns == 1  # images that lie in the L2 cache; two kinds of windows of one size
    # One correlation has a loop of its own, which is the shorter one.
    ways = [issue_model.trip(kernel, loop, trips_inside=2 if small else 0) for loop in loops_with_stores(kernel)]
    way = min(ways, key=len)
    loads = sum(instruction.operation.startswith("LDG") for instruction in way)
    near = loads if small else 4 * channels  # gradients' pixels, last, come from the L2 cache
    latencies = [issue_model.FROM_MEMORY] * (loads - near) + [issue_model.FROM_L2] * near
    of_trip, of_cycle = issue_model.cycles(way, warps, latencies)
    milliseconds = 1e3 * trips * of_trip / CLOCK
    print(f"{name}: {issue_model.mix(way)}")
    return f"| {name} | {len(way)} | {warps} | {trips} | {of_trip:.0f} | {of_cycle:.2f} | {milliseconds:.3g} ms |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sass", type=Path, help="a folder to keep the machine code in")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.sass or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        rows = [predicted(name, list(map(int, numbers)), folder) for name, *numbers in plans(folder)]
    print("\n| float32, an H100 at 1.755 GHz | instructions | warps | trips | cycles | a cycle | predicted |")
    print("|---|---|---|---|---|---|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
