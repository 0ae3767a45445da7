# ruff: noqa: N803 (constants of a compilation are in capitals, as everywhere in Triton)
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""Windowed constraints and the squared errors of the same images, tile by tile.

A program takes a tile with all it needs: the patches that cover the pixels it owns, and the pixels of these patches.
Nothing but the gradient is written. Images come from memory once, and from the caches where tiles overlap and where
the gradient is made. A tile that holds a whole image has no halo; places around its edge then belong to no patch.
"""

from __future__ import annotations

import triton
import triton.language as tl

from geco_ext.backends.triton_kernels.moments import local_statistics, patch_correlation, sums_of_cover, windows

SAMPLES = tl.constexpr(32)


@triton.jit
def windowed(
    prediction,
    target,
    gradient,
    layout,
    share,
    programs,
    coefficients,
    partials,
    COMPUTE: tl.constexpr,
    SLOTS: tl.constexpr,
    TILE: tl.constexpr,
    ERRORS: tl.constexpr,
    JOINT: tl.constexpr,
    SEPARATE: tl.constexpr,
):
    """Sums over every ``programs``-th tile, one slot for each windowed term, then those of squared errors.

    ``layout``: size and strides of batch, channels, rows and columns. ``coefficients``: of the derivative of each
    slot. ``TILE``: (rows, columns) of a tile, of its halo before, of what it owns. ``ERRORS``: first slot of the
    squared errors, and 0 where there are none, 1 for one of all channels, 2 for one of each. ``JOINT`` and
    ``SEPARATE``: the geometries of windows over all channels and over each: (patch size, stride, whether any
    correlation, terms), a term being (kind, slot, eps).
    """
    totals = tl.zeros((SLOTS,), tl.float64)
    down = tl.cdiv(layout[2][0], TILE[2][0])
    across = tl.cdiv(layout[3][0], TILE[2][1])
    for tile in range(share, layout[0][0] * down * across, programs):
        totals = _tile(
            prediction, target, gradient, layout, tile // (down * across), tile // across % down, tile % across,
            coefficients, totals, COMPUTE, TILE, ERRORS, JOINT, SEPARATE,
        )  # fmt: skip
    tl.store(partials + tl.arange(0, SLOTS) * programs + share, totals)


@triton.jit
def _tile(
    prediction,
    target,
    gradient,
    layout,
    example,
    tile_row,
    tile_column,
    coefficients,
    totals,
    COMPUTE: tl.constexpr,
    TILE: tl.constexpr,
    ERRORS: tl.constexpr,
    JOINT: tl.constexpr,
    SEPARATE: tl.constexpr,
):
    shape: tl.constexpr = TILE[0]
    height = layout[2][0]
    width = layout[3][0]
    first_row = tile_row * TILE[2][0] - TILE[1][0]
    first_column = tile_column * TILE[2][1] - TILE[1][1]
    in_tile_row = tl.arange(0, shape[0])[:, None]
    in_tile_column = tl.arange(0, shape[1])[None, :]
    row = first_row + in_tile_row
    column = first_column + in_tile_column
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    owned = inside & (in_tile_row >= TILE[1][0]) & (in_tile_row < TILE[1][0] + TILE[2][0])
    owned = owned & (in_tile_column >= TILE[1][1]) & (in_tile_column < TILE[1][1] + TILE[2][1])
    of_prediction = prediction + _offset(layout, example, row, column, 1)
    of_target = target + _offset(layout, example, row, column, 2)
    of_gradient = of_target
    if gradient is not None:
        of_gradient = gradient + _offset(layout, example, row, column, 3)

    a = tl.zeros(shape, COMPUTE)
    b = tl.zeros(shape, COMPUTE)
    d = tl.zeros(shape, COMPUTE)
    reference_hat = tl.full((), 0.0, COMPUTE)
    reference = tl.full((), 0.0, COMPUTE)
    if len(JOINT) > 0:
        # What is subtracted from all channels of an image, here and in the gradient, so that it keeps its digits.
        reference_hat = _reference(prediction, layout, example, 0, first_row, first_column, 1, shape, COMPUTE)
        reference = _reference(target, layout, example, 0, first_row, first_column, 2, shape, COMPUTE)
        mean_hat, mean, var_hat, var, cov = _moments_of_pixels(
            of_prediction, of_target, layout, inside, reference_hat, reference, shape, COMPUTE
        )
        for g in tl.static_range(len(JOINT)):
            totals, a, b, d = _geometry(
                mean_hat, mean, var_hat, var, cov, reference_hat - reference, row, column, height,
                width, owned, coefficients, totals, a, b, d, COMPUTE, shape, JOINT[g], gradient is not None,
            )  # fmt: skip

    slot = tl.arange(0, totals.shape[0])
    for channel in range(layout[1][0]):
        c = tl.cast(channel, tl.int64)
        x_hat = tl.load(of_prediction + c * layout[1][1], mask=inside, other=0.0).to(COMPUTE)
        x = tl.load(of_target + c * layout[1][2], mask=inside, other=0.0).to(COMPUTE)
        derivative = (x - reference) * a - (x_hat - reference_hat) * b + d
        if len(SEPARATE) > 0:
            own_hat = _reference(prediction, layout, example, c, first_row, first_column, 1, shape, COMPUTE)
            own = _reference(target, layout, example, c, first_row, first_column, 2, shape, COMPUTE)
            none = tl.zeros(shape, COMPUTE)
            own_a, own_b, own_d = none, none, none
            for g in tl.static_range(len(SEPARATE)):
                totals, own_a, own_b, own_d = _geometry(
                    x_hat - own_hat, x - own, none, none, none, own_hat - own, row, column, height, width, owned,
                    coefficients, totals, own_a, own_b, own_d, COMPUTE, shape, SEPARATE[g], gradient is not None,
                )  # fmt: skip
            derivative += (x - own) * own_a - (x_hat - own_hat) * own_b + own_d
        if ERRORS[1] > 0:
            error = x_hat - x
            which = slot == ERRORS[0]
            if ERRORS[1] == 2:
                which = slot == ERRORS[0] + channel
            totals += tl.where(which, tl.sum(tl.where(owned, error * error, 0.0)).to(tl.float64), 0.0)
            derivative += error * tl.sum(tl.where(which, coefficients, 0.0)).to(COMPUTE)
        if gradient is not None:
            tl.store(of_gradient + c * layout[1][3], derivative, mask=owned)
    return totals


@triton.jit
def _offset(layout, example, row, column, WHOSE: tl.constexpr):
    """Of the pixels of an example's first channel."""
    of_example = tl.cast(example, tl.int64) * layout[0][WHOSE]
    return of_example + row.to(tl.int64) * layout[2][WHOSE] + column.to(tl.int64) * layout[3][WHOSE]


