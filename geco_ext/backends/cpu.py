"""C++ kernels for tensors in host memory (``csrc/cpu``)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from geco_ext.backends.allocation import new_empty, new_loss
from geco_ext.backends.native import Native, call_arguments, multiplier_update
from geco_ext.contract import LossCall


class Cpu(Native):
    """The kernels of the host; a call runs on as many threads as PyTorch uses."""

    name = "cpu"
    description = "C++ kernels"

    def unavailable(self) -> str | None:
        """Why it cannot run on this machine, or None.

        Raises:
            ValueError: the environment variable GECO_EXT_CPU_CAPABILITY names no instruction set of this processor.
        """
        reason = super().unavailable()
        if reason is None:
            self.kernels.capability()
        return reason

    def refuses_device(self, device: torch.device) -> str | None:
        """Why it cannot compute on the device, or None."""
        return None if device.type == "cpu" else f"it computes on the CPU, the tensors are on {device}"

    def place(self, tensor: Tensor) -> tuple[Any, ...]:
        """The number of threads."""
        return (torch.get_num_threads(),)

    def places(self, block: Tensor) -> tuple[Callable[[], tuple[Any, ...]], Callable[[], tuple[Any, ...]]]:
        """The two for a block that stays where it is."""
        threads = torch.get_num_threads

        def place() -> tuple[int]:
            return (threads(),)

        return place, place

    def update_from_sums(self, call: LossCall, sums: Tensor, world_size: int) -> tuple[Tensor, Tensor]:
        """The rest of a step, from sums over all processes: the loss and the factor that all gradients need."""
        loss, factor = new_loss(call), new_empty(call.block, ())
        self.kernels.update_from_sums(
            *call_arguments(call), sums, world_size, loss, factor, multiplier_update(call.update)
        )
        return loss, factor

    def scale_gradients_in_place(self, gradients: list[Tensor], factor: Tensor) -> None:
        """``gradients[i] *= factor``; a factor of one costs nothing."""
        if not self.kernels.is_one(factor):
            self.scale_gradients(gradients, gradients, factor)


BACKEND = Cpu()
