"""The distribution of all codes of a ConvDraw, as a torch distribution."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .diagonal_gaussian import DiagonalGaussian
from .latent_distribution import EXTENT, LatentDistribution
from .noise import Noise
from .posterior import standard_normal_log_prob

Walk = Callable[[int, Callable[[DiagonalGaussian], Tensor]], None]
"""Goes through the steps of a drawing, of a batch that is repeated so often: at each step, it hands the Gaussian of the
step's code to a function, and goes on with the code [B, latent, H, W] that this returns."""


class DrawDistribution(LatentDistribution):
    """q(z|x) or p(z) of the codes z = (z_1, ..., z_T) of a ConvDraw: a Gaussian at each step, given the codes before.

        log q(z|x) = sum_t log N(z_t; mean_t(x, z_1, ..., z_t-1), std_t(x, z_1, ..., z_t-1))

    Event shape [D], the codes of all steps one after the other, D = T x latent x H x W. Batch shape [B], or [] for
    a prior without context. Each sample and each density takes a pass through the recurrence.

    Args:
        walk: the recurrence.
        batch_shape: of the distribution, () or (B,).
        code_shape: shape of the codes of one example, (T, latent, H, W).
    """

    def __init__(self, walk: Walk, batch_shape: Sequence[int], code_shape: Sequence[int]) -> None:
        self.walk = walk
        self.code_shape = tuple(code_shape)
        super().__init__(torch.Size(batch_shape), torch.Size([math.prod(code_shape)]), validate_args=False)

    def rsample_and_log_prob(
        self, sample_shape: Any = EXTENT, noise: Noise = torch.randn_like
    ) -> tuple[Tensor, Tensor]:
        """Samples [*sample_shape, *batch_shape, D] and their log-densities [*sample_shape, *batch_shape] in nats."""
        codes: list[Tensor] = []
        log_probs: list[Tensor] = []

        def drawn(gaussian: DiagonalGaussian) -> Tensor:
            normal = noise(gaussian.mean)
            codes.append(gaussian.mean + gaussian.log_std.exp() * normal)
            log_probs.append(_log_density(normal, gaussian))
            return codes[-1]

        shape = self._extended_shape(torch.Size(sample_shape))
        self.walk(math.prod(sample_shape), drawn)
        return flat_codes(torch.stack(codes)).reshape(shape), _summed(log_probs).reshape(shape[:-1])

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density [..., *batch_shape] in nats, at any value that broadcasts to [..., *batch_shape, D]."""
        self._check_value(value)
        shape = torch.broadcast_shapes(value.shape, self._extended_shape())
        codes = iter(value.expand(shape).reshape(-1, *self.code_shape).unbind(1))
        log_probs: list[Tensor] = []

        def given(gaussian: DiagonalGaussian) -> Tensor:
            z = next(codes)
            log_probs.append(_log_density((z - gaussian.mean) * (-gaussian.log_std).exp(), gaussian))
            return z

        # One example has a batch of 1, which broadcasts against the value's.
        before = shape[:-1] if self.batch_shape == (1,) else shape[: len(shape) - 1 - len(self.batch_shape)]
        self.walk(math.prod(before), given)
        return _summed(log_probs).reshape(shape[:-1])


def flat_codes(codes: Tensor) -> Tensor:
    """Codes of each step [T, B, latent, H, W] -> one vector for each example [B, D], step after step."""
    return codes.transpose(0, 1).flatten(1)


def _summed(log_probs: list[Tensor]) -> Tensor:
    """The sum over steps of [B]."""
    return torch.stack(log_probs).sum(0)


def _log_density(normal: Tensor, gaussian: DiagonalGaussian) -> Tensor:
    """The log-density [B] at mean + std * normal."""
    return standard_normal_log_prob(normal.flatten(1)) - gaussian.log_std.flatten(1).sum(1)
