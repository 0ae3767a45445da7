"""How the numbers of an example lie in memory, as kernels walk over them.

A tensor [B, ...] is seen as [batch, rows, inner] with dense ``inner``: a contiguous one has one row an example, a
channels_last one a row for each pixel. Batch and rows have strides of their own, so chunks along dimension 1 (means
and log-scales, gates) are read where they lie, and expanded tensors are read again.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from geco_ext.backends.allocation import empty_like, new_empty


class Extent(NamedTuple):
    """The sizes that all tensors of a call share."""

    batch: int
    rows: int
    inner: int


class Strided(NamedTuple):
    """A tensor that kernels can read, or write, in the order of an `Extent`; strides in elements."""

    tensor: Tensor
    batch_stride: int
    row_stride: int


def is_channels_last(tensor: Tensor) -> bool:
    """Whether the numbers of an example lie pixel by pixel: the order of all other tensors of the call."""
    return tensor.dim() == 4 and not _is_dense(tensor, 1) and _lies_pixel_by_pixel(tensor)


def extent_of(tensor: Tensor, channels_last: bool) -> Extent:
    """The sizes of a call from one of its tensors."""
    batch, *sizes = tensor.shape
    if channels_last:
        channels, height, width = sizes
        return Extent(batch, height * width, channels)
    inner = 1
    for size in sizes:
        inner *= size
    return Extent(batch, 1, inner)


def strided(tensor: Tensor, channels_last: bool) -> Strided:
    """The tensor, or a copy of it, in a call's order."""
    tensor = tensor.resolve_neg()  # a negated view (of a complex tensor) has its sign in a flag
    if channels_last:
        if not _lies_pixel_by_pixel(tensor):
            tensor = tensor.contiguous(memory_format=torch.channels_last)
        # The stride of a side of one pixel is arbitrary.
        height, width = tensor.shape[2:]
        row_stride = tensor.stride(3) if width > 1 else tensor.stride(2) if height > 1 else tensor.shape[1]
        return Strided(tensor, tensor.stride(0), row_stride)
    if not _is_dense(tensor, 1):
        tensor = tensor.contiguous()
    return Strided(tensor, tensor.stride(0), 0)


def new_like(tensor: Tensor, channels_last: bool, dtype: torch.dtype | None = None) -> Tensor:
    """An uninitialised dense tensor of that shape, in a call's order."""
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    return empty_like(tensor, dtype=dtype, memory_format=memory_format)


def new_sums(tensor: Tensor) -> Tensor:
    """An uninitialised number for each example, [B], of the type that sums have."""
    return new_empty(tensor, tensor.shape[:1], sum_dtype(tensor.dtype))


def sum_dtype(dtype: torch.dtype) -> torch.dtype:
    """float64 for float64, else float32: a KL of thousands of latents is beyond half types."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _is_dense(tensor: Tensor, first: int) -> bool:
    """Whether the dimensions from ``first`` lie in order and without gaps."""
    expected = 1
    for size, stride in zip(reversed(tensor.shape[first:]), reversed(tensor.stride()[first:]), strict=True):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True


def _lies_pixel_by_pixel(tensor: Tensor) -> bool:
    _, channels, height, width = tensor.shape
    _, of_channels, of_rows, of_columns = tensor.stride()
    pixel = of_columns if width > 1 else of_rows
    return (
        (channels == 1 or of_channels == 1)
        and (height * width == 1 or pixel >= channels)
        and (height == 1 or width == 1 or of_rows == width * of_columns)
    )