@triton.jit
def _reference(
    image,
    layout,
    example,
    channel,
    first_row,
    first_column,
    WHOSE: tl.constexpr,
    SHAPE: tl.constexpr,
    COMPUTE: tl.constexpr,
):
    """The median of pixels on the diagonal of a tile, as far as the image goes: a few bright ones do not move it."""
    sample = tl.arange(0, SAMPLES)
    top = tl.maximum(first_row, 0)
    left = tl.maximum(first_column, 0)
    row = top + sample * (tl.minimum(layout[2][0], first_row + SHAPE[0]) - top) // SAMPLES
    column = left + sample * (tl.minimum(layout[3][0], first_column + SHAPE[1]) - left) // SAMPLES
    of_channel = image + tl.cast(channel, tl.int64) * layout[1][WHOSE]
    pixels = tl.load(of_channel + _offset(layout, example, row, column, WHOSE)).to(COMPUTE)
    before = (pixels[None, :] < pixels[:, None]) | (
        (pixels[None, :] == pixels[:, None]) & (sample[None, :] < sample[:, None])
    )
    rank = tl.sum(before.to(tl.int32), axis=1)
    return tl.sum(tl.where(rank == SAMPLES // 2, pixels, 0.0))


@triton.jit
def _moments_of_pixels(
    of_prediction, of_target, layout, inside, reference_hat, reference, SHAPE: tl.constexpr, COMPUTE: tl.constexpr
):
    """Over the channels of each pixel, one merged after the other."""
    mean_hat = tl.zeros(SHAPE, COMPUTE)
    mean = tl.zeros(SHAPE, COMPUTE)
    var_hat = tl.zeros(SHAPE, COMPUTE)
    var = tl.zeros(SHAPE, COMPUTE)
    cov = tl.zeros(SHAPE, COMPUTE)
    for channel in range(layout[1][0]):
        c = tl.cast(channel, tl.int64)
        share = tl.full((), 1.0, COMPUTE) / (channel + 1)
        gap_hat = tl.load(of_prediction + c * layout[1][1], mask=inside, other=0.0).to(COMPUTE)
        gap = tl.load(of_target + c * layout[1][2], mask=inside, other=0.0).to(COMPUTE)
        gap_hat = gap_hat - reference_hat - mean_hat
        gap = gap - reference - mean
        weight = share * (1.0 - share)
        mean_hat += gap_hat * share
        mean += gap * share
        var_hat += weight * gap_hat * gap_hat - var_hat * share
        var += weight * gap * gap - var * share
        cov += weight * gap_hat * gap - cov * share
    return mean_hat, mean, var_hat, var, cov


@triton.jit
def _geometry(
    mean_hat,
    mean,
    var_hat,
    var,
    cov,
    reference_gap,
    row,
    column,
    height,
    width,
    owned,
    coefficients,
    totals,
    a,
    b,
    d,
    COMPUTE: tl.constexpr,
    SHAPE: tl.constexpr,
    GEOMETRY: tl.constexpr,
    WITH_GRADIENT: tl.constexpr,
):
    """Adds the values of the terms of one size and stride, and for each pixel the coefficients of its patches."""
    size: tl.constexpr = GEOMETRY[0]
    mean_hat, mean, var_hat, var, cov = windows(mean_hat, mean, var_hat, var, cov, size, 1)
    mean_hat, mean, var_hat, var, cov = windows(mean_hat, mean, var_hat, var, cov, size, 0)
    # Patches that the image and the tile hold whole.
    position = (tl.arange(0, SHAPE[0])[:, None] <= SHAPE[0] - size) & (row >= 0) & (row <= height - size)
    position = position & (tl.arange(0, SHAPE[1])[None, :] <= SHAPE[1] - size) & (column >= 0)
    position = position & (column <= width - size)
    if GEOMETRY[1] > 1:
        position = position & (row % GEOMETRY[1] == 0) & (column % GEOMETRY[1] == 0)
    slot = tl.arange(0, totals.shape[0])
    patch_a = tl.zeros(SHAPE, COMPUTE)
    patch_b = tl.zeros(SHAPE, COMPUTE)
    patch_d = tl.zeros(SHAPE, COMPUTE)
    for t in tl.static_range(len(GEOMETRY[3])):
        which = slot == GEOMETRY[3][t][1]
        factor = tl.sum(tl.where(which, coefficients, 0.0)).to(COMPUTE)
        eps = tl.full((), GEOMETRY[3][t][2], COMPUTE)
        if GEOMETRY[3][t][0] == "patch_ncc":
            value, term_a, term_b, term_d = patch_correlation(mean_hat, mean, var_hat, var, cov, eps, factor)
            patch_a += term_a
        else:
            value, term_b, term_d = local_statistics(mean_hat, mean, var_hat, var, reference_gap, eps, factor)
        patch_b += term_b
        patch_d += term_d
        totals += tl.where(which, tl.sum(tl.where(position & owned, value, 0.0)).to(tl.float64), 0.0)
    if WITH_GRADIENT:
        if GEOMETRY[2]:
            a += _cover(tl.where(position, patch_a, 0.0), size)
        b += _cover(tl.where(position, patch_b, 0.0), size)
        d += _cover(tl.where(position, patch_d, 0.0), size)
    return totals, a, b, d


@triton.jit
def _cover(coefficients, SIZE: tl.constexpr):
    """Sum over the patches that cover each pixel."""
    return sums_of_cover(sums_of_cover(coefficients, SIZE, 1), SIZE, 0)
