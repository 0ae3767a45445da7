# ruff: noqa: N803 (constants of a compilation are in capitals, as everywhere in Triton)
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""Windowed constraints and the elementwise ones of the same images, tile by tile.

A program takes a tile with all it needs: the patches that cover the pixels it owns, and the pixels of these patches.
Nothing but the gradient is written. Images come from memory once, and from the caches where tiles overlap and where
the gradient is made. A tile that holds a whole image has no halo; places around its edge then belong to no patch.
"""

from __future__ import annotations

import triton
import triton.language as tl

from geco_ext.backends.triton.kernels.measures import measure
from geco_ext.backends.triton.kernels.moments import measured, sums_of_cover, too_far, windows

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
    CHANNELS: tl.constexpr,
):
    """Sums over every ``programs``-th tile, one slot for each windowed term, then those of elementwise ones.

    ``layout``: size and strides of batch, channels, rows and columns. ``coefficients``: of the derivative of each
    slot. ``TILE``: (rows, columns) of a tile, of its halo before, of what it owns. ``ERRORS``: first slot of the
    elementwise terms, 1 for one of all channels, 2 for one of each, and the measures, (kind, eps). ``JOINT`` and
    ``SEPARATE``: the geometries of windows over all channels and over each: (patch size, stride, whether any
    has a coefficient of x, terms), a term being (kind, slot, eps). ``CHANNELS``: how many, or 0 where it is
    not compiled for that.
    """
    totals = tl.zeros((SLOTS,), tl.float64)
    if len(JOINT) > 0:
        totals = _tiles(
            prediction, target, gradient, layout, share, programs, 1, layout[1][0], coefficients, totals, COMPUTE, TILE,
            ERRORS[0], ERRORS[1], ERRORS[2], JOINT, CHANNELS, False,
        )  # fmt: skip
    if len(SEPARATE) > 0:
        totals = _tiles(
            prediction, target, gradient, layout, share, programs, layout[1][0], 1, coefficients, totals, COMPUTE, TILE,
            ERRORS[0], ERRORS[1] if len(JOINT) == 0 else 0, ERRORS[2], SEPARATE, 1, len(JOINT) > 0,
        )  # fmt: skip
    tl.store(partials + tl.arange(0, SLOTS) * programs + share, totals)


@triton.jit
def _tiles(
    prediction,
    target,
    gradient,
    layout,
    share,
    programs,
    parts,
    channels,
    coefficients,
    totals,
    COMPUTE: tl.constexpr,
    TILE: tl.constexpr,
    FIRST_ERROR: tl.constexpr,
    ERRORS: tl.constexpr,
    MEASURES: tl.constexpr,
    GEOMETRIES: tl.constexpr,
    CHANNELS: tl.constexpr,
    ADDS: tl.constexpr,
):
    """Of images in so many ``parts`` of ``channels`` each: one of all channels, or each by itself.

    What is near a reference keeps its digits when that is subtracted, here and in the gradient. Mostly one serves a
    tile. Where parts are found that lie too far from it (dark beside bright), what was summed is dropped and the tile
    is gone through twice more, with a reference from that part the second time; each time counts the pixels that are
    nearer to the reference, and the patches that begin there. A patch that holds pixels of both varies as much as they
    differ: either reference serves it.
    """
    down = tl.cdiv(layout[2][0], TILE[2][0])
    across = tl.cdiv(layout[3][0], TILE[2][1])
    number = share
    part = 0
    turn = 0
    second_hat = tl.full((), 0.0, COMPUTE)
    second = tl.full((), 0.0, COMPUTE)
    while number < layout[0][0] * down * across:
        channel = tl.cast(part, tl.int64) * channels
        of_gradient = gradient
        if gradient is not None:
            of_gradient = gradient + channel * layout[1][3]
        totals, turn, second_hat, second = _tile(
            prediction + channel * layout[1][1], target + channel * layout[1][2], of_gradient, layout,
            number // (down * across), number // across % down, number % across, part, channels, turn,
            second_hat, second, coefficients, totals, COMPUTE, TILE, FIRST_ERROR, ERRORS, MEASURES,
            GEOMETRIES, CHANNELS, ADDS,
        )  # fmt: skip
        if turn == 0:
            part += 1
            if part == parts:
                part = 0
                number += programs
    return totals


@triton.jit
def _tile(
    prediction,
    target,
    gradient,
    layout,
    example,
    tile_row,
    tile_column,
    first_channel,
    channels,
    turn,
    second_hat,
    second,
    coefficients,
    totals,
    COMPUTE: tl.constexpr,
    TILE: tl.constexpr,
    FIRST_ERROR: tl.constexpr,
    ERRORS: tl.constexpr,
    MEASURES: tl.constexpr,
    GEOMETRIES: tl.constexpr,
    CHANNELS: tl.constexpr,
    ADDS: tl.constexpr,
):
    """One turn; returns the next one, 0 if the tile is done. Pointers are to the first of the channels."""
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

    usual_hat, usual = _references(prediction, target, layout, example, first_row, first_column, shape, COMPUTE)
    reference_hat = tl.where(turn == 2, second_hat, usual_hat)
    reference = tl.where(turn == 2, second, usual)
    sides = (turn, of_prediction, of_target, layout, inside, usual_hat, usual, second_hat, second)
    mean_hat, mean, var_hat, var, cov = _moments_of_pixels(
        of_prediction, of_target, layout, channels, inside, reference_hat, reference, COMPUTE, CHANNELS
    )
    before = totals
    a = tl.zeros(shape, COMPUTE)
    b = tl.zeros(shape, COMPUTE)
    d = tl.zeros(shape, COMPUTE)
    next_turn = tl.where(turn == 1, 2, 0)
    for g in tl.static_range(len(GEOMETRIES)):
        totals, a, b, d, far_hat, far = _geometry(
            mean_hat, mean, var_hat, var, cov, reference_hat, reference, row, column, height, width, owned,
            coefficients, totals, a, b, d, sides, COMPUTE, shape, GEOMETRIES[g], gradient is not None,
        )  # fmt: skip
        if (turn == 0) & (next_turn == 0) & (far_hat == far_hat):
            second_hat = far_hat
            second = far
            next_turn = 1
    if next_turn == 1:
        totals = before
    elif CHANNELS > 0:
        for channel in tl.static_range(CHANNELS):
            totals = _gradient_and_error(
                of_prediction, of_target, gradient, layout, example, row, column, channel, first_channel, inside,
                owned, reference_hat, reference, a, b, d, coefficients, totals, sides, COMPUTE, FIRST_ERROR, ERRORS,
                MEASURES, ADDS,
            )  # fmt: skip
    else:
        for channel in range(channels):
            totals = _gradient_and_error(
                of_prediction, of_target, gradient, layout, example, row, column, channel, first_channel, inside,
                owned, reference_hat, reference, a, b, d, coefficients, totals, sides, COMPUTE, FIRST_ERROR, ERRORS,
                MEASURES, ADDS,
            )  # fmt: skip
    return totals, next_turn, second_hat, second


@triton.jit
def _gradient_and_error(
    of_prediction,
    of_target,
    gradient,
    layout,
    example,
    row,
    column,
    channel,
    first_channel,
    inside,
    owned,
    reference_hat,
    reference,
    a,
    b,
    d,
    coefficients,
    totals,
    sides,
    COMPUTE: tl.constexpr,
    FIRST_ERROR: tl.constexpr,
    ERRORS: tl.constexpr,
    MEASURES: tl.constexpr,
    ADDS: tl.constexpr,
):
    """Of a channel: writes the gradient (adds it to what is there), returns sums with those of elementwise terms."""
    x_hat = _pixels(of_prediction, layout, channel, inside, 1, COMPUTE)
    x = _pixels(of_target, layout, channel, inside, 2, COMPUTE)
    derivative = (x - reference) * a - (x_hat - reference_hat) * b + d
    if ERRORS > 0:
        slot = tl.arange(0, totals.shape[0])
        for m in tl.static_range(len(MEASURES)):
            which = slot == FIRST_ERROR + m
            if ERRORS == 2:
                which = slot == FIRST_ERROR + m * layout[1][0] + first_channel + channel
            value, direction = measure(x_hat - x, tl.full((), MEASURES[m][1], COMPUTE), MEASURES[m][0])
            values = _counted(tl.where(owned, value, 0.0), sides)
            totals += tl.where(which, tl.sum(values).to(tl.float64), 0.0)
            derivative += direction * tl.sum(tl.where(which, coefficients, 0.0)).to(COMPUTE)
    if gradient is not None:
        at = gradient + _offset(layout, example, row, column, 3) + tl.cast(channel, tl.int64) * layout[1][3]
        derivative = _counted(derivative, sides)
        if ADDS | (sides[0] == 2):
            tl.debug_barrier()  # another thread may have written it
            derivative += tl.load(at, mask=owned, other=0.0)
        tl.store(at, derivative, mask=owned)
    return totals


@triton.jit
def _offset(layout, example, row, column, WHOSE: tl.constexpr):
    """Of the pixels of an example's first channel."""
    of_example = tl.cast(example, tl.int64) * layout[0][WHOSE]
    return of_example + row.to(tl.int64) * layout[2][WHOSE] + column.to(tl.int64) * layout[3][WHOSE]


