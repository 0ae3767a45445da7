"""Windowed statistics in plain PyTorch: means, variances and covariances over every patch of an image.

A patch constraint is a function of these statistics. Its gradient needs three coefficients A, B, D per patch and is

    grad[j] = x[j] * box(A)[j] - x_hat[j] * box(B)[j] + box(D)[j],

where ``box`` sums over the patches that cover pixel j.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from geco_ext.terms import Term


def positions(extent: int, term: Term) -> int:
    """How many fully contained patches start along one side of an image."""
    return (extent - term.patch_size) // term.stride + 1


class _Statistics(NamedTuple):
    """Per patch, [B, G, h, w] (G: 1, or the channels): means, variances and covariance of both images."""

    mean_hat: Tensor
    mean: Tensor
    var_hat: Tensor
    var: Tensor
    cov: Tensor


def _patch_mean(values: Tensor, patch: int, stride: int, per_channel: bool) -> Tensor:
    """Mean over each patch's pixels, of all channels jointly or of each."""
    joint = values if per_channel else values.mean(1, keepdim=True)
    rows = F.avg_pool2d(joint, (patch, 1), (stride, 1))
    return F.avg_pool2d(rows, (1, patch), (1, stride))


def _cover_sum(coefficients: Tensor, shape: torch.Size, patch: int, stride: int) -> Tensor:
    """For each pixel the sum of the coefficients of the patches that cover it."""
    height, width = shape[-2:]
    dense = coefficients.new_zeros(*coefficients.shape[:2], height - patch + 1, width - patch + 1)
    dense[:, :, ::stride, ::stride] = coefficients
    padded = F.pad(dense, (patch - 1,) * 4)
    rows = F.avg_pool2d(padded, (patch, 1), 1)
    return F.avg_pool2d(rows, (1, patch), 1) * (patch * patch)


def _statistics(x_hat: Tensor, x: Tensor, patch: int, stride: int, per_channel: bool) -> _Statistics:
    def mean(values: Tensor) -> Tensor:
        return _patch_mean(values, patch, stride, per_channel)

    mean_hat, mean_x = mean(x_hat), mean(x)
    return _Statistics(
        mean_hat,
        mean_x,
        (mean(x_hat * x_hat) - mean_hat**2).clamp_min(0.0),
        (mean(x * x) - mean_x**2).clamp_min(0.0),
        mean(x_hat * x) - mean_hat * mean_x,
    )


def patch_ncc(
    x_hat: Tensor, x: Tensor, patch: int, stride: int, eps: float, per_channel: bool
) -> tuple[Tensor, Tensor]:
    """Mean over batch and positions of psi(x, i)^T psi(x_hat, i), and its derivative by x_hat."""
    # Correlations do not change when an image is shifted: shifting first keeps the digits of far-off images.
    x_hat = x_hat - x_hat.mean((1, 2, 3), keepdim=True)
    x = x - x.mean((1, 2, 3), keepdim=True)
    s = _statistics(x_hat, x, patch, stride, per_channel)
    var_hat, var = s.var_hat + eps, s.var + eps
    inner = (s.cov + eps) * torch.rsqrt(var_hat * var)
    channels = 1 if per_channel else x.shape[1]
    weight = 1.0 / (channels * patch * patch * inner.numel())
    a = weight * torch.rsqrt(var_hat * var)
    b = weight * inner / var_hat
    d = b * s.mean_hat - a * s.mean
    return inner.mean(), _gradient(x_hat, x, a, b, d, patch, stride)


def local_statistics(x_hat: Tensor, x: Tensor, patch: int, stride: int, eps: float) -> tuple[Tensor, Tensor]:
    """Mean over batch and positions of [(m_hat - m)^2 + (d_hat - d)^2] / 2, and its derivative by x_hat."""
    reference = x.mean((1, 2, 3), keepdim=True)  # the same for both images: their means are compared
    x_hat, x = x_hat - reference, x - reference
    s = _statistics(x_hat, x, patch, stride, per_channel=False)
    deviation_hat, deviation = (s.var_hat + eps).sqrt(), (s.var + eps).sqrt()
    mean_gap, deviation_gap = s.mean_hat - s.mean, deviation_hat - deviation
    weight = 1.0 / (x.shape[1] * patch * patch * mean_gap.numel())
    b = -weight * deviation_gap / deviation_hat
    d = weight * mean_gap + b * s.mean_hat
    value = 0.5 * (mean_gap**2 + deviation_gap**2).mean()
    return value, _gradient(x_hat, x, torch.zeros_like(b), b, d, patch, stride)


def _gradient(x_hat: Tensor, x: Tensor, a: Tensor, b: Tensor, d: Tensor, patch: int, stride: int) -> Tensor:
    def cover(coefficients: Tensor) -> Tensor:
        return _cover_sum(coefficients, x.shape, patch, stride)

    return x * cover(a) - x_hat * cover(b) + cover(d)
