"""The CUDA kernels as nvcc compiles them, where it is: 16-byte accesses, no spilled registers. No GPU is needed."""

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

import pytest

CSRC = Path(__file__).parents[2] / "csrc"


def cuobjdump() -> str | None:
    """The toolkit's, or the one that Triton brings along."""
    triton = importlib.util.find_spec("triton")
    folder = Path(triton.origin).parent / "backends" / "nvidia" / "bin" if triton and triton.origin else None
    return shutil.which("cuobjdump") or (folder and shutil.which("cuobjdump", path=str(folder)))


pytestmark = pytest.mark.skipif(shutil.which("nvcc") is None or cuobjdump() is None, reason="needs nvcc and cuobjdump")


FILES = [
    "step",
    "gaussian",
    "lstm_gates",
    "affine_coupling",
    *(f"windows_of_{sizes}" for sizes in ("4", "8", "11", "16", "4_and_8", "any_size")),
]


@pytest.fixture(scope="module", params=FILES)
def compiled(request, tmp_path_factory):
    """What ptxas says of the kernels of a file, and their machine code."""
    cubin = tmp_path_factory.mktemp("cubin") / "kernels.cubin"
    command = ["nvcc", "-std=c++17", "-O3", "-arch=sm_90", "-Xptxas", "-v", f"-I{CSRC}", "-cubin", "-o", str(cubin)]
    source = CSRC / "cuda" / f"{request.param}.cu"
    if "windows" in request.param:
        command.insert(1, "-rdc=true")
    said = subprocess.run([*command, str(source)], capture_output=True, text=True, check=True).stderr
    code = subprocess.run([cuobjdump(), "-sass", str(cubin)], capture_output=True, text=True, check=True).stdout
    functions = re.split(r"\n\s*Function : ", code)[1:]
    return request.param, said, {f.split("\n", 1)[0].strip(): f for f in functions}


# Two kernels with all 255 registers write two at the start, and read them once beside the loops over rows.
BESIDE_THE_LOOP = {"windows_of_11": {("0", "0"), ("8", "8")}}


def test_no_register_is_spilled(compiled):
    file, said, functions = compiled
    spills = re.findall(r"(\d+) bytes spill stores, (\d+) bytes spill loads", said)
    assert len(spills) >= sum("kernel" in name for name in functions) > 0
    assert set(spills) <= BESIDE_THE_LOOP.get(file, {("0", "0")})


def is_wide(function: str) -> bool:
    """Whether it is a model kernel that reads vectors: of 4, 2, or 8 numbers."""
    return re.search(r"NumbersI(fLi4|dLi2|N\w*(Half|BFloat16)ELi8)E", function) is not None


def test_dense_images_move_16_bytes_at_a_time(compiled):
    """Of the Lagrangian, float32: loads of both images and stores of the gradient. Model kernels, of every type: all
    operands."""
    name, _, functions = compiled
    dense = [
        code
        for function, code in functions.items()
        if (name == "step" and "lagrangian_kernel" in function)
        or re.search(r"FixedMarchI\w*Float32ImagesILb[01]EEELi[13]ELi4E", function)
        or is_wide(function)
    ]
    if name in ("windows_of_4_and_8", "windows_of_any_size"):
        pytest.skip("its kernels are not for vectors")
    assert dense
    for code in dense:
        assert re.search(r"LDG\.E[.\w]*\.128", code)
        assert re.search(r"STG\.E[.\w]*\.128", code)


def test_model_kernels_move_every_operand_so(compiled):
    """A load each, where the compiler has not unrolled; gates are four operands."""
    name, _, functions = compiled
    least = {"gaussian": 3, "lstm_gates": 5, "affine_coupling": 3}
    if name not in least:
        pytest.skip("not a model kernel")
    wide = [code for function, code in functions.items() if is_wide(function)]
    assert len(wide) == len(functions) / 2
    for code in wide:
        assert len(re.findall(r"LDG\.E[.\w]*\.128", code)) >= least[name]
        assert not re.search(r"LDG\.E[.\w]*\.(U8|U16)", code)
