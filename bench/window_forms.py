"""Window statistics as people write them in plain PyTorch: every form gives the same moments, at its own price.

A form takes both images (float32, [B, C, H, W]), the windows that some constraint looks through and whether covariances
are wanted, and returns the moments of each window. What several windows need is computed once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Window(NamedTuple):
    """Through which a constraint looks at the images."""

    patch: int
    stride: int
    per_channel: bool


class Moments(NamedTuple):
    """Of each window: means, variances, covariance where it is wanted."""

    mean_hat: Tensor
    mean: Tensor
    var_hat: Tensor
    var: Tensor
    cov: Tensor | None


Pool = Callable[[Tensor, int, int], Tensor]  # map, patch, stride -> means over windows
MomentsForm = Callable[[Tensor, Tensor, Iterable[Window], bool], dict[Window, Moments]]


def pooled(pool: Pool, together: bool = False) -> MomentsForm:
    """Average over the channels first (unless each counts alone), then over windows.

    ``together``: the maps share one call of ``pool``, those that need a gradient and those that need none.
    """

    def moments(x_hat: Tensor, x: Tensor, windows: Iterable[Window], covariance: bool) -> dict[Window, Moments]:
        per_pixel: dict[bool, list[Tensor]] = {}
        result = {}
        for window in windows:
            if window.per_channel not in per_pixel:
                maps = _products(x_hat, x, covariance)
                per_pixel[window.per_channel] = maps if window.per_channel else [m.mean(1, keepdim=True) for m in maps]
            maps = per_pixel[window.per_channel]
            result[window] = _centred(*_pool_all(maps, pool, window, together))
        return result

    return moments


def channels_one_by_one(x_hat: Tensor, x: Tensor, windows: Iterable[Window], covariance: bool) -> dict[Window, Moments]:
    """Average over windows first, channel by channel, then over the channels: often seen, more work."""
    maps = _products(x_hat, x, covariance)

    def means(window: Window) -> list[Tensor]:
        pools = [square(m, window.patch, window.stride) for m in maps]
        return pools if window.per_channel else [p.mean(1, keepdim=True) for p in pools]

    return {window: _centred(*means(window)) for window in windows}


def unfolded(x_hat: Tensor, x: Tensor, windows: Iterable[Window], covariance: bool) -> dict[Window, Moments]:
    """Every patch copied out, the formula to the letter: patch_size^2 times the memory."""

    def patches(image: Tensor, window: Window) -> Tensor:
        columns = F.unfold(image, window.patch, stride=window.stride)
        groups = image.shape[1] if window.per_channel else 1
        return columns.view(image.shape[0], groups, -1, columns.shape[-1])

    def of(window: Window) -> Moments:
        p_hat, p = patches(x_hat, window), patches(x, window)
        mean_hat, mean = p_hat.mean(2, keepdim=True), p.mean(2, keepdim=True)
        p_hat, p = p_hat - mean_hat, p - mean
        var_hat, var = (p_hat * p_hat).mean(2, keepdim=True), (p * p).mean(2, keepdim=True)
        return Moments(mean_hat, mean, var_hat, var, (p_hat * p).mean(2, keepdim=True) if covariance else None)

    return {window: of(window) for window in windows}


# Means over windows ---------------------------------------------------------------------------------------------------


def square(image: Tensor, patch: int, stride: int) -> Tensor:
    """All of a window at once."""
    return F.avg_pool2d(image, patch, stride)


def rows_then_columns(image: Tensor, patch: int, stride: int) -> Tensor:
    """A window is a column of rows: 2 P additions instead of P^2."""
    return F.avg_pool2d(F.avg_pool2d(image, (1, patch), (1, stride)), (patch, 1), (stride, 1))


def doubling(image: Tensor, patch: int, stride: int) -> Tensor:
    """Windows of 1, 2, 4, ... neighbours, each the sum of two shifted ones; the patch's binary digits add up."""
    for dim in (2, 3):
        starts = image.shape[dim] - patch + 1
        power, length, covered, total = image, 1, 0, None
        while True:
            if patch & length:
                part = power.narrow(dim, covered, starts)
                total = part if total is None else total + part
                covered += length
            if covered == patch:
                break
            pairs = power.shape[dim] - length
            power, length = power.narrow(dim, 0, pairs) + power.narrow(dim, length, pairs), 2 * length
        image = total[:, :, ::stride] if dim == 2 else total[:, :, :, ::stride]
    return image / patch**2


def running_sums(image: Tensor, patch: int, stride: int) -> Tensor:
    """Differences of cumulative sums: few additions, and digits are lost along the way."""
    columns = F.pad(image.cumsum(2), (0, 0, 1, 0))
    image = (columns[:, :, patch:] - columns[:, :, :-patch])[:, :, ::stride]
    rows = F.pad(image.cumsum(3), (1, 0))
    return (rows[..., patch:] - rows[..., :-patch])[..., ::stride] / patch**2


# Helpers --------------------------------------------------------------------------------------------------------------


def _products(x_hat: Tensor, x: Tensor, covariance: bool) -> list[Tensor]:
    """What is averaged over a window: two maps of the target, then those that need a gradient."""
    return [x, x * x, x_hat, x_hat * x_hat, *([x_hat * x] if covariance else [])]


def _pool_all(maps: list[Tensor], pool: Pool, window: Window, together: bool) -> list[Tensor]:
    if not together:
        return [pool(m, window.patch, window.stride) for m in maps]
    return [
        mean
        for group in (maps[:2], maps[2:])
        for mean in pool(torch.cat(group, 1), window.patch, window.stride).chunk(len(group), 1)
    ]


def _centred(
    mean: Tensor, square: Tensor, mean_hat: Tensor, square_hat: Tensor, product: Tensor | None = None
) -> Moments:
    cov = None if product is None else product - mean_hat * mean
    return Moments(mean_hat, mean, square_hat - mean_hat * mean_hat, square - mean * mean, cov)
