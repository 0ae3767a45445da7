"""Compiles the Triton kernels for a GPU that need not be there: ``python triton_ptx.py ARCHITECTURE`` prints their PTX.

Each launch is replaced by a compilation for its arguments. Must run without ``TRITON_INTERPRET``.
"""

import functools
import re
import subprocess
import sys
from pathlib import Path
from tempfile import NamedTemporaryFile

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

import geco_ext
from geco_ext.backends import triton as triton_backend
from geco_ext.backends.triton.kernels import gradient_scale, lagrangian
from geco_ext.ops import dispatch

TYPES = {
    torch.float32: "*fp32",
    torch.float64: "*fp64",
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.int64: "*i64",
}
DIVISIBLE = [["tt.divisibility", 16]]


class Compiler:
    """Stands for a kernel; a launch compiles it as the launch itself would."""

    def __init__(self, kernel, architecture):
        self.kernel, self.architecture, self.made = kernel, architecture, []

    def __getitem__(self, grid):
        return self.compile

    def compile(self, *arguments, **options):
        self.constants, self.attributes = {}, {}
        signature = {}
        for i, (parameter, argument) in enumerate(zip(self.kernel.params, arguments, strict=True)):
            if parameter.is_constexpr:
                signature[parameter.name] = self._constant((i,), argument)
            else:
                signature[parameter.name] = self._describe((i,), argument)
        source = ASTSource(self.kernel, signature, self.constants, self.attributes)
        target = GPUTarget("cuda", self.architecture, 32)
        self.made.append(triton.compile(source, target=target, options=options))

    def _constant(self, path, value):
        self.constants[path] = value
        return "constexpr"

    def _describe(self, path, value):
        if isinstance(value, tuple):
            return tuple(self._describe((*path, i), element) for i, element in enumerate(value))
        if isinstance(value, torch.Tensor):
            self.attributes[path] = DIVISIBLE
            return TYPES[value.dtype]
        if value is None or value == 1:
            return self._constant(path, value)
        if value % 16 == 0:
            self.attributes[path] = DIVISIBLE
        return "i32" if -(2**31) <= value < 2**31 else "i64"


def compiled(architecture, step):
    """The kernels that a step launches."""
    forward = Compiler(lagrangian.lagrangian_kernel, architecture)
    backward = Compiler(gradient_scale.gradient_scale_kernel, architecture)
    lagrangian.lagrangian_kernel, gradient_scale.gradient_scale_kernel = forward, backward
    dispatch._forced[0] = "triton"
    dispatch.select = lambda call: triton_backend.BACKEND
    dispatch.select_for_scaling = lambda device: triton_backend.BACKEND
    try:
        step()
    finally:
        lagrangian.lagrangian_kernel, gradient_scale.gradient_scale_kernel = forward.kernel, backward.kernel
    return forward.made + backward.made


def reconstruction_error(dtype):
    x_hat, x = torch.rand(64, 3, 32, 32, dtype=dtype, requires_grad=True), torch.rand(64, 3, 32, 32, dtype=dtype)
    criterion = geco_ext.GECOLoss([geco_ext.ReconstructionError(0.1)])
    criterion(x_hat, x, torch.rand(64)).backward()


def windows(dtype, patch, channels_last=False):
    layout = torch.channels_last if channels_last else torch.contiguous_format
    x_hat, x = (torch.rand(16, 3, 256, 256, dtype=dtype).to(memory_format=layout) for _ in range(2))
    criterion = geco_ext.GECOLoss([geco_ext.ReconstructionError(0.1), geco_ext.PatchNCC(0.9, patch)])
    criterion(x_hat.requires_grad_(), x, torch.rand(16)).backward()


def many_windows():
    x_hat, x = torch.rand(4, 3, 64, 64, requires_grad=True), torch.rand(4, 3, 64, 64)
    criterion = geco_ext.GECOLoss(
        [
            geco_ext.ReconstructionError(0.1, channels=3),
            geco_ext.PatchNCC(0.9, 8),
            geco_ext.PatchNCC(0.9, 5, stride=3, per_channel=True, name="per channel"),
            geco_ext.LocalStatistics(0.1, 8),
        ]
    )
    criterion(x_hat, x, torch.rand(4))


def everything():
    x_hat, x = torch.rand(4, 3, 9, 7, requires_grad=True), torch.rand(4, 3, 7, 9).transpose(2, 3)
    classifier = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(189, 10))

    class Brightness(geco_ext.Constraint):
        def forward(self, x_hat, x, labels=None):
            return (x_hat - x).mean((1, 2, 3)).square()

    criterion = geco_ext.GECOLoss(
        [
            geco_ext.ReconstructionError(0.1),
            geco_ext.ReconstructionError(0.1, channels=3, name="channel"),
            geco_ext.FeatureReconstructionError(0.1, torch.nn.Conv2d(3, 4, 3)),
            geco_ext.ClassificationAccuracy(0.9, classifier),
            Brightness(),
        ],
        accumulation_steps=2,
    )
    criterion(x_hat, x, torch.rand(4), labels=torch.tensor([1, 2, 3, 4]))


def resources(kernel):
    """Registers of a thread and bytes that it spills, as the assembler chose them."""
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        usage = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    registers, spilled = re.search(r"REG:(\d+) STACK:(\d+)", usage).groups()
    return f"{registers} registers {spilled} bytes spilled"


def print_kernels(of_step, kernels):
    """A title for each, and its PTX."""
    for kernel in kernels:
        title = f"=== {kernel.metadata.name} {of_step}"
        print(f"{title}: {kernel.metadata.num_warps} warps {kernel.metadata.shared} bytes shared {resources(kernel)}")
        print(kernel.asm["ptx"])


if __name__ == "__main__":
    architecture = int(sys.argv[1])
    FLOATS = (torch.float32, torch.float16, torch.float64)
    steps = {
        **{str(dtype): functools.partial(reconstruction_error, dtype) for dtype in FLOATS},
        "everything": everything,
        **{f"windows {dtype}": functools.partial(windows, dtype, 8) for dtype in FLOATS},
        "windows channels_last": functools.partial(windows, torch.float32, 8, channels_last=True),
        "windows large": functools.partial(windows, torch.float32, 16),
        "windows many": many_windows,
    }
    for name, step in steps.items():
        print_kernels(name, compiled(architecture, step))
