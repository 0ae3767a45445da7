"""The tensors an operator call needs: its loss, and a gradient buffer for each input that wants one."""

from __future__ import annotations

import torch
from torch import Tensor

from geco_ext.terms import Request

_KEPT = (torch.float32, torch.float64)


def loss_dtype(predictions: list[Tensor]) -> torch.dtype:
    """float64 where a prediction is, else float32."""
    for prediction in predictions:
        if prediction.dtype == torch.float64:
            return torch.float64
    return torch.float32


def new_loss(request: Request) -> Tensor:
    """An uninitialised 0-d loss."""
    return request.block.new_empty((), dtype=loss_dtype(request.predictions))


def new_gradient(tensor: Tensor) -> Tensor:
    """A buffer laid out like the tensor. Half types get float32, so that backward rounds once, after scaling."""
    return torch.empty_like(tensor) if tensor.dtype in _KEPT else torch.empty_like(tensor, dtype=torch.float32)
