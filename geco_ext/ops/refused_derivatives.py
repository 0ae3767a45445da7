"""Derivatives that the loss has none of: its gradients are numbers that are made with its value."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad


def refuse_forward_mode(*tensors: Tensor | None) -> None:
    """Raise where a tensor carries a tangent: gradients are made backwards, before anybody asks for them."""
    if forward_ad._current_level < 0:
        return
    for tensor in tensors:
        if tensor is not None and forward_ad.unpack_dual(tensor).tangent is not None:
            raise RuntimeError("the GECO loss has no forward-mode derivative; use reverse mode (backward, grad)")


def refusing_second_derivative(gradient: Tensor) -> Any:
    """The gradient, which raises where it is to be differentiated."""
    return _NoSecondDerivative.apply(gradient.detach().requires_grad_())  # type: ignore[no-untyped-call]


class _NoSecondDerivative(torch.autograd.Function):
    """Identity whose backward refuses."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor) -> Tensor:
        """The gradient itself."""
        return gradient.view_as(gradient)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        """Refuse."""
        raise RuntimeError("the GECO loss has no second derivative: its gradients are computed with its value")
