"""Just-in-time kernels (``kernels``): GPUs that the compiled extension does not serve, AMD's among them.

With ``TRITON_INTERPRET=1`` set before triton is first imported, they run on tensors in host memory, slowly.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from geco_ext.backends import reference
from geco_ext.backends.base import Backend
from geco_ext.backends.triton import loss, models, steps
from geco_ext.backends.triton.device import is_interpreted
from geco_ext.backends.triton.kernels import window_plan
from geco_ext.contract import ImageStep, LossCall, UpdateSettings, count_rows, inputs_of_terms, parse_terms

OLDEST = (3, 6)  # the first that takes apart tuples of tensors and numbers that hold other tuples
MAX_ROWS = 1024
MAX_INPUTS = 24


class Triton(Backend):
    """Kernels that Triton compiles at their first call."""

    name = "triton"
    description = "just-in-time kernels"

    def unavailable(self) -> str | None:  # noqa: D102
        return _unavailable()

    def refuses_device(self, device: torch.device) -> str | None:  # noqa: D102
        if device.type == ("cpu" if is_interpreted() else "cuda"):
            return None
        return f"it computes on {'the CPU (TRITON_INTERPRET=1)' if is_interpreted() else 'GPUs'}, got {device}"

    def refuses(self, call: LossCall) -> str | None:  # noqa: D102
        reason = super().refuses(call)
        if reason is None and len(call.predictions) > MAX_INPUTS:
            reason = f"it compares at most {MAX_INPUTS} tensors in a call, got {len(call.predictions)}"
        return reason or _refuses_rows(call.terms) or _refuses_inputs(call)

    def lagrangian(self, call: LossCall) -> Tensor:  # noqa: D102
        return loss.lagrangian(call)

    def constraint_sums(self, call: LossCall) -> Tensor:  # noqa: D102
        return loss.constraint_sums(call)

    def update_from_sums(self, call: LossCall, sums: Tensor, world_size: int) -> tuple[Tensor, Tensor]:  # noqa: D102
        # A handful of numbers, once a step and after a collective: nothing to gain.
        return reference.loss.update_from_sums(call, sums, world_size)

    def scale_gradients(self, gradients: Sequence[Tensor], outputs: Sequence[Tensor], factor: Tensor) -> None:  # noqa: D102
        loss.scale_gradients(gradients, outputs, factor)

    def image_step(self, terms: str, update: UpdateSettings | None, block: Tensor) -> ImageStep | None:  # noqa: D102
        return steps.image_step(terms, update, block, self.refuses)

    def model_operator(self, name: str, leader: Tensor, *arguments: Any) -> Any:  # noqa: D102
        return getattr(models, name)(*arguments)


def _unavailable() -> str | None:
    if importlib.util.find_spec("triton") is None:
        return 'triton is not installed (pip install ".[triton]" in a clone of geco_ext)'
    if not is_interpreted() and not torch.cuda.is_available():
        return "PyTorch finds no GPU (TRITON_INTERPRET=1 runs it on the CPU, slowly)"
    import triton

    if _release(triton.__version__) < OLDEST:
        return f"it needs Triton {OLDEST[0]}.{OLDEST[1]}, found {triton.__version__}"
    return _fails_in_the_interpreter(triton.__version__) if is_interpreted() else _cannot_build_launchers()


def _release(version: str) -> tuple[int, int]:
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


def _fails_in_the_interpreter(triton_version: str) -> str | None:
    """Up to 3.6 it takes arrays of one number for numbers, which NumPy 2.4 no longer does."""
    numpy_version = importlib.metadata.version("numpy")
    if _release(triton_version) < (3, 7) and _release(numpy_version) >= (2, 4):
        return f"Triton's interpreter needs Triton 3.7 or a NumPy below 2.4, found {triton_version} and {numpy_version}"
    return None


def _cannot_build_launchers() -> str | None:
    """Triton compiles them at its first launch, which would be too late for another backend to serve the call."""
    named = os.environ.get("CC")
    if not any(map(shutil.which, ("gcc", "clang") if named is None else (named,))):
        return "Triton finds no C compiler (gcc, clang, or the one that CC names) to build its launchers with"
    scheme = sysconfig.get_default_scheme().replace(
        "posix_local", "posix_prefix"
    )  # as Triton does, for Debian's Python
    installed = sysconfig.get_paths(scheme)["include"]
    of_compiler = [folder for name in ("CPATH", "C_INCLUDE_PATH") for folder in os.environ.get(name, "").split(":")]
    if not any(Path(folder, "Python.h").is_file() for folder in (installed, *of_compiler) if folder):
        return (
            f"Triton finds no Python.h in {installed} to build its launchers with (python3-dev or python3-devel has it)"
        )
    return None


def _refuses_rows(terms: str) -> str | None:
    rows = count_rows(terms)
    return f"it takes at most {MAX_ROWS} constraints, got {rows}" if rows > MAX_ROWS else None


def _refuses_inputs(call: LossCall) -> str | None:
    terms = parse_terms(call.terms)
    for term, inputs in zip(terms, inputs_of_terms(terms, call.owners), strict=True):
        if len({call.weights[index] is None for index in inputs}) > 1:
            return "it takes weights for all tensors of a constraint, or for none"
        for shape in (call.predictions[index].shape for index in inputs):
            if term.is_windowed:
                reason = window_plan.refuses_patch(term.patch_size, shape[2], shape[3])
                if reason is not None:
                    return reason
    return None


BACKEND = Triton()
