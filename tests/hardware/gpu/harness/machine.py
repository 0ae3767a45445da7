"""What ``make gpu-test`` and its likes need and this machine lacks, in one line; nothing where it has everything.

Standard library first: whatever is missing has to be said, not raised.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version

# Distributions and the release from which on they do (pyproject.toml says the same of the first three).
NEEDED = {
    "setuptools": (77,),
    "scikit-build-core": (0, 10),
    "pybind11": (2, 13),
    "pip": (21, 3),
    "numpy": (1, 26),
    "pytest": (7,),
    "pytest-xdist": (3,),
}


def problem() -> str | None:
    """Why GPU tests cannot be built and run here, or None."""
    if not _has("torch"):
        return f"PyTorch is needed, {sys.executable} has none (PYTHON=... chooses another)"
    import torch

    if not torch.cuda.is_available():
        return f"there is no GPU here that PyTorch {torch.__version__} can use"
    if torch.version.hip is not None:
        return "an NVIDIA GPU is needed, this PyTorch is built for AMD's"
    missing = [_shown(name, least) for name, least in NEEDED.items() if _release(name) < least]
    if not (shutil.which("cmake") or _has("cmake")):
        missing.append("cmake")
    if not (shutil.which("ninja") or _has("ninja") or shutil.which("make")):
        missing.append("ninja")
    if not (os.environ.get("CUDACXX") or shutil.which("nvcc") or os.access("/usr/local/cuda/bin/nvcc", os.X_OK)):
        missing.append("nvcc (in PATH or CUDACXX)")
    if not any(map(shutil.which, (os.environ.get("CXX", "c++"), "c++", "g++", "clang++"))):
        missing.append("a C++ compiler")
    return f"to build and test, {sys.executable} still needs {', '.join(missing)}" if missing else None


def _has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _release(distribution: str) -> tuple[int, ...]:
    """Its first two numbers; () where it is not installed."""
    try:
        parts = version(distribution).split(".")[:2]
    except PackageNotFoundError:
        return ()
    return tuple(int(part) if part.isdigit() else 0 for part in parts)


def _shown(distribution: str, least: tuple[int, ...]) -> str:
    found = ".".join(map(str, _release(distribution))) or "none"
    return f"{distribution}>={'.'.join(map(str, least))} (found {found})"


if __name__ == "__main__":
    print(problem() or "", end="")
