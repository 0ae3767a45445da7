"""Windowed statistics in plain PyTorch: means, variances and covariances over every patch of an image.

A patch constraint is a function of these statistics. Its gradient needs three coefficients A, B, D per patch and is

    grad[j] = x[j] * box(A)[j] - x_hat[j] * box(B)[j] + box(D)[j],

where ``box`` sums over the patches that cover pixel j.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class _Moments(NamedTuple):
    """Of windows of so many ``numbers`` of both images: means, sums of squares about them, sum of co-moments.

    Raw sums of squares would cancel where a window is far brighter than it varies.
    """

    mean_hat: Tensor
    mean: Tensor
    m2_hat: Tensor
    m2: Tensor
    co: Tensor
    numbers: int

    @property
    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """All but how many."""
        return self.mean_hat, self.mean, self.m2_hat, self.m2, self.co

    def along(self, dim: int, first: int, length: int) -> _Moments:
        """The windows that start at ``length`` neighbouring positions."""
        mean_hat, mean, m2_hat, m2, co = (t.narrow(dim, first, length) for t in self.tensors)
        return _Moments(mean_hat, mean, m2_hat, m2, co, self.numbers)

    def merged(self, other: _Moments) -> _Moments:
        """Windows of both together (the pairwise merge of Chan, Golub and LeVeque)."""
        numbers = self.numbers + other.numbers
        gap_hat, gap = other.mean_hat - self.mean_hat, other.mean - self.mean
        share, weight = other.numbers / numbers, self.numbers * other.numbers / numbers
        return _Moments(
            self.mean_hat + share * gap_hat,
            self.mean + share * gap,
            self.m2_hat + other.m2_hat + weight * gap_hat**2,
            self.m2 + other.m2 + weight * gap**2,
            self.co + other.co + weight * gap_hat * gap,
            numbers,
        )


def _windows(moments: _Moments, length: int, dim: int) -> _Moments:
    """Windows of ``length`` neighbours along a side, by doubling: the binary digits of the length are merged."""
    starts = moments.mean.shape[dim] - length + 1
    power, power_length = moments, 1
    result, covered = None, 0
    while True:
        if length & power_length:
            part = power.along(dim, covered, starts)
            result = part if result is None else result.merged(part)
            covered += power_length
        if covered == length:
            assert result is not None
            return result
        pairs = power.mean.shape[dim] - power_length
        power = power.along(dim, 0, pairs).merged(power.along(dim, power_length, pairs))
        power_length *= 2


class _Statistics(NamedTuple):
    """Per patch, [B, G, h, w] (G: 1, or the channels): means, variances and covariance of both images."""

    mean_hat: Tensor
    mean: Tensor
    var_hat: Tensor
    var: Tensor
    cov: Tensor


def _statistics(x_hat: Tensor, x: Tensor, patch: int, stride: int, per_channel: bool) -> _Statistics:
    """Over each patch's pixels, of all channels jointly or of each."""
    if per_channel:
        nothing = torch.zeros_like(x)
        pixels = _Moments(x_hat, x, nothing, nothing, nothing, 1)
    else:
        mean_hat, mean = x_hat.mean(1, keepdim=True), x.mean(1, keepdim=True)
        rest_hat, rest = x_hat - mean_hat, x - mean
        m2_hat, m2, co = (
            (a * b).sum(1, keepdim=True) for a, b in ((rest_hat, rest_hat), (rest, rest), (rest_hat, rest))
        )
        pixels = _Moments(mean_hat, mean, m2_hat, m2, co, x.shape[1])
    patches = _windows(_windows(pixels, patch, 2), patch, 3)
    stride = _within(x.shape, stride)
    kept = [t[:, :, ::stride, ::stride] for t in patches.tensors]
    return _Statistics(kept[0], kept[1], *(t / patches.numbers for t in kept[2:]))


def _within(shape: torch.Size, stride: int) -> int:
    """The stride, as far as it matters: beyond the image there is one position, and slices take 64 bits only."""
    return min(stride, max(shape[-2:]))


