from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from geco_ext.data.images import as_bytes, as_float
from geco_ext.data.request import Request

CHUNK = 4096  # images made at a time, so that a large data set is never held twice


def prepare(pixels: Tensor, request: Request) -> Tensor:
    """Float32 or uint8 images ``[N, C, H, W]`` at the size and in the storage that was asked for."""
    store = as_bytes if request.storage == "uint8" else as_float
    size = request.size
    if size is None or tuple(pixels.shape[-2:]) == (size, size):
        return store(pixels)
    dtype = torch.uint8 if request.storage == "uint8" else torch.float32
    prepared = torch.empty(*pixels.shape[:2], size, size, dtype=dtype)
    for chunk, target in zip(pixels.split(CHUNK), prepared.split(CHUNK), strict=True):
        target.copy_(store(resize(as_float(chunk), size)))
    return prepared


def centre_square(images: Tensor) -> Tensor:
    """The largest square in the middle of images ``[..., H, W]``."""
    height, width = images.shape[-2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return images[..., top : top + side, left : left + side]


def resize(images: Tensor, size: int | None) -> Tensor:
    """Bilinear resize of ``[N, C, H, W]`` images to ``size`` by ``size`` pixels; None leaves them as they are.

    Enlarging interpolates between pixel centres (``align_corners=False``). Shrinking widens the kernel to the
    pixels it replaces, because sampling a photograph at every tenth pixel would alias.
    """
    height, width = images.shape[-2:]
    if size is None or (height, width) == (size, size):
        return images
    shrinks = size < min(height, width)
    resized = F.interpolate(images, size=(size, size), mode="bilinear", align_corners=False, antialias=shrinks)
    return resized.clamp_(0, 1)  # the weights of a widened kernel add up to 1 but for rounding
