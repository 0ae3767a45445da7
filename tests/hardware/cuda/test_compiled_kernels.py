"""The extension's CUDA kernels as nvcc has compiled them: 16-byte accesses, no spilled registers. No GPU is needed.

``.ci/run`` compiles the extension for sm_90 and runs these tests on it; what ptxas said of each function is in the log
of that build, whose path is in ``GECO_EXT_BUILD_LOG``.
"""

import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from geco_ext.backends import native

EXTENSION, MISSING = native.extension()
ARCHITECTURES = (EXTENSION and EXTENSION.cuda_architectures) or ""
LOG = os.environ.get("GECO_EXT_BUILD_LOG")


def cuobjdump() -> str | None:
    """The toolkit's, or the one that Triton brings along."""
    triton = importlib.util.find_spec("triton")
    folder = Path(triton.origin).parent / "backends" / "nvidia" / "bin" if triton and triton.origin else None
    return shutil.which("cuobjdump") or (folder and shutil.which("cuobjdump", path=str(folder)))


pytestmark = [
    pytest.mark.skipif("90" not in ARCHITECTURES, reason="the extension has no CUDA kernels for sm_90"),
    pytest.mark.skipif(cuobjdump() is None, reason="needs cuobjdump"),
]


@pytest.fixture(scope="module")
def functions() -> dict[str, str]:
    """The machine code of each function."""
    command = [cuobjdump(), "-sass", "-arch", "sm_90", EXTENSION.__file__]
    code = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {f.split("\n", 1)[0].strip(): f for f in re.split(r"\n\s*Function : ", code)[1:]}


# Two kernels with all 255 registers write two at the start, and read them once beside the loops over rows.
BESIDE_THE_LOOP = {"windows of 11": {("0", "0"), ("8", "8")}}


@pytest.mark.skipif(LOG is None, reason="GECO_EXT_BUILD_LOG names no log of a build with CUDAFLAGS=-Xptxas=-v")
def test_no_register_is_spilled(functions):
    properties = (
        r"Function properties for (?:__nv_static\S*?__(?=_ZN))?(\S+)\n"
        r".*?(\d+) bytes spill stores, (\d+) bytes spill loads"
    )
    spills = {name: counts for name, *counts in re.findall(properties, Path(LOG).read_text())}
    kernels = {name for name in functions if "kernel" in name}
    assert kernels
    assert kernels <= spills.keys()
    for name in kernels:  # functions that they call, once a block, save their caller's registers: counted as spills
        counts = spills[name]
        family = "windows of 11" if re.search(r"FixedMarch.*Li11ELi0EE", name) else ""
        assert tuple(counts) in BESIDE_THE_LOOP.get(family, {("0", "0")}), name


def is_wide(function: str) -> bool:
    """Whether it is a model kernel that reads vectors: of 4, 2, or 8 numbers."""
    return re.search(r"NumbersI(fLi4|dLi2|N\w*(Half|BFloat16)ELi8)E", function) is not None


# Of the Lagrangian, float32: loads of both images, stores of the gradient. Of models, every type: all operands.
DENSE = {
    "step": re.compile(r"lagrangian_kernel\w*(SquaredAlone|WeightedSquares|OneMeasure|WeightedMeasureI)").search,
    **{
        f"windows of {size}": re.compile(rf"FixedMarchI\w*Float32ImagesILb[01]EEELi[13]ELi4ELi{size}ELi0E").search
        for size in (4, 8, 11, 16)
    },
    **{
        name: lambda function, name=name: name in function and is_wide(function)
        for name in ("gaussian", "lstm_gates", "affine_coupling")
    },
}


@pytest.mark.parametrize("kind", DENSE)
def test_dense_images_move_16_bytes_at_a_time(functions, kind):
    dense = [code for function, code in functions.items() if DENSE[kind](function)]
    assert dense
    for code in dense:
        assert re.search(r"LDG\.E[.\w]*\.128", code)
        assert re.search(r"STG\.E[.\w]*\.128", code)


@pytest.mark.parametrize(("name", "least"), [("gaussian", 3), ("lstm_gates", 5), ("affine_coupling", 3)])
def test_model_kernels_move_every_operand_so(functions, name, least):
    """A load each, where the compiler has not unrolled; gates are four operands."""
    of_model = {function: code for function, code in functions.items() if f"{name}_" in function}
    wide = [code for function, code in of_model.items() if is_wide(function)]
    assert len(wide) == len(of_model) / 2 > 0
    for code in wide:
        assert len(re.findall(r"LDG\.E[.\w]*\.128", code)) >= least
        assert not re.search(r"LDG\.E[.\w]*\.(U8|U16)", code)
