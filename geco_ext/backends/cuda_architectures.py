"""Which devices compiled CUDA code runs on, from numbers that are known without a context on any of them."""

from __future__ import annotations

import re
from typing import NamedTuple


class _Code(NamedTuple):
    """What one entry of ``CMAKE_CUDA_ARCHITECTURES`` compiles: machine code, PTX for newer devices, or both."""

    capability: tuple[int, int]
    only: str  # "a": this capability alone; "f": its major version alone, in PTX too
    machine_code: bool
    ptx: bool


def refuses_capability(
    architectures: str, compiler: str, capability: tuple[int, int], driver: tuple[int, int]
) -> str | None:
    """Why code for the architectures does not run on a device, or None; None also where the text does not tell.

    Args:
        architectures: as CMake has them, with commas: ``"80-real,90"``.
        compiler: version of the CUDA compiler: a driver that is older does not know its PTX.
        capability: compute capability of the device.
        driver: the newest CUDA the driver knows.
    """
    codes = [_parsed(entry) for entry in architectures.split(",")]
    if not all(codes):
        return None
    known = [code for code in codes if code is not None]
    if any(_runs(code, capability) for code in known):
        return None
    name = f"its compute capability is {capability[0]}.{capability[1]}"
    if not any(_can_be_translated(code, capability) for code in known):
        return name
    if driver >= tuple(map(int, compiler.split(".")[:2])):
        return None
    return f"{name}, for which a driver of CUDA {compiler} or newer is needed, found {driver[0]}.{driver[1]}"


def _parsed(entry: str) -> _Code | None:
    match = re.fullmatch(r"(\d+)(\d)([af]?)(-real|-virtual|)", entry)
    if match is None:
        return None
    major, minor, only, kind = match.groups()
    return _Code((int(major), int(minor)), only, kind != "-virtual", kind != "-real")


def _runs(code: _Code, capability: tuple[int, int]) -> bool:
    """Machine code runs on later minor versions too."""
    if not code.machine_code:
        return False
    if code.only == "a":
        return capability == code.capability
    return capability[0] == code.capability[0] and capability[1] >= code.capability[1]


def _can_be_translated(code: _Code, capability: tuple[int, int]) -> bool:
    """PTX is for every later device."""
    if not code.ptx or code.only == "a":
        return False
    return capability >= code.capability and (code.only == "" or capability[0] == code.capability[0])
