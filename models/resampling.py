"""Strided convolutions down and up: between the pixels and the coarse grid on which ConvDraw recurs.

A convolution of stride s is written as a rearrangement of s x s pixels into channels and a convolution on the coarse
grid (and its transpose the other way round; Shi et al. 2016, arXiv:1609.05158). It is the same linear map as a strided
convolution with a kernel of s times the size, but kernels of 1x1 and 3x3 are what libraries are fast at: on one CPU
thread a transposed convolution with a kernel of 8x8 and stride 4 takes three times as long, forward and backward.
"""

from torch import nn


class DownSampling(nn.Sequential):
    """Image [B, inputs, H, W] -> features [B, outputs, H / stride, W / stride].

    Args:
        inputs: channels of the image.
        outputs: channels of the features.
        stride: pixels a side that one place of the grid stands for.
        kernel_size: of the convolution in places of the grid, odd; 1: each place sees its own pixels only.

    Example:
        >>> import torch
        >>> DownSampling(3, 8, stride=4)(torch.rand(2, 3, 16, 32)).shape
        torch.Size([2, 8, 4, 8])
    """

    def __init__(self, inputs: int, outputs: int, stride: int, kernel_size: int = 1) -> None:
        convolution = nn.Conv2d(inputs * stride**2, outputs, kernel_size, padding=kernel_size // 2)
        super().__init__(nn.PixelUnshuffle(stride), convolution)


class UpSampling(nn.Sequential):
    """Features [B, inputs, H, W] -> image [B, outputs, stride H, stride W]; a pixel sees 3x3 places of the grid.

    Args:
        inputs: channels of the features.
        outputs: channels of the image.
        stride: pixels a side that one place of the grid stands for.

    Example:
        >>> import torch
        >>> UpSampling(8, 3, stride=4)(torch.rand(2, 8, 4, 8)).shape
        torch.Size([2, 3, 16, 32])
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        convolution = nn.Conv2d(inputs, outputs * stride**2, kernel_size=3, padding=1)
        super().__init__(convolution, nn.PixelShuffle(stride))