def _cover_sum(coefficients: Tensor, shape: torch.Size, patch: int, stride: int) -> Tensor:
    """For each pixel the sum of the coefficients of the patches that cover it."""
    height, width = shape[-2:]
    stride = _within(shape, stride)
    dense = coefficients.new_zeros(*coefficients.shape[:2], height - patch + 1, width - patch + 1)
    dense[:, :, ::stride, ::stride] = coefficients
    padded = F.pad(dense, (patch - 1,) * 4)
    rows = F.avg_pool2d(padded, (patch, 1), 1)
    return F.avg_pool2d(rows, (1, patch), 1) * (patch * patch)


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
    weight = 1.0 / (_numbers(x, patch, per_channel) * inner.numel())
    a = weight * torch.rsqrt(var_hat * var)
    b = weight * inner / var_hat
    d = b * s.mean_hat - a * s.mean
    return inner.clamp(-1.0, 1.0).mean(), _gradient(x_hat, x, a, b, d, patch, stride)  # rounding goes beyond


def local_statistics(
    x_hat: Tensor, x: Tensor, patch: int, stride: int, eps: float, per_channel: bool
) -> tuple[Tensor, Tensor]:
    """Mean over batch and positions of [(m_hat - m)^2 + (d_hat - d)^2] / 2, and its derivative by x_hat."""
    reference = x.mean((1, 2, 3), keepdim=True)  # the same for both images: their means are compared
    x_hat, x = x_hat - reference, x - reference
    s = _statistics(x_hat, x, patch, stride, per_channel)
    deviation_hat, deviation = (s.var_hat + eps).sqrt(), (s.var + eps).sqrt()
    mean_gap, deviation_gap = s.mean_hat - s.mean, deviation_hat - deviation
    weight = 1.0 / (_numbers(x, patch, per_channel) * mean_gap.numel())
    b = -weight * deviation_gap / deviation_hat
    d = weight * mean_gap + b * s.mean_hat
    value = 0.5 * (mean_gap**2 + deviation_gap**2).mean()
    return value, _gradient(x_hat, x, torch.zeros_like(b), b, d, patch, stride)


def structural_similarity(
    x_hat: Tensor, x: Tensor, patch: int, stride: int, eps: float, per_channel: bool
) -> tuple[Tensor, Tensor]:
    """Mean over batch and positions of SSIM with C1 = eps and C2 = 9 eps, and its derivative by x_hat.

    SSIM = (2 m_hat m + C1) / (m_hat^2 + m^2 + C1) * (2 cov + C2) / (var_hat + var + C2).
    """
    reference = x.mean((1, 2, 3), keepdim=True)
    x_hat, x = x_hat - reference, x - reference
    s = _statistics(x_hat, x, patch, stride, per_channel)
    mean_hat, mean, mean_gap = s.mean_hat + reference, s.mean + reference, s.mean_hat - s.mean
    # Both factors count from 1, which equal images then have exactly.
    relative_gap = mean_gap / (mean_hat**2 + mean**2 + eps)
    of_variances = 1 / (s.var_hat + s.var + 9 * eps)
    luminance = 1 - mean_gap * relative_gap
    structure = 1 - (s.var_hat + s.var - 2 * s.cov) * of_variances
    weight = 2.0 / (_numbers(x, patch, per_channel) * structure.numel())
    a = weight * luminance * of_variances
    b = a * structure
    by_mean = weight * structure * relative_gap * (mean_hat * relative_gap - 1)
    d = b * s.mean_hat - a * s.mean + by_mean
    value = (luminance * structure).clamp(-1.0, 1.0).mean()  # rounding goes beyond
    return value, _gradient(x_hat, x, a, b, d, patch, stride)


MEASURES: dict[str, Callable[[Tensor, Tensor, int, int, float, bool], tuple[Tensor, Tensor]]] = {
    "patch_ncc": patch_ncc,
    "local_statistics": local_statistics,
    "structural_similarity": structural_similarity,
}
"""What each windowed kind of constraint measures."""


def _numbers(x: Tensor, patch: int, per_channel: bool) -> int:
    """That the statistics of a patch are taken over."""
    return (1 if per_channel else x.shape[1]) * patch * patch


def _gradient(x_hat: Tensor, x: Tensor, a: Tensor, b: Tensor, d: Tensor, patch: int, stride: int) -> Tensor:
    def cover(coefficients: Tensor) -> Tensor:
        return _cover_sum(coefficients, x.shape, patch, stride)

    return x * cover(a) - x_hat * cover(b) + cover(d)
