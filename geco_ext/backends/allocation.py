"""The tensors an operator call needs: its loss, scratch memory, and a gradient buffer for each input that wants one.

A kernel writes all of them before anybody reads them. ``torch.use_deterministic_algorithms(True)`` has PyTorch fill
each new tensor with NaN first, a launch and a pass over memory; nothing is filled here.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from geco_ext.contract import LossCall

_KEPT = (torch.float32, torch.float64)
_PLAIN = (Tensor, torch.nn.Parameter)


def loss_dtype(predictions: list[Tensor]) -> torch.dtype:
    """float64 where a prediction is, else float32."""
    for prediction in predictions:
        if prediction.dtype == torch.float64:
            return torch.float64
    return torch.float32


def new_loss(call: LossCall) -> Tensor:
    """An uninitialised 0-d loss."""
    return new_empty(call.block, (), loss_dtype(call.predictions))


def new_gradient(tensor: Tensor) -> Tensor:
    """A buffer laid out like the tensor. Half types get float32, so that backward rounds once, after scaling."""
    return empty_like(tensor, dtype=None if tensor.dtype in _KEPT else torch.float32)


def empty_like(
    tensor: Tensor, *, dtype: torch.dtype | None = None, memory_format: torch.memory_format = torch.preserve_format
) -> Tensor:
    """``torch.empty_like``, never filled."""
    if not _would_be_filled(tensor):
        return torch.empty_like(tensor, dtype=dtype, memory_format=memory_format)
    return _unfilled(torch.empty_like(tensor, dtype=dtype, memory_format=memory_format, device="meta"), tensor.device)


def new_empty(tensor: Tensor, shape: Sequence[int], dtype: torch.dtype | None = None) -> Tensor:
    """``tensor.new_empty``, never filled."""
    if not _would_be_filled(tensor):
        return tensor.new_empty(shape, dtype=dtype)
    return _unfilled(tensor.new_empty(shape, dtype=dtype, device="meta"), tensor.device)


def _unfilled(layout: Tensor, device: torch.device) -> Tensor:
    """PyTorch fills tensors, not the storage that they look at; ``layout`` is one without memory."""
    storage = torch.UntypedStorage(layout.numel() * layout.dtype.itemsize, device=device)
    return torch.empty(0, dtype=layout.dtype, device=device).set_(storage, 0, layout.shape, layout.stride())


def _would_be_filled(tensor: Tensor) -> bool:
    """Not asked of subclasses, nor where somebody looks at what is allocated: a compiler, a mode."""
    if torch.compiler.is_compiling() or not torch._C._get_deterministic_algorithms():
        return False
    return type(tensor) in _PLAIN and torch._C._len_torch_dispatch_stack() == 0
