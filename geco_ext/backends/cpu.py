"""C++ kernels for tensors in host memory (``csrc/cpu``)."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch  # first: the extension then shares PyTorch's OpenMP threads
from torch import Tensor

from geco_ext.backends.allocation import new_loss
from geco_ext.backends.native import DTYPES, compiled_update, extension, program, refuses_terms, tensor_tuple
from geco_ext.terms import Request


def unavailable() -> str | None:
    """Why this backend cannot run here, or None."""
    return extension()[1]


def refuses(request: Request) -> str | None:
    """Why this backend cannot serve the request, or None."""
    if request.block.device.type != "cpu":
        return f"it computes on the CPU, the tensors are on {request.block.device}"
    return refuses_terms(request)


@lru_cache(maxsize=1)
def _kernels() -> Any:
    return extension()[0].cpu


def lagrangian(request: Request) -> Tensor:
    """See :class:`geco_ext.backends.Backend`."""
    loss = new_loss(request)
    _kernels().lagrangian(
        *_arguments(request),
        loss.data_ptr(),
        loss.dtype == torch.float64,
        None if request.update is None else compiled_update(request.update),
        torch.get_num_threads(),
    )
    return loss


def constraint_sums(request: Request) -> Tensor:
    """See :class:`geco_ext.backends.Backend`."""
    sums = torch.empty(program(request.terms, request.owners).constraints + 1, dtype=torch.float64)
    _kernels().constraint_sums(*_arguments(request), sums.data_ptr(), torch.get_num_threads())
    return sums


def update_from_sums(request: Request, sums: Tensor, world_size: int) -> tuple[Tensor, Tensor]:
    """See :class:`geco_ext.backends.Backend`."""
    assert request.update is not None
    loss = new_loss(request)
    factor = torch.empty((), dtype=torch.float64)
    _kernels().update_from_sums(
        *_arguments(request),
        sums.data_ptr(),
        world_size,
        loss.data_ptr(),
        loss.dtype == torch.float64,
        factor.data_ptr(),
        compiled_update(request.update),
    )
    return loss, factor


def scale_gradients(gradients: Sequence[Tensor], outputs: Sequence[Tensor], factor: Tensor) -> None:
    """See :class:`geco_ext.backends.Backend`."""
    # The usual case, backward() on the loss itself: nothing to multiply, nothing to copy.
    if all(map(operator.is_, gradients, outputs)) and _kernels().is_one(factor.data_ptr(), DTYPES[factor.dtype]):
        return
    _kernels().scale_gradients(
        [tensor_tuple(g) for g in gradients],
        [tensor_tuple(o) for o in outputs],
        tensor_tuple(factor),
        torch.get_num_threads(),
    )


def _arguments(request: Request) -> tuple[Any, ...]:
    gradients, kl = request.gradients, request.kl
    kl_gradient = gradients[-1]
    return (
        program(request.terms, request.owners).compiled,
        [
            (tensor_tuple(p), t if t is None else tensor_tuple(t), g if g is None else tensor_tuple(g))
            for p, t, g in zip(request.predictions, request.targets, gradients, strict=False)
        ],
        kl if kl is None else tensor_tuple(kl),
        kl_gradient if kl_gradient is None else tensor_tuple(kl_gradient),
        request.block.data_ptr(),
        request.batch,
        request.image_elements,
    )
