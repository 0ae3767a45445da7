"""Compiled CUDA kernels (``csrc/cuda``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from geco_ext.backends.allocation import new_empty, new_loss
from geco_ext.backends.cuda_architectures import refuses_capability
from geco_ext.backends.native import arguments, compiled_update, extension, program, refuses_call
from geco_ext.backends.workspace import new_workspace, workspace_of_stream
from geco_ext.terms import IMAGE, Made, Request, UpdateSettings


def unavailable() -> str | None:
    """Why this backend cannot run here, or None."""
    module, reason = extension()
    if reason is not None:
        return reason
    if module.cuda_architectures is None:
        return "the extension was compiled without CUDA"
    if torch.version.hip is not None:
        return "PyTorch is built for ROCm; AMD GPUs are served by the triton backend"
    if not torch.cuda.is_available():
        return "PyTorch finds no CUDA device"
    reasons = [_not_compiled_for(index) for index in range(torch.cuda.device_count())]
    return None if None in reasons else reasons[0]


def refuses_device(device: torch.device) -> str | None:
    """Why this backend cannot compute on the device, or None."""
    if device.type != "cuda":
        return f"it computes on NVIDIA GPUs, the tensors are on {device}"
    return _device_not_served(device.index)


def refuses(request: Request) -> str | None:
    """Why this backend cannot serve the request, or None."""
    return refuses_device(request.block.device) or _refuses_work(request)


def lagrangian(request: Request) -> Tensor:
    """See :class:`geco_ext.backends.Backend`."""
    loss = new_loss(request)
    _kernels().lagrangian(
        *arguments(request),
        loss,
        None if request.update is None else compiled_update(request.update),
        *_place(request),
    )
    return loss


def constraint_sums(request: Request) -> Tensor:
    """See :class:`geco_ext.backends.Backend`."""
    sums = new_empty(request.block, (program(request.terms, request.owners).constraints + 1,))
    _kernels().constraint_sums(*arguments(request), sums, *_place(request))
    return sums


def update_from_sums(request: Request, sums: Tensor, world_size: int) -> tuple[Tensor, Tensor]:
    """See :class:`geco_ext.backends.Backend`."""
    assert request.update is not None
    loss, factor = new_loss(request), new_empty(request.block, ())
    _kernels().update_from_sums(
        *arguments(request),
        sums,
        world_size,
        loss,
        factor,
        compiled_update(request.update),
        *current_stream(request.block),
    )
    return loss, factor


def image_step(
    terms: str, update: UpdateSettings | None, x_hat: Tensor, x: Tensor, kl: Tensor, block: Tensor
) -> Made | None:
    """See :func:`geco_ext.backends.image_step`."""
    index, stream = current_stream(block)
    return _kernels().image_step(  # type: ignore[no-any-return]
        program(terms, (IMAGE,)).compiled,
        None if update is None else compiled_update(update),
        x_hat,
        x,
        kl,
        block,
        torch.is_grad_enabled(),
        index,
        stream,
        workspace(block, index, stream),
    )


def image_step_backward(kl_gradient: Tensor | None, image_gradient: Tensor | None, incoming: Tensor) -> bool:
    """See :func:`geco_ext.backends.image_step_backward`."""
    return _kernels().image_step_backward(  # type: ignore[no-any-return]
        kl_gradient, image_gradient, incoming, *current_stream(incoming)
    )


def scale_gradients(gradients: Sequence[Tensor], outputs: Sequence[Tensor], factor: Tensor) -> None:
    """See :class:`geco_ext.backends.Backend`."""
    _kernels().scale_gradients(list(gradients), list(outputs), factor, *current_stream(factor))


def scale_gradients_in_place(gradients: list[Tensor], factor: Tensor) -> None:
    """See :class:`geco_ext.backends.Backend`."""
    _kernels().scale_gradients(gradients, gradients, factor, *current_stream(factor))


def current_stream(tensor: Tensor) -> tuple[int, int]:
    """The device of a tensor and the current stream there."""
    index = tensor.device.index
    return index, torch._C._cuda_getCurrentRawStream(index)


def workspace(tensor: Tensor, index: int, stream: int) -> Tensor:
    """Scratch memory for a launch on a stream of the tensor's device, the current one."""
    words, counters = _workspace_words(index), _kernels().TICKET_WORDS
    if stream != 0 and _kernels().is_capturing(stream):  # the default stream cannot be captured
        return new_workspace(tensor.device, words, counters)
    return workspace_of_stream(tensor.device, stream, words, counters)


def model_place(tensor: Tensor) -> tuple[int, int, Callable[[int, int], Tensor]]:
    """Device, stream, and what to ask for scratch memory."""
    return *current_stream(tensor), partial(workspace, tensor)


def _place(request: Request) -> tuple[int, int, Tensor]:
    """Device, stream and scratch memory."""
    index, stream = current_stream(request.block)
    return index, stream, workspace(request.block, index, stream)


@cache
def _kernels() -> Any:
    return extension()[0].cuda


@cache
def _workspace_words(index: int) -> int:
    words: int = _kernels().workspace_words(index)
    return words


def _refuses_work(request: Request) -> str | None:
    reason = refuses_call(request)
    if reason is not None:
        return reason
    problem: str | None = _kernels().refuses(*arguments(request), current_stream(request.block)[0])
    return problem


@cache
def _not_compiled_for(index: int) -> str | None:
    """Why the compiled code cannot run on a device, or None. Makes no context there, which takes its memory."""
    module = extension()[0]
    try:
        driver, capability = _kernels().driver_version(), _kernels().capability(index)
    except RuntimeError as error:  # no driver, or one that is too old for this CUDA
        return _does_not_run(index, str(error))
    reason = refuses_capability(
        module.cuda_architectures, module.cuda_version, capability, (driver // 1000, driver % 1000 // 10)
    )
    return None if reason is None else _does_not_run(index, reason)


@cache
def _device_not_served(index: int) -> str | None:
    """Why the compiled code does not run on a device where tensors are, or None."""
    reason = _not_compiled_for(index)
    if reason is not None:
        return reason
    problem: str | None = _kernels().device_problem(index)
    return None if problem is None else _does_not_run(index, problem)


def _does_not_run(index: int, problem: str) -> str:
    module = extension()[0]
    compiled = f"CUDA {module.cuda_version} for architectures {module.cuda_architectures}"
    return f"the kernels, compiled with {compiled}, do not run on cuda:{index} ({problem})"
