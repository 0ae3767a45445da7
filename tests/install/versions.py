"""``make versions``: the core of the tests under several releases of Python and PyTorch, and their table, versions.md.

python tests/install/versions.py                                  # all of it, an hour or two; needs a network
python tests/install/versions.py --python 3.12 --torch 2.6.0      # some of it: the table keeps its other rows

Each pair gets an environment of its own under build/versions, removed afterwards. PyTorch is that for the CPU: from
PyTorch's own index, or where that cannot be reached from PyPI without the CUDA libraries, which may or may not import.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER, TABLE = ROOT / "build" / "versions", ROOT / "tests" / "install" / "versions.md"
PAIRS = (  # every PyTorch, every Python; the oldest and the newest PyTorch that we name with more than one
    ("3.10", "2.6.0"),
    ("3.11", "2.6.0"),
    ("3.11", "2.8.0"),
    ("3.12", "2.10.0"),
    ("3.12", "2.11.0"),
    ("3.10", "2.13.0"),
    ("3.11", "2.13.0"),
    ("3.12", "2.13.0"),
    ("3.13", "2.13.0"),
)
TESTS = [f"tests/test_{name}.py" for name in ("criterion", "errors", "distributed")]
TESTS += [f"tests/ops/test_{name}.py" for name in ("autograd", "compile", "dispatch")]
TESTS += ["tests/backends/test_allocation.py", "tests/functional/test_functional.py"]
TESTS += [f"tests/hardware/gpu/test_{name}_on_a_gpu.py" for name in ("steps", "compiled")]
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
NEEDED_BY_TORCH = ["filelock", "typing-extensions", "sympy", "networkx", "jinja2", "fsspec", "setuptools"]
NEEDED_BY_TESTS = ["numpy", "pytest", "expecttest", "hypothesis", "pybind11", "packaging", "typer"]
HEAD = """# Releases of Python and PyTorch

Written by `make versions`: the package built for each Python, and the core of the tests ({tests}) on the CPU.
A pair that cannot be had is no failure of it; one without a row was not run.

| Python | PyTorch | numpy | result | on |
|---|---|---|---|---|
"""


class UnavailableError(Exception):
    """Why a pair cannot be tried here."""


class BrokenError(Exception):
    """What fails before any test does."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", nargs="+", help="of these releases alone, as 3.12")
    parser.add_argument("--torch", nargs="+", help="of these releases alone, as 2.6.0")
    parser.add_argument("--seconds", type=float, default=1800, help="for the tests of a pair")
    arguments = parser.parse_args()
    rows = _rows()
    failed = False
    for pair in PAIRS:
        python, torch = pair
        if (arguments.python and python not in arguments.python) or (arguments.torch and torch not in arguments.torch):
            continue
        environment = FOLDER / f"{python}-{torch}"
        try:
            numpy, result = _try(python, torch, environment, arguments.seconds)
            failed |= "passed" not in result or re.search("failed|error", result) is not None
        except UnavailableError as reason:
            numpy, result = "-", f"not tried: {reason}"
        except BrokenError as reason:
            numpy, result = "-", f"failed: {reason}"
            failed = True
        finally:
            shutil.rmtree(environment, ignore_errors=True)
        rows[pair] = f"| {python} | {torch} | {numpy} | {result} | {platform.machine()}, {date.today()} |"
        print(rows[pair], flush=True)
        _write(rows)
    return 1 if failed else 0


