"""The tensors an operator call makes: the loss, and one gradient buffer for each input that wants one."""

from __future__ import annotations

import torch
from torch import Tensor

from geco_ext.terms import Request


def loss_dtype(predictions: list[Tensor]) -> torch.dtype:
    """float64 where a prediction is, else float32."""
    return torch.float64 if any(p.dtype == torch.float64 for p in predictions) else torch.float32


def new_loss(request: Request) -> Tensor:
    """An uninitialised 0-d loss."""
    return torch.empty((), dtype=loss_dtype(request.predictions), device=request.block.device)


def new_gradient(tensor: Tensor) -> Tensor:
    """A buffer laid out like the tensor. Half types get float32, so that backward rounds once, after scaling."""
    if tensor.dtype == torch.float32 or tensor.dtype == torch.float64:
        return torch.empty_like(tensor)
    return torch.empty_like(tensor, dtype=torch.float32)


def new_gradients(request: Request) -> list[Tensor | None]:
    """A buffer for each prediction and then for kl, None where no gradient is wanted."""
    tensors = [*request.predictions, request.kl] if request.kl is not None else request.predictions
    return [
        new_gradient(tensor) if wanted and tensor is not None else None
        for tensor, wanted in zip(tensors, request.wants_gradient, strict=False)
    ]
