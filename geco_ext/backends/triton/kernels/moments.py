# ruff: noqa: N803 (constants of a compilation are in capitals, as everywhere in Triton)
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""Windows over a tile that a program holds: moments of both images, and sums (``csrc/math/patch.h`` in Triton).

Moments are the means, variances and covariance of both images, in this order. Raw sums of squares would cancel where
a patch is far brighter than it varies, so windows are merged in pairs. Their lengths double: a step needs each number
of the tile and its neighbour some places further, and finds that by ``tl.gather`` along the side. The compiler makes
of it shuffles within a warp, for it lays the side along the lanes; only between the two sides of the tile do numbers
go through shared memory. What could have been instead:

- shifted loads: size^2 of them for each image, and the gradient needs shifted sums of numbers that were never stored;
- products with banded matrices on the tensor cores: exact for sums (values split into three bfloat16 numbers), but a
  window's variance is no sum of products about anything that windows share, and about what a tile shares it cancels.
"""

from __future__ import annotations

import triton
import triton.language as tl

MAX_DIGITS = tl.constexpr(8)  # of a window's length, in binary
FAR_SQUARED = tl.constexpr(512.0**2)  # in variances: of float32's 24 binary digits 15 are left


@triton.jit
def windows(mean_hat, mean, var_hat, var, cov, LENGTH: tl.constexpr, AXIS: tl.constexpr):
    """Moments of the windows of ``LENGTH`` neighbours that begin at each place, around the edge of the tile.

    The binary digits of the length are merged, from the lowest on.
    """
    all_hat, all_, all_var_hat, all_var, all_cov = mean_hat, mean, var_hat, var, cov
    for digit in tl.static_range(MAX_DIGITS):
        if LENGTH & (1 << digit):
            if LENGTH & ((1 << digit) - 1):
                all_hat, all_, all_var_hat, all_var, all_cov = _merged_with_next(
                    all_hat, all_, all_var_hat, all_var, all_cov, mean_hat, mean, var_hat, var, cov,
                    LENGTH & ((1 << digit) - 1), 1 << digit, AXIS,
                )  # fmt: skip
            else:
                all_hat, all_, all_var_hat, all_var, all_cov = mean_hat, mean, var_hat, var, cov
        if (2 << digit) <= LENGTH:
            mean_hat, mean, var_hat, var, cov = _merged_with_next(
                mean_hat, mean, var_hat, var, cov, mean_hat, mean, var_hat, var, cov, 1 << digit, 1 << digit, AXIS
            )
    return all_hat, all_, all_var_hat, all_var, all_cov


@triton.jit
def sums_of_cover(numbers, LENGTH: tl.constexpr, AXIS: tl.constexpr):
    """Sum over the ``LENGTH`` places that end at each place, around the edge of the tile."""
    total = numbers
    for digit in tl.static_range(MAX_DIGITS):
        if LENGTH & (1 << digit):
            if LENGTH & ((1 << digit) - 1):
                total += rolled(numbers, -(LENGTH & ((1 << digit) - 1)), AXIS)
            else:
                total = numbers
        if (2 << digit) <= LENGTH:
            numbers += rolled(numbers, -(1 << digit), AXIS)
    return total


@triton.jit
def rolled(tile, PLACES: tl.constexpr, AXIS: tl.constexpr):
    """What is ``PLACES`` further along a side, around the edge of the tile."""
    place = (tl.arange(0, tile.shape[AXIS]) + PLACES) & (tile.shape[AXIS] - 1)
    return tl.gather(tile, tl.broadcast_to(tl.expand_dims(place, 1 - AXIS), tile.shape), AXIS)


@triton.jit
def _merged_with_next(
    mean_hat,
    mean,
    var_hat,
    var,
    cov,
    next_hat,
    next_,
    next_var_hat,
    next_var,
    next_cov,
    LENGTH: tl.constexpr,
    NEXT: tl.constexpr,
    AXIS: tl.constexpr,
):
    """Windows of ``LENGTH``, each with the one of length ``NEXT`` behind it (Chan, Golub and LeVeque, 1979)."""
    share: tl.constexpr = NEXT / (LENGTH + NEXT)
    weight: tl.constexpr = LENGTH * NEXT / ((LENGTH + NEXT) * (LENGTH + NEXT))
    gap_hat = rolled(next_hat, LENGTH, AXIS) - mean_hat
    gap = rolled(next_, LENGTH, AXIS) - mean
    weighted_hat = gap_hat * weight
    return (
        mean_hat + gap_hat * share,
        mean + gap * share,
        var_hat + (rolled(next_var_hat, LENGTH, AXIS) - var_hat) * share + weighted_hat * gap_hat,
        var + (rolled(next_var, LENGTH, AXIS) - var) * share + gap * weight * gap,
        cov + (rolled(next_cov, LENGTH, AXIS) - cov) * share + weighted_hat * gap,
    )


@triton.jit
def too_far(mean_hat, mean, var_hat, var, reference_hat, reference, position):
    """Means of the darkest patch for which rounding by the distance to the reference counts, or NaN.

    In float32: that is as far as its digits go. Flat patches have none to lose.
    """
    far_hat = reference_hat * float("nan")
    far = far_hat
    if mean.dtype == tl.float32:
        is_far = (mean_hat * mean_hat > var_hat * FAR_SQUARED) & (var_hat > 0.0)
        is_far = is_far | ((mean * mean > var * FAR_SQUARED) & (var > 0.0))
        is_far = is_far & position
        if tl.max(is_far.to(tl.int32)) > 0:
            brightness = tl.where(is_far, tl.abs(mean_hat + reference_hat) + tl.abs(mean + reference), float("inf"))
            is_darkest = brightness == tl.min(brightness)
            far_hat = reference_hat + tl.max(tl.where(is_darkest, mean_hat, float("-inf")))
            far = reference + tl.max(tl.where(is_darkest, mean, float("-inf")))
    return far_hat, far


@triton.jit
def measured(KIND: tl.constexpr, mean_hat, mean, var_hat, var, cov, reference_hat, reference, eps, factor):
    """What a windowed kind measures of each patch, and the coefficients a, b, d of its gradient.

    Means count from the references. ``factor``: what the derivative is multiplied by.
    """
    if KIND == "patch_ncc":
        value, a, b, d = _patch_correlation(mean_hat, mean, var_hat, var, cov, eps, factor)
    elif KIND == "structural_similarity":
        value, a, b, d = _structural_similarity(
            mean_hat, mean, var_hat, var, cov, reference_hat, reference, eps, factor
        )
    else:
        tl.static_assert(KIND == "local_statistics")
        value, a, b, d = _local_statistics(mean_hat, mean, var_hat, var, reference_hat - reference, eps, factor)
    return value, a, b, d


@triton.jit
def _patch_correlation(mean_hat, mean, var_hat, var, cov, eps, factor):
    """psi(x)^T psi(x_hat) = (cov + eps) / sqrt((var_hat + eps) (var + eps))."""
    inverse_hat = tl.rsqrt(var_hat + eps)
    inverse = tl.rsqrt(var + eps)
    correlation = (cov + eps) * inverse_hat * inverse
    # Where an image is flat its coefficient, some 1/eps, multiplies a difference that is zero: it would only round.
    a = tl.where(var == 0.0, 0.0, inverse_hat * factor * inverse)
    b = tl.where(var_hat == 0.0, 0.0, inverse_hat * factor * inverse_hat * correlation)
    # Rounding goes beyond; a NaN is neither above nor below.
    clamped = tl.where(correlation > 1.0, 1.0, tl.where(correlation < -1.0, -1.0, correlation))
    return clamped, a, b, b * mean_hat - a * mean


@triton.jit
def _local_statistics(mean_hat, mean, var_hat, var, reference_gap, eps, factor):
    """[(m_hat - m)^2 + (d_hat - d)^2] / 2 with d = sqrt(var + eps)."""
    inverse_hat = tl.rsqrt(var_hat + eps)
    inverse = tl.rsqrt(var + eps)
    mean_gap = mean_hat - mean + reference_gap
    # d_hat - d without the difference of two roots: nothing is left of it where the variances agree.
    deviation_gap = (var_hat - var) / ((var_hat + eps) * inverse_hat + (var + eps) * inverse)
    b = tl.where(var_hat == 0.0, 0.0, -deviation_gap * inverse_hat * factor)
    value = (mean_gap * mean_gap + deviation_gap * deviation_gap) * 0.5
    return value, tl.zeros_like(b), b, mean_gap * factor + b * mean_hat


@triton.jit
def _structural_similarity(mean_hat, mean, var_hat, var, cov, reference_hat, reference, eps, factor):
    """SSIM with C1 = eps and C2 = 9 eps, each of its two factors counted from 1, which equal images have exactly."""
    mean_gap = mean_hat - mean + (reference_hat - reference)
    true_hat = mean_hat + reference_hat
    true = mean + reference
    relative_gap = mean_gap / (true_hat * true_hat + true * true + eps)
    variances = var_hat + var + eps * 9.0
    luminance = 1.0 - mean_gap * relative_gap
    structure = 1.0 - (var_hat + var - cov * 2.0) / variances
    scaled = luminance / variances * (factor * 2.0)
    a = tl.where(var == 0.0, 0.0, scaled)
    b = tl.where(var_hat == 0.0, 0.0, scaled * structure)
    by_mean = relative_gap * (true_hat * relative_gap - 1.0) * structure * (factor * 2.0)
    value = luminance * structure
    # Rounding goes beyond; a NaN is neither above nor below.
    clamped = tl.where(value > 1.0, 1.0, tl.where(value < -1.0, -1.0, value))
    return clamped, a, b, b * mean_hat - a * mean + by_mean
