"""The package with its CUDA kernels, in place, for the GPU that is here and no other."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from harness.session import ROOT, Session

STAMP = ROOT / "build" / "gpu.built"
LONGEST = 330.0  # seconds: what is left of a stage would be of no use
PROGRAM = """
import pathlib
from geco_ext.backends.native import extension
from geco_ext.cli.info import info
info()
module, reason = extension()
print(reason or f"{module.cuda_architectures} {pathlib.Path(module.__file__).resolve()}")
"""


def build(session: Session) -> bool:
    """Whether the extension for this GPU is there; nothing is built where it is already, from the same sources."""
    architecture = _architecture()
    wanted = _fingerprint(architecture)
    if STAMP.exists() and STAMP.read_text() == wanted and _works(session):
        session.say("the build is there already")
    elif not _install(session, architecture) or not _works(session):
        session.say("THE BUILD FAILED, its end:")
        print(_end_of_log(session), flush=True)
        return False
    else:
        STAMP.parent.mkdir(exist_ok=True)
        STAMP.write_text(wanted)
        session.say(f"built for {architecture}")
    return True


def _architecture() -> str:
    import torch

    major, minor = torch.cuda.get_device_capability()
    return f"{major}{minor}-real"


def _install(session: Session, architecture: str) -> bool:
    session.say(f"building geco_ext with its CUDA kernels for {architecture}")
    asked = os.environ.get("CMAKE_ARGS", "")  # comes last, so it wins
    environment = {
        "CUDACXX": os.environ.get("CUDACXX") or shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc",
        "CUDAFLAGS": os.environ.get("CUDAFLAGS", "-lineinfo"),  # for profilers; costs nothing
        "CMAKE_ARGS": f"-DGECO_EXT_CUDA=ON -DGECO_EXT_CUDA_ARCHITECTURES={architecture} {asked}",
        "CMAKE_BUILD_PARALLEL_LEVEL": os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL") or str(os.cpu_count()),
        "PIP_BREAK_SYSTEM_PACKAGES": "1",
        "PIP_ROOT_USER_ACTION": "ignore",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    options = ["--verbose", "--no-build-isolation", "--no-deps", "--no-index", "--editable", "."]
    process = session.python(
        "build", ["-m", "pip", "install", *options], min(LONGEST, session.left() - 30), environment
    )
    status = process.wait()
    if process.was_stopped:
        session.say("the build was stopped: it took too long")
    return status == 0


def _works(session: Session) -> bool:
    """The extension of this very tree can be imported and holds CUDA kernels; what `geco info` says is in the log."""
    process = session.python("built", ["-P", "-c", PROGRAM] if sys.version_info >= (3, 11) else ["-c", PROGRAM], 60)
    found = re.match(r"(\S+) (/.*)", process.tail(1)) if process.wait() == 0 else None
    return found is not None and found[1] != "None" and Path(found[2]).is_relative_to(ROOT)


def _fingerprint(architecture: str) -> str:
    """Of all that the build depends on."""
    digest = hashlib.sha256()
    for path in _sources():
        digest.update(f"{path.relative_to(ROOT)}\0".encode() + path.read_bytes() + b"\0")
    flags = [os.environ.get(name, "") for name in ("CMAKE_ARGS", "CUDAFLAGS", "CUDACXX", "CXX", "CXXFLAGS")]
    return "\n".join([digest.hexdigest(), architecture, sys.executable, sys.version, *flags])


def _sources() -> Iterator[Path]:
    yield from (ROOT / name for name in ("pyproject.toml", "setup.py", "CMakeLists.txt"))
    yield from sorted(path for path in (ROOT / "csrc").rglob("*") if path.is_file())


def _end_of_log(session: Session) -> str:
    lines = (session.folder / f"{session.stage}.log").read_text().splitlines()
    telling = [line for line in lines if re.search(r"error|FAILED|No such file|ptxas fatal", line)]
    return "\n".join([*telling[:20], *lines[-20:]])
