"""C++ kernels for tensors in host memory (``csrc/cpu``)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch  # first: the extension then shares PyTorch's OpenMP threads
from torch import Tensor

from geco_ext.backends.allocation import new_empty, new_loss
from geco_ext.backends.native import arguments, compiled_update, extension, program, refuses_call
from geco_ext.terms import IMAGE, Made, Request, UpdateSettings


def unavailable() -> str | None:
    """Why this backend cannot run here, or None."""
    return extension()[1]


def refuses_device(device: torch.device) -> str | None:
    """Why this backend cannot compute on the device, or None."""
    return None if device.type == "cpu" else f"it computes on the CPU, the tensors are on {device}"


def refuses(request: Request) -> str | None:
    """Why this backend cannot serve the request, or None."""
    return refuses_device(request.block.device) or refuses_call(request)


@lru_cache(maxsize=1)
def _kernels() -> Any:
    return extension()[0].cpu


def lagrangian(request: Request) -> Tensor:
    """See :class:`geco_ext.backends.Backend`."""
    loss = new_loss(request)
    _kernels().lagrangian(
        *arguments(request),
        loss,
        None if request.update is None else compiled_update(request.update),
        torch.get_num_threads(),
    )
    return loss


def constraint_sums(request: Request) -> Tensor:
    """See :class:`geco_ext.backends.Backend`."""
    sums = new_empty(request.block, (program(request.terms, request.owners).constraints + 1,))
    _kernels().constraint_sums(*arguments(request), sums, torch.get_num_threads())
    return sums


def update_from_sums(request: Request, sums: Tensor, world_size: int) -> tuple[Tensor, Tensor]:
    """See :class:`geco_ext.backends.Backend`."""
    assert request.update is not None
    loss = new_loss(request)
    factor = new_empty(request.block, ())
    _kernels().update_from_sums(
        *arguments(request),
        sums,
        world_size,
        loss,
        factor,
        compiled_update(request.update),
    )
    return loss, factor


def image_step(
    terms: str, update: UpdateSettings | None, x_hat: Tensor, x: Tensor, kl: Tensor, block: Tensor
) -> Made | None:
    """See :func:`geco_ext.backends.image_step`."""
    return _kernels().image_step(  # type: ignore[no-any-return]
        program(terms, (IMAGE,)).compiled,
        None if update is None else compiled_update(update),
        x_hat,
        x,
        kl,
        block,
        torch.is_grad_enabled(),
        torch.get_num_threads(),
    )


def image_step_backward(kl_gradient: Tensor | None, image_gradient: Tensor | None, incoming: Tensor) -> bool:
    """See :func:`geco_ext.backends.image_step_backward`."""
    return _kernels().image_step_backward(  # type: ignore[no-any-return]
        kl_gradient, image_gradient, incoming, torch.get_num_threads()
    )


def scale_gradients(gradients: Sequence[Tensor], outputs: Sequence[Tensor], factor: Tensor) -> None:
    """See :class:`geco_ext.backends.Backend`."""
    _kernels().scale_gradients(list(gradients), list(outputs), factor, torch.get_num_threads())


def scale_gradients_in_place(gradients: list[Tensor], factor: Tensor) -> None:
    """See :class:`geco_ext.backends.Backend`."""
    if not _kernels().is_one(factor):
        _kernels().scale_gradients(gradients, gradients, factor, torch.get_num_threads())