@triton.jit
def _references(
    prediction, target, layout, example, first_row, first_column, SHAPE: tl.constexpr, COMPUTE: tl.constexpr
):
    """The medians of pixels on the diagonal of a tile, as far as the images go: a few bright ones do not move them."""
    sample = tl.arange(0, SAMPLES)
    top = tl.maximum(first_row, 0)
    left = tl.maximum(first_column, 0)
    row = top + sample * (tl.minimum(layout[2][0], first_row + SHAPE[0]) - top) // SAMPLES
    column = left + sample * (tl.minimum(layout[3][0], first_column + SHAPE[1]) - left) // SAMPLES
    x_hat = tl.load(prediction + _offset(layout, example, row, column, 1)).to(COMPUTE)
    x = tl.load(target + _offset(layout, example, row, column, 2)).to(COMPUTE)
    return _median(x_hat), _median(x)


@triton.jit
def _median(pixels):
    sample = tl.arange(0, SAMPLES)
    before = (pixels[None, :] < pixels[:, None]) | (
        (pixels[None, :] == pixels[:, None]) & (sample[None, :] < sample[:, None])
    )
    rank = tl.sum(before.to(tl.int32), axis=1)
    return tl.sum(tl.where(rank == SAMPLES // 2, pixels, 0.0))


@triton.jit
def _pixels(of_image, layout, channel, inside, WHOSE: tl.constexpr, COMPUTE: tl.constexpr):
    """Of a channel; 0 outside the image."""
    at = of_image + tl.cast(channel, tl.int64) * layout[1][WHOSE]
    return tl.load(at, mask=inside, other=0.0).to(COMPUTE)


@triton.jit
def _moments_of_pixels(
    of_prediction,
    of_target,
    layout,
    channels,
    inside,
    reference_hat,
    reference,
    COMPUTE: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    """Over the channels of each pixel, one merged after the other. Those of a known number are read all at once."""
    mean_hat = _pixels(of_prediction, layout, 0, inside, 1, COMPUTE) - reference_hat
    mean = _pixels(of_target, layout, 0, inside, 2, COMPUTE) - reference
    var_hat = mean_hat * 0.0  # not a number where an image is not finite
    var = mean * 0.0
    cov = var_hat * var
    if CHANNELS > 0:
        for channel in tl.static_range(1, CHANNELS):
            mean_hat, mean, var_hat, var, cov = _with_channel(
                mean_hat, mean, var_hat, var, cov, of_prediction, of_target, layout, channel, inside, reference_hat,
                reference, 1 / (channel + 1), channel / ((channel + 1) * (channel + 1)), COMPUTE,
            )  # fmt: skip
    else:
        for channel in range(1, channels):
            share = tl.full((), 1.0, COMPUTE) / (channel + 1)
            mean_hat, mean, var_hat, var, cov = _with_channel(
                mean_hat, mean, var_hat, var, cov, of_prediction, of_target, layout, channel, inside, reference_hat,
                reference, share, share * (1.0 - share), COMPUTE,
            )  # fmt: skip
    return mean_hat, mean, var_hat, var, cov


@triton.jit
def _with_channel(
    mean_hat,
    mean,
    var_hat,
    var,
    cov,
    of_prediction,
    of_target,
    layout,
    channel,
    inside,
    reference_hat,
    reference,
    share,
    weight,
    COMPUTE: tl.constexpr,
):
    """Moments after one more channel, ``share`` of all so far; ``weight``: share (1 - share)."""
    gap_hat = _pixels(of_prediction, layout, channel, inside, 1, COMPUTE) - reference_hat - mean_hat
    gap = _pixels(of_target, layout, channel, inside, 2, COMPUTE) - reference - mean
    return (
        mean_hat + gap_hat * share,
        mean + gap * share,
        var_hat + (gap_hat * weight * gap_hat - var_hat * share),
        var + (gap * weight * gap - var * share),
        cov + (gap_hat * weight * gap - cov * share),
    )


@triton.jit
def _geometry(
    mean_hat,
    mean,
    var_hat,
    var,
    cov,
    reference_hat,
    reference,
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
    sides,
    COMPUTE: tl.constexpr,
    SHAPE: tl.constexpr,
    GEOMETRY: tl.constexpr,
    WITH_GRADIENT: tl.constexpr,
):
    """Adds the values of the terms of one size and stride, and for each pixel the coefficients of its patches.

    Returns the means of the darkest patch too that lies too far from the references, NaN where there is none.
    """
    size: tl.constexpr = GEOMETRY[0]
    mean_hat, mean, var_hat, var, cov = windows(mean_hat, mean, var_hat, var, cov, size, 1)
    mean_hat, mean, var_hat, var, cov = windows(mean_hat, mean, var_hat, var, cov, size, 0)
    # Patches that the image and the tile hold whole.
    position = (tl.arange(0, SHAPE[0])[:, None] <= SHAPE[0] - size) & (row >= 0) & (row <= height - size)
    position = position & (tl.arange(0, SHAPE[1])[None, :] <= SHAPE[1] - size) & (column >= 0)
    position = position & (column <= width - size)
    if GEOMETRY[1] > 1:
        position = position & (row % GEOMETRY[1] == 0) & (column % GEOMETRY[1] == 0)
    far_hat, far = too_far(mean_hat, mean, var_hat, var, reference_hat, reference, position)
    slot = tl.arange(0, totals.shape[0])
    patch_a = tl.zeros(SHAPE, COMPUTE)
    patch_b = tl.zeros(SHAPE, COMPUTE)
    patch_d = tl.zeros(SHAPE, COMPUTE)
    for t in tl.static_range(len(GEOMETRY[3])):
        which = slot == GEOMETRY[3][t][1]
        factor = tl.sum(tl.where(which, coefficients, 0.0)).to(COMPUTE)
        eps = tl.full((), GEOMETRY[3][t][2], COMPUTE)
        value, term_a, term_b, term_d = measured(
            GEOMETRY[3][t][0], mean_hat, mean, var_hat, var, cov, reference_hat, reference, eps, factor
        )
        patch_a += term_a
        patch_b += term_b
        patch_d += term_d
        values = _counted(tl.where(position & owned, value, 0.0), sides)
        totals += tl.where(which, tl.sum(values).to(tl.float64), 0.0)
    if WITH_GRADIENT:
        if GEOMETRY[2]:
            a += _cover(tl.where(position, patch_a, 0.0), size)
        b += _cover(tl.where(position, patch_b, 0.0), size)
        d += _cover(tl.where(position, patch_d, 0.0), size)
    return totals, a, b, d, far_hat, far


@triton.jit
def _counted(numbers, sides):
    """What counts in this turn: all, or what is nearer to the reference in use than to the other one.

    Pixels are read again, in the rare case, rather than kept.
    """
    turn, of_prediction, of_target, layout, inside, usual_hat, usual, second_hat, second = sides
    if turn > 0:
        x_hat = _pixels(of_prediction, layout, 0, inside, 1, usual.dtype)
        x = _pixels(of_target, layout, 0, inside, 2, usual.dtype)
        to_usual = tl.abs(x_hat - usual_hat) + tl.abs(x - usual)
        to_second = tl.abs(x_hat - second_hat) + tl.abs(x - second)
        numbers = tl.where((to_second < to_usual) == (turn == 2), numbers, 0.0)
    return numbers


@triton.jit
def _cover(coefficients, SIZE: tl.constexpr):
    """Sum over the patches that cover each pixel."""
    return sums_of_cover(sums_of_cover(coefficients, SIZE, 1), SIZE, 0)
