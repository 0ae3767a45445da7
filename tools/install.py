"""``python tools/install.py FOLDER ARGUMENT ...``: ``pip install`` in an environment, made where there is none.

A line for every stage and the build's own progress; where it cannot go on, one line that says why. All that pip says is
in build/install.log.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "cmake"))
import cxx_compiler

ROOT = Path(__file__).resolve().parents[1]
LOG = ROOT / "build" / "install.log"
SHOWN = (  # what pip says, and what is shown of it
    (r"Running command pip subprocess to install build dependencies", "getting what the build needs"),
    (r"Collecting torch[<>=].*", "getting PyTorch, and what comes with it"),
    (r"Running command Building \w+ for geco-ext.*", "building the extension"),
    (r"-- (geco_ext: .*)", r"\1"),
    (r"(\[\d+/\d+\]) Building (?:CXX|CUDA) object (?:.*\.dir/)?(.*)\.o", r"\1 \2"),
    (r"(\[\d+/\d+\]) (Linking .*)", r"\1 \2"),
    (r"Downloading (?:\S*/)?([^\s/]+)\.(?:whl|tar\.gz)\S* \((\d\d+\.\d+ [MG]B)\)", r"downloading \1 (\2)"),
    (r"(Installing collected packages): .*", r"installing"),
)
PROBLEMS = (
    (r"connection broken by|Could not fetch URL|ReadTimeoutError", "the package index cannot be reached"),
    (r"No space left on device", "the disk is full"),
    (r"No CMAKE_CXX_COMPILER could be found", "no C++ compiler was found"),
    (r"geco_ext: (no C\+\+ compiler: .*)", "the extension cannot be built"),
    (r"(geco_ext: GECO_EXT_CUDA=ON, .*)", "the build cannot be configured"),
    (r"CMake Error", "CMake cannot configure the build"),
    (r"(\S*:\d+:\d+: (?:fatal )?error: .*)|(\S*\(\d+\): error: .*)", "the extension does not compile"),
    (r"ERROR: (No matching distribution found for .*)", "a package cannot be had"),
)


def main() -> None:
    """Says why it ends where it cannot go on."""
    folder, arguments = Path(sys.argv[1]), sys.argv[2:]
    LOG.parent.mkdir(exist_ok=True)
    if "--editable" in arguments and cxx_compiler.extension_is_wanted() and (lacking := cxx_compiler.problem()):
        sys.exit(lacking)
    if not (folder / "bin" / "pip").exists():
        _make(folder)
    status, said = _run([folder / "bin" / "python", "-m", "pip", "install", "--verbose", "--no-compile", *arguments])
    if status:
        sys.exit(f"The installation failed: {problem(said)} (all that pip said: {LOG.relative_to(ROOT)})")


def shown(line: str) -> str | None:
    """What is shown of a line of pip's."""
    for pattern, text in SHOWN:
        match = re.fullmatch(pattern, line.strip())
        if match:
            return match.expand(text)
    return None


def problem(said: list[str]) -> str:
    """Why pip failed, as far as its lines tell."""
    for pattern, text in PROBLEMS:
        for line in said:
            match = re.search(pattern, line)
            if match:
                detail = next(filter(None, match.groups()), "")
                return f"{text}: {detail}" if detail else text
    errors = [line.strip() for line in said if re.match(r"\s*error: ", line, re.IGNORECASE)]
    return errors[-1] if errors else "pip does not say why"


def _make(folder: Path) -> None:
    if importlib.util.find_spec("ensurepip") is None:
        sys.exit(f"{sys.executable} cannot make environments: install its venv package (python3-venv on Debian)")
    print(f"making the environment {folder}", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)


def _run(command: list[str | Path]) -> tuple[int, list[str]]:
    """Exit status, and the lines that it printed."""
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_COLOR": "1", "PYTHONUNBUFFERED": "1"}
    said: list[str] = []
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    assert process.stdout is not None
    with LOG.open("w") as log:
        for line in process.stdout:
            log.write(line)
            log.flush()
            said.append(line.rstrip("\n"))
            text = shown(line)
            if text:
                print(f"  {text}", flush=True)
    return process.wait(), said


if __name__ == "__main__":
    main()
