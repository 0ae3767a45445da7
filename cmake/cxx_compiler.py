"""Whether the extension is wanted, and whether CMake will find a C++ compiler for it.

Standard library alone: it is asked before anything is installed.
"""

import os
import shutil

NAMES = ("c++", "g++", "clang++", "icpx")
WANTED = {"": True, "on": True, "1": True, "off": False, "0": False}
WHAT_TO_DO = (
    "install one (apt install g++; dnf install gcc-c++; conda install cxx-compiler), "
    "or leave the compiled kernels out: GECO_EXT_EXTENSION=OFF pip install ."
)


def extension_is_wanted():
    """What the environment variable ``GECO_EXT_EXTENSION`` asks for; by default, the extension."""
    asked = os.environ.get("GECO_EXT_EXTENSION", "")
    if asked.lower() not in WANTED:
        raise SystemExit(f"geco_ext: GECO_EXT_EXTENSION must be ON or OFF, got {asked!r}")
    return WANTED[asked.lower()]


def problem():
    """Why the extension cannot be compiled, and what to do, in one line; None where there is a compiler."""
    if "CMAKE_TOOLCHAIN_FILE" in os.environ or "CMAKE_CXX_COMPILER" in os.environ.get("CMAKE_ARGS", ""):
        return None  # CMake is told where it is
    named = os.environ.get("CXX", "").split()[:1]
    if any(map(shutil.which, named or NAMES)):
        return None
    missing = f"CXX={named[0]} is not there" if named else f"none of {', '.join(NAMES)} is in PATH"
    return f"geco_ext: no C++ compiler: {missing}; {WHAT_TO_DO}"
