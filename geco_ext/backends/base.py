"""What a backend is: the operators it computes, and what it says about those it cannot."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from geco_ext.contract import ImageStep, LossCall, UpdateSettings

ENVIRONMENT_VARIABLE = "GECO_EXT_BACKEND"  # names the backend of every call

# Of tensors whose memory is what they say: a subclass may keep its numbers elsewhere.
PLAIN_TYPES = (Tensor, torch.nn.Parameter)


class Backend(ABC):
    """One implementation of all operators.

    A tensor of a call may have any strides and any of the types in ``dtypes``; what a backend refuses, another one
    serves, the reference everything.
    """

    name: str
    description: str  # for ``geco info``
    dtypes: frozenset[torch.dtype] | None = frozenset(  # None: all; int64 is that of labels
        {torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64}
    )

    # What it serves

    def unavailable(self) -> str | None:
        """Why it cannot run on this machine, or None."""
        return None

    @abstractmethod
    def refuses_device(self, device: torch.device) -> str | None:
        """Why it cannot compute on the device, or None."""

    def refuses(self, call: LossCall) -> str | None:
        """Why it cannot serve a call of the loss, or None."""
        reason = self.refuses_device(call.block.device)
        if reason is None and self.dtypes is not None:
            for tensor in (*call.predictions, *call.targets, call.kl):
                if tensor is not None and tensor.dtype not in self.dtypes:
                    return self.refuses_dtype(tensor.dtype)
        return reason

    def refuses_dtype(self, dtype: torch.dtype) -> str | None:
        """Why it cannot compute in the type, or None."""
        if self.dtypes is None or dtype in self.dtypes:
            return None
        return f"it takes float16, bfloat16, float32 and float64, got {dtype}"

    # The loss

    @abstractmethod
    def lagrangian(self, call: LossCall) -> Tensor:
        """Loss, 0-d; the gradients are written, and with ``call.update`` the state moves."""

    @abstractmethod
    def constraint_sums(self, call: LossCall) -> Tensor:
        """Float64 [L + 1]: sums over the batch of the constraint vector, number of examples; writes the gradients."""

    @abstractmethod
    def update_from_sums(self, call: LossCall, sums: Tensor, world_size: int) -> tuple[Tensor, Tensor]:
        """The rest of a step, from sums over all processes: the loss and the factor that all gradients need."""

    @abstractmethod
    def scale_gradients(self, gradients: Sequence[Tensor], outputs: Sequence[Tensor], factor: Tensor) -> None:
        """``outputs[i] = gradients[i] * factor``, rounded once. In place where they are the same tensors."""

    def scale_gradients_in_place(self, gradients: list[Tensor], factor: Tensor) -> None:
        """``gradients[i] *= factor``; a factor of one costs nothing."""
        self.scale_gradients(gradients, gradients, factor)

    def image_step(self, terms: str, update: UpdateSettings | None, block: Tensor) -> ImageStep | None:
        """The calls of a criterion that looks at images alone, from the tensors to the loss, as one call into C++.

        What is asked for every step is looked up here, once. None where the backend has no such path.
        """
        return None

    # The operators of models (geco_ext.ops.models)

    @abstractmethod
    def model_operator(self, name: str, leader: Tensor, *arguments: Any) -> Any:
        """The operator of that name; ``leader`` is the tensor whose device, type and layout the call has.

        All tensors of a call have one float type, shape (but for gates: [B, 4 H, ...]) and device, and any strides.
        What is returned is dense, channels_last where the leader is, and of that type; sums over an example are
        float32, or float64 for float64. A gradient that is None counts as zero.
        """
