"""The convolutional encoder and decoder of the VAE+NVP model, in the style of Rosca et al. 2018 (arXiv:1802.06847).

Every stage halves (encoder) or doubles (decoder) height and width with a strided convolution; stages are added until
the smaller side is between 4 and 7, where a fully connected layer takes over.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import nn

from .arguments import checked_shape

SMALLEST_SIDE = 8
"""The smallest image height or width: one stage is the least."""


def checked_image_shape(image_shape: Sequence[int]) -> tuple[int, int, int]:
    """(C, H, W) as a tuple of integers.

    Raises:
        ValueError: not three positive integers, a side below 8, or a side that cannot be halved evenly in every stage.
    """
    channels, height, width = shape = checked_shape("image_shape", image_shape, SMALLEST_SIDE)
    factor = 2 ** number_of_stages(height, width)
    if height % factor or width % factor:
        raise ValueError(
            f"image_shape: got {shape}, expected height and width divisible by {factor}, the factor by which images "
            f"with a smaller side of {min(height, width)} are down-sampled"
        )
    return channels, height, width


def number_of_stages(height: int, width: int) -> int:
    """How often the sides can be halved before the smaller one falls below 4."""
    return (min(height, width) // 4).bit_length() - 1


def stage_channels(stages: int, channels: int) -> list[int]:
    """Channels after each encoder stage: doubled per stage, at most four times the first."""
    return [min(2**stage, 4) * channels for stage in range(stages)]


class ConvolutionalEncoder(nn.Sequential):
    """Image [B, C, H, W] -> features [B, hidden], not negative.

    Args:
        image_shape: (C, H, W).
        hidden: number of features.
        channels: channels after the first stage.

    Example:
        >>> import torch
        >>> ConvolutionalEncoder((3, 32, 32), hidden=64)(torch.rand(2, 3, 32, 32)).shape
        torch.Size([2, 64])
    """

    def __init__(self, image_shape: Sequence[int], *, hidden: int = 256, channels: int = 32) -> None:
        image_channels, height, width = checked_image_shape(image_shape)
        stages = number_of_stages(height, width)
        outputs = stage_channels(stages, channels)
        layers: list[nn.Module] = []
        for before, after in pairwise([image_channels, *outputs]):
            layers += [nn.Conv2d(before, after, kernel_size=4, stride=2, padding=1), nn.ReLU()]
        flat = outputs[-1] * (height >> stages) * (width >> stages)
        super().__init__(*layers, nn.Flatten(), nn.Linear(flat, hidden), nn.ReLU())


class ConvolutionalDecoder(nn.Sequential):
    """Latent [B, latent] -> mean image g(z) [B, C, H, W] in [0, 1].

    Args:
        image_shape: (C, H, W).
        latent: number of latents.
        hidden: width of the fully connected layer.
        channels: channels before the last stage.

    Example:
        >>> import torch
        >>> ConvolutionalDecoder((1, 16, 16), latent=8)(torch.randn(2, 8)).shape
        torch.Size([2, 1, 16, 16])
    """

    def __init__(self, image_shape: Sequence[int], *, latent: int, hidden: int = 256, channels: int = 32) -> None:
        image_channels, height, width = checked_image_shape(image_shape)
        stages = number_of_stages(height, width)
        inputs = stage_channels(stages, channels)[::-1]
        small = (inputs[0], height >> stages, width >> stages)
        layers: list[nn.Module] = [
            nn.Linear(latent, hidden),
            nn.ReLU(),
            nn.Linear(hidden, math.prod(small)),
            nn.ReLU(),
            nn.Unflatten(1, small),
        ]
        for before, after in pairwise(inputs):
            layers += [nn.ConvTranspose2d(before, after, kernel_size=4, stride=2, padding=1), nn.ReLU()]
        last = nn.ConvTranspose2d(inputs[-1], image_channels, kernel_size=4, stride=2, padding=1)
        super().__init__(*layers, last, nn.Sigmoid())
