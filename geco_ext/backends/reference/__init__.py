"""Plain PyTorch, in float64, on any device: the formulas to read, and the oracle of the tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from geco_ext.backends.base import Backend
from geco_ext.backends.reference import loss, models
from geco_ext.contract import LossCall


class Reference(Backend):
    """Serves every call, and what other backends cannot."""

    name = "reference"
    description = "plain PyTorch, float64"
    dtypes = None

    def refuses_device(self, device: torch.device) -> str | None:  # noqa: D102
        return None

    def lagrangian(self, call: LossCall) -> Tensor:  # noqa: D102
        return loss.lagrangian(call)

    def constraint_sums(self, call: LossCall) -> Tensor:  # noqa: D102
        return loss.constraint_sums(call)

    def update_from_sums(self, call: LossCall, sums: Tensor, world_size: int) -> tuple[Tensor, Tensor]:  # noqa: D102
        return loss.update_from_sums(call, sums, world_size)

    def scale_gradients(self, gradients: Sequence[Tensor], outputs: Sequence[Tensor], factor: Tensor) -> None:  # noqa: D102
        loss.scale_gradients(gradients, outputs, factor)

    def model_operator(self, name: str, leader: Tensor, *arguments: Any) -> Any:  # noqa: D102
        return getattr(models, name)(*arguments)


BACKEND = Reference()
