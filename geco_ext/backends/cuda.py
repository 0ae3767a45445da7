"""Compiled CUDA kernels (``csrc/cuda``)."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor

from geco_ext.backends.allocation import new_empty, new_loss
from geco_ext.backends.cuda_architectures import refuses_capability
from geco_ext.backends.native import Native, call_arguments, extension, multiplier_update
from geco_ext.backends.workspace import new_workspace, workspace_of_stream
from geco_ext.contract import LossCall


class Cuda(Native):
    """The kernels of NVIDIA's GPUs; a call runs on the current stream of the tensors' device."""

    name = "cuda"
    description = "compiled CUDA kernels"

    def unavailable(self) -> str | None:
        """Why it cannot run on this machine, or None."""
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

    def refuses_device(self, device: torch.device) -> str | None:
        """Why it cannot compute on the device, or None."""
        if device.type != "cuda":
            return f"it computes on NVIDIA GPUs, the tensors are on {device}"
        return _device_not_served(device.index)

    def refuses(self, call: LossCall) -> str | None:
        """Why it cannot serve a call of the loss, or None."""
        problem: str | None = super().refuses(call)
        return problem or self.kernels.refuses(*call_arguments(call), self.place(call.block)[0])

    def place(self, tensor: Tensor) -> tuple[Any, ...]:
        """The device, and the current stream there as a raw handle."""
        index = tensor.device.index
        return index, torch._C._cuda_getCurrentRawStream(index)

    def place_of_loss(self, block: Tensor) -> tuple[Any, ...]:
        """Device, stream and scratch memory."""
        index, stream = self.place(block)
        return index, stream, self.workspace(block, index, stream)

    def places(self, block: Tensor) -> tuple[Callable[[], tuple[Any, ...]], Callable[[], tuple[Any, ...]]]:
        """The two above for a block that stays where it is."""
        index, current_stream = self.place(block)[0], torch._C._cuda_getCurrentRawStream
        is_capturing = self.kernels.is_capturing
        of_streams: dict[int, Tensor] = {}

        def place() -> tuple[int, int]:
            return index, current_stream(index)

        def place_of_loss() -> tuple[int, int, Tensor]:
            stream = current_stream(index)
            workspace = of_streams.get(stream)
            if workspace is None or (stream != 0 and is_capturing(stream)):
                workspace = self.workspace(block, index, stream)
                if stream == 0 or not is_capturing(stream):
                    of_streams[stream] = workspace
            return index, stream, workspace

        return place, place_of_loss

    def place_of_models(self, leader: Tensor) -> tuple[int, int, Callable[[int, int], Tensor]]:
        """Device, stream, and what to ask for scratch memory where few large examples leave sums."""
        index, stream = self.place(leader)
        return index, stream, partial(self.workspace, leader)

    def workspace(self, tensor: Tensor, index: int, stream: int) -> Tensor:
        """Scratch memory for a launch on a stream of the tensor's device, the current one."""
        words, counters = _workspace_words(index), self.kernels.TICKET_WORDS
        if stream != 0 and self.kernels.is_capturing(stream):  # the default stream cannot be captured
            return new_workspace(tensor.device, words, counters)
        return workspace_of_stream(tensor.device, stream, words, counters)

    def update_from_sums(self, call: LossCall, sums: Tensor, world_size: int) -> tuple[Tensor, Tensor]:
        """The rest of a step, from sums over all processes: the loss and the factor that all gradients need."""
        loss, factor = new_loss(call), new_empty(call.block, ())
        self.kernels.update_from_sums(
            *call_arguments(call),
            sums,
            world_size,
            loss,
            factor,
            multiplier_update(call.update),
            *self.place(call.block),
        )
        return loss, factor


def _extension() -> Any:
    return extension()[0].cuda


@cache
def _workspace_words(index: int) -> int:
    words: int = _extension().workspace_words(index)
    return words


@cache
def _not_compiled_for(index: int) -> str | None:
    """Why the compiled code cannot run on a device, or None. Makes no context there, which takes its memory."""
    module = extension()[0]
    try:
        driver, capability = _extension().driver_version(), _extension().capability(index)
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
    problem: str | None = _extension().device_problem(index)
    return None if problem is None else _does_not_run(index, problem)


def _does_not_run(index: int, problem: str) -> str:
    module = extension()[0]
    compiled = f"CUDA {module.cuda_version} for architectures {module.cuda_architectures}"
    return f"the kernels, compiled with {compiled}, do not run on cuda:{index} ({problem})"


BACKEND = Cuda()
