"""Where the images of a data set are kept, and how a batch of them is made."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class StoredImages:
    """Images in one tensor - in memory or mapped from a file - of float32 in [0, 1] or of bytes.

    With ``rows`` an image of the data set is a choice of stored ones: the same digit can stand in many triplets and
    takes its memory once.

    Args:
        pixels: float32 or uint8 ``[M, C, H, W]``.
        rows: int64 ``[N]``, the stored image that image n is, or ``[N, K]``, the K stored images whose channels it
            stacks. None: the stored images in their order.

    Example:
        >>> images = StoredImages(torch.rand(5, 1, 8, 8), torch.tensor([[0, 1, 2], [4, 4, 0]]))
        >>> len(images), images.shape, images.take(torch.tensor([1, 0, 1])).shape
        (2, (3, 8, 8), torch.Size([3, 3, 8, 8]))
    """

    def __init__(self, pixels: Tensor, rows: Tensor | None = None) -> None:
        if pixels.dim() != 4 or pixels.dtype not in (torch.float32, torch.uint8):
            raise ValueError(
                "images must be float32 (or uint8) of shape [N, C, H, W], "
                f"got {pixels.dtype} of shape {list(pixels.shape)}"
            )
        self.pixels = pixels.contiguous()
        self.rows = rows

    def __len__(self) -> int:
        return len(self.pixels if self.rows is None else self.rows)

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(channels, height, width)`` of an image."""
        channels, height, width = self.pixels.shape[1:]
        return self._stacked * channels, height, width

    @property
    def _stacked(self) -> int:
        return 1 if self.rows is None else math.prod(self.rows.shape[1:])

    def take(self, indices: Tensor) -> Tensor:
        """The images of int64 indices ``[B]`` as float32 ``[B, C, H, W]``, in one gathering of memory."""
        rows = indices if self.rows is None else self.rows.index_select(0, indices).flatten()
        channels, height, width = self.pixels.shape[1:]
        images = as_float(self.pixels.index_select(0, rows))
        return images.view(len(indices), self._stacked * channels, height, width)

    def all(self) -> Tensor:
        """All images as float32 ``[N, C, H, W]``: the store itself where it holds just that, else made anew."""
        if self.rows is None and self.pixels.dtype == torch.float32:
            return self.pixels
        return self.take(torch.arange(len(self)))


class ColouredImages(StoredImages):
    """Grey images, each in a colour of its own: white becomes the colour, black stays.

    Args:
        pixels: float32 or uint8 ``[N, 1, H, W]``.
        colours: float32 ``[N, 3]`` in [0, 1].
    """

    def __init__(self, pixels: Tensor, colours: Tensor) -> None:
        super().__init__(pixels)
        self.colours = colours

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(3, height, width)``."""
        return 3, *self.pixels.shape[2:]

    def take(self, indices: Tensor) -> Tensor:
        """The images of int64 indices ``[B]`` as float32 ``[B, 3, H, W]``."""
        return super().take(indices) * self.colours.index_select(0, indices)[:, :, None, None]

    def all(self) -> Tensor:
        """All images as float32 ``[N, 3, H, W]``, made anew."""
        return self.take(torch.arange(len(self)))


def as_float(pixels: Tensor) -> Tensor:
    """Values in [0, 1]: bytes divided by 255, float32 as it is."""
    return pixels.to(torch.float32).div_(255) if pixels.dtype == torch.uint8 else pixels


def as_bytes(pixels: Tensor) -> Tensor:
    """The nearest of the 256 levels; bytes as they are."""
    return pixels if pixels.dtype == torch.uint8 else pixels.mul(255).round_().to(torch.uint8)
