"""Whether a model is being exported: its operators are then written as plain ones."""

from collections.abc import Callable

import torch

_is_program_exported: Callable[[], bool] = getattr(torch.compiler, "is_exporting", lambda: False)


def is_exporting() -> bool:
    """Whether `torch.export`, or a trace of `torch.jit`, writes down the operators that run now.

    Both are what the ONNX exporters look through. An exported program runs where this package is not, so it must not
    hold operators of ours; and a trace would hold calls of Python functions, with which it cannot be saved.
    A PyTorch that does not say that it exports (before 2.7) keeps our operators in the program.
    """
    return _is_program_exported() or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
