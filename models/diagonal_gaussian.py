"""Diagonal Gaussians whose parameters a network computes."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

MAX_LOG_STD = 8.0
"""Standard deviations are between exp(-8) and exp(8) = 3000."""

INITIAL_SCALE = 0.1
"""Of the weights of a layer that computes a Gaussian: all start close to N(0, I), so that the KL of two is near 0."""


def bounded(value: Tensor, limit: float) -> Tensor:
    """Squash into (-limit, limit) with slope 1 at zero."""
    return limit * torch.tanh(value / limit)


class DiagonalGaussian(NamedTuple):
    """N(mean, diag(exp(2 log_std))).

    Attributes:
        mean: [B, ...].
        log_std: logarithm of the standard deviation, the same shape, between -8 and 8.
    """

    mean: Tensor
    log_std: Tensor


class ConvolutionalGaussian(nn.Module):
    """A Gaussian of [B, latent, H, W] whose mean and log_std are a 3x3 convolution of feature maps.

    Args:
        inputs: number of feature channels, of all maps together.
        latent: number of channels of the Gaussian.
    """

    def __init__(self, inputs: int, latent: int) -> None:
        super().__init__()
        self.mean_and_log_std = nn.Conv2d(inputs, 2 * latent, kernel_size=3, padding=1)
        assert self.mean_and_log_std.bias is not None
        with torch.no_grad():
            self.mean_and_log_std.weight.mul_(INITIAL_SCALE)
            self.mean_and_log_std.bias.zero_()

    def forward(self, *features: Tensor) -> DiagonalGaussian:
        """The Gaussian given features, each [B, channels, H, W]; in the weights' precision, under autocast too."""
        weight = self.mean_and_log_std.weight
        mean, log_std = self.mean_and_log_std(torch.cat(features, dim=1)).to(weight.dtype).chunk(2, dim=1)
        return DiagonalGaussian(mean, bounded(log_std, MAX_LOG_STD))
