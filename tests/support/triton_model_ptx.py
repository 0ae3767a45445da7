"""Compiles the Triton kernels of models for a GPU that need not be there, as ``triton_ptx.py`` does:
``python triton_model_ptx.py ARCHITECTURE``. Must run without ``TRITON_INTERPRET``.
"""

import sys

import torch
from model_operators import KERNELS, inputs_of
from triton_ptx import Compiler, print_kernels

from geco_ext.backends import triton as triton_backend
from geco_ext.backends.triton.kernels import models as triton_kernels
from geco_ext.ops import dispatch

FLOATS = {"float32": torch.float32, "float16": torch.float16, "float64": torch.float64}


def compiled(architecture, step):
    """The kernels that a step launches."""
    names = [name for name in dir(triton_kernels) if name.endswith("_kernel")]
    kernels = {name: getattr(triton_kernels, name) for name in names}
    compilers = {name: Compiler(kernel, architecture) for name, kernel in kernels.items()}
    dispatch.select_for_models = lambda leader: triton_backend.BACKEND
    try:
        for name, compiler in compilers.items():
            setattr(triton_kernels, name, compiler)
        step()
    finally:
        for name, kernel in kernels.items():
            setattr(triton_kernels, name, kernel)
    return [made for compiler in compilers.values() for made in compiler.made]


def step(kernel, dtype, layout=None):
    """Forward and backward."""
    inputs = inputs_of(kernel, (8, 32, 32, 32), dtype)
    if layout is not None:
        inputs = [tensor.contiguous(memory_format=layout) for tensor in inputs]
    outputs = KERNELS[kernel][0](*[tensor.requires_grad_() for tensor in inputs])
    torch.autograd.backward(outputs, [torch.ones_like(output) for output in outputs])


if __name__ == "__main__":
    for kernel in KERNELS:
        for name, dtype in FLOATS.items():
            print_kernels(f"{kernel} {name}", compiled(int(sys.argv[1]), lambda: step(kernel, dtype)))  # noqa: B023
    rows = compiled(int(sys.argv[1]), lambda: step("gates", torch.float32, torch.channels_last))
    print_kernels("gates channels_last", rows)
