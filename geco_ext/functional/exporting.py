"""Whether a model is being exported: its operators are then written as plain ones."""

import torch


def is_exporting() -> bool:
    """Whether `torch.export`, or a trace of `torch.jit`, writes down the operators that run now.

    Both are what the ONNX exporters look through. An exported program runs where this package is not, so it must not
    hold operators of ours; and a trace would hold their results, since it does not see what a kernel computes.
    PyTorch before 2.7 does not say that it exports: a program exported there holds the package's operators.
    """
    exporting = getattr(torch.compiler, "is_exporting", None)
    traced: bool = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    return traced or (exporting is not None and exporting())