def _try(python: str, torch: str, environment: Path, seconds: float) -> tuple[str, str]:
    """Release of numpy, and how the tests ended."""
    interpreter = _interpreter(python)
    shutil.rmtree(environment, ignore_errors=True)
    _run([interpreter, "-m", "venv", environment], "no environment")
    binaries = environment / "bin"
    _install_torch(binaries, torch)
    _pip(binaries, [*NEEDED_BY_TESTS], "what the tests need cannot be had")
    _pip(binaries, ["--no-deps", _wheel(interpreter, python)], "the package cannot be installed")
    numpy = _run([binaries / "python", "-c", "import numpy; print(numpy.__version__)"], "numpy").strip()
    # Not "python -m pytest": the package is the installed one, not the folder of its sources.
    command = [binaries / "pytest", "-q", "-p", "no:cacheprovider", "-k", "not triton", *TESTS]
    log = FOLDER / f"{python}-{torch}.log"
    try:
        output = _completed(command, seconds).stdout
    except subprocess.TimeoutExpired as error:
        output = f"{error.output}\nstopped after {seconds:g} s"
    log.write_text(str(output))
    return numpy, re.sub(r" in [\d.]+s.*|=+ ?", "", str(output).strip().splitlines()[-1]).strip()


def _interpreter(python: str) -> str:
    """Also one that pyenv holds but does not offer."""
    installed = sorted(Path.home().glob(f".pyenv/versions/{python}.*/bin/python"))
    for candidate in (*map(str, installed), shutil.which(f"python{python}")):
        if candidate and _completed([candidate, "-c", "import venv, ensurepip"], 60).returncode == 0:
            return candidate
    raise UnavailableError(f"there is no Python {python} here")


def _install_torch(binaries: Path, torch: str) -> None:
    wanted = f"torch=={torch}"
    pip = [binaries / "python", "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--retries", "1"]
    if _completed([*pip, "--timeout", "20", "--index-url", CPU_INDEX, wanted], 1200).returncode:
        _pip(binaries, ["--no-deps", wanted], f"PyTorch {torch} cannot be had")
        _pip(binaries, NEEDED_BY_TORCH, "what PyTorch needs cannot be had")
    _run([binaries / "python", "-c", "import torch"], f"PyTorch {torch} as it comes here does not import")


def _wheel(interpreter: str, python: str) -> Path:
    """The package for a Python, without CUDA; built once."""
    folder = FOLDER / f"wheel-{python}-{os.getpid()}"
    if not folder.exists():
        environment = {"CMAKE_ARGS": "-DGECO_EXT_CUDA=OFF", "SKBUILD_BUILD_DIR": str(FOLDER / f"cmake-{python}")}
        command = [interpreter, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT]
        try:
            _run(command, "the package cannot be built", environment)
        except UnavailableError as reason:
            raise BrokenError(reason) from None
    return next(folder.glob("*.whl"))


def _pip(binaries: Path, arguments: list[str | Path], problem: str) -> None:
    pip = [binaries / "python", "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    _run([*pip, *arguments], problem)


def _run(command: list[str | Path], problem: str, environment: dict[str, str] | None = None) -> str:
    """What it prints."""
    result = _completed(command, 1800, environment)
    if result.returncode:
        lines = [line for line in result.stdout.splitlines() if line.strip() and not line.startswith("WARNING")]
        why = re.split(r" \[| /|\|", lines[-1].strip())[0][:120] if lines else "nothing was said"  # without paths
        raise UnavailableError(f"{problem} ({why})")
    return str(result.stdout)


def _completed(
    command: list[str | Path], seconds: float, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PYENV", "MAKE", "MFLAGS"))}
    return subprocess.run(
        list(map(str, command)),
        cwd=ROOT,
        env=clean | (environment or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=seconds,
    )


def _rows() -> dict[tuple[str, str], str]:
    """Those of the table as it is."""
    lines = TABLE.read_text().splitlines() if TABLE.exists() else []
    cells = {line: [cell.strip() for cell in line.split("|")] for line in lines if re.match(r"\| \d", line)}
    return {(cell[1], cell[2]): line for line, cell in cells.items()}


def _write(rows: dict[tuple[str, str], str]) -> None:
    tests = ", ".join(f"`{test.removeprefix('tests/')}`" for test in TESTS)
    lines = [rows[pair] for pair in PAIRS if pair in rows]
    TABLE.write_text(HEAD.format(tests=tests) + "\n".join(lines) + "\n")


if __name__ == "__main__":
    sys.exit(main())
