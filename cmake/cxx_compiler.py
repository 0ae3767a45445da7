"""Whether the extension is wanted, and whether CMake will find a C++ compiler for it.

Standard library alone: it is asked before anything is installed.
"""

import os
import shutil
import sysconfig

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
    named = os.environ.get("CXX")
    if _is_told() or (_is_there(named) if named else _found()):
        return None
    missing = f"CXX={named} is not there" if named else f"none of {', '.join(NAMES)} is in PATH"
    return f"geco_ext: no C++ compiler: {missing}; {WHAT_TO_DO}"


def choose():
    """Name one in ``CXX`` where scikit-build-core would take the one that built Python, and that is not here."""
    if not (_is_told() or os.environ.get("CXX") or _is_there(_of_python())):
        os.environ["CXX"] = _found()


def _is_told():
    """Whether CMake is told otherwise where its compiler is."""
    return "CMAKE_TOOLCHAIN_FILE" in os.environ or "CMAKE_CXX_COMPILER" in os.environ.get("CMAKE_ARGS", "")


def _found():
    return next(filter(_is_there, (_of_python(), *NAMES)), None)


def _of_python():
    return sysconfig.get_config_var("CXX")


def _is_there(command):
    return bool(command) and shutil.which(command.split()[0]) is not None
