from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def resize(images: Tensor, size: int | None) -> Tensor:
    """Bilinear resize of ``[N, C, H, W]`` images to ``size`` by ``size`` pixels; None leaves them as they are.

    Enlarging interpolates between pixel centres (``align_corners=False``). Shrinking widens the kernel to the
    pixels it replaces, because sampling a photograph at every tenth pixel would alias.
    """
    height, width = images.shape[-2:]
    if size is None or (height, width) == (size, size):
        return images
    shrinks = size < min(height, width)
    return F.interpolate(images, size=(size, size), mode="bilinear", align_corners=False, antialias=shrinks)
