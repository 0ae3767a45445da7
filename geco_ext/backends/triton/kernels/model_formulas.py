# ruff: noqa: N806 (constants of a compilation are in capitals, as everywhere in Triton)
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""What the model kernels compute for each number, once for float32 and float64.

Exponentials are made here, as e^x = 2^n e^r with |r| <= log(2) / 2: Triton's own are off by some |x| / 10^7 in float32,
and e^x - 1 by subtraction has no digits left where x is small.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _parts(x):
    """2^n, and p and q of e^x = 2^n (1 + p), p = r + r^2 q. Beyond all numbers of the type: infinity and zero."""
    DOUBLE: tl.constexpr = x.dtype == tl.float64
    LARGEST: tl.constexpr = 710.0 if DOUBLE else 89.0
    LEAST: tl.constexpr = -746.0 if DOUBLE else -104.0
    MAX_EXPONENT: tl.constexpr = 1023.0 if DOUBLE else 127.0
    # log(2) in two parts: n times the first is exact.
    LOG_2: tl.constexpr = 6.93147180369123816490e-01 if DOUBLE else 0.693359375
    REST_OF_LOG_2: tl.constexpr = 1.90821492927058770002e-10 if DOUBLE else -2.12194440054690583e-4
    DEGREE: tl.constexpr = 14 if DOUBLE else 8
    x = tl.where(x > LARGEST, LARGEST, tl.where(x < LEAST, LEAST, x))  # a NaN stays
    n = tl.floor(x * 1.44269504088896340736 + 0.5)
    n = tl.where(n > MAX_EXPONENT, MAX_EXPONENT, n)
    r = (x - n * LOG_2) - n * REST_OF_LOG_2
    q = tl.full(x.shape, 1.0, x.dtype)
    for k in tl.static_range(DEGREE, 2, -1):
        q = 1.0 + r * (1.0 / k) * q
    q = 0.5 * q
    return tl.exp2(n), r + r * r * q, r * r * q


@triton.jit
def exponential(x):
    """e^x."""
    scale, p, _ = _parts(x)
    return scale + scale * p


@triton.jit
def exponential_minus_one(x):
    """e^x - 1, to all digits also where it is small."""
    scale, p, _ = _parts(x)
    return scale * p + (scale - 1.0)


@triton.jit
def excess(x):
    """e^x - 1 - x, never negative, and to all digits also where it is small."""
    scale, p, beyond_linear = _parts(x)
    return tl.where(scale == 1.0, beyond_linear, scale * p + (scale - 1.0) - x)


@triton.jit
def sigmoid(x):
    """1 / (1 + e^-x), and its derivative."""
    small = tl.exp(-tl.abs(x))
    larger = 1.0 / (1.0 + small)  # of sigmoid(x) and sigmoid(-x)
    smaller = small * larger
    return tl.where(x < 0.0, smaller, larger), smaller * larger


@triton.jit
def tanh(x):
    """The hyperbolic tangent, and its derivative."""
    scale, p, _ = _parts(-2.0 * tl.abs(x))
    small = scale + scale * p
    inverse = 1.0 / (1.0 + small)
    magnitude = -(scale * p + (scale - 1.0)) * inverse
    return tl.where(x < 0.0, -magnitude, magnitude), 4.0 * small * inverse * inverse


@triton.jit
def compared(q_mean, q_log_std, p_mean, p_log_std):
    """Log-ratio of the standard deviations of posterior and prior, distance of the means, and 1 / the prior's.

    Distances are in standard deviations of the prior.
    """
    precision = exponential(-p_log_std)
    return q_log_std - p_log_std, (q_mean - p_mean) * precision, precision
