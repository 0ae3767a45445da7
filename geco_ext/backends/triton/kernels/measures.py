# ruff: noqa: N803 (constants of a compilation are in capitals, as everywhere in Triton)
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""The sums that constraints are made of, with their gradients in the same pass. A program does a share of an input."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def measure(difference, eps, KIND: tl.constexpr):
    """Of a difference: a value, and its derivative without the constant factor (``with_factor``)."""
    value = difference * difference
    direction = difference
    if KIND == "absolute_error":  # sqrt(d^2 + eps^2) - eps, without the difference of two nearly equal numbers
        root = tl.sqrt(difference * difference + eps * eps)
        value = difference * difference / (root + eps)
        direction = difference / root
    return value, direction


@triton.jit
def with_factor(coefficient, KIND: tl.constexpr):
    """A coefficient times the constant factor of a measure's derivative."""
    if KIND == "squared_error":
        coefficient = 2.0 * coefficient
    return coefficient


@triton.jit
def elementwise(
    prediction,
    target,
    gradient,
    weights,
    layout,
    share,
    programs,
    channel,
    coefficients,
    COMPUTE: tl.constexpr,
    MEASURES: tl.constexpr,
    SLOTS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Sums of measures of x_hat - x over every ``programs``-th tile of a channel.

    ``MEASURES``: (kind, eps) of each; ``coefficients`` of their directions and the sums are vectors of ``SLOTS``. Where
    there is one, a round adds to sums that threads hold for themselves, in the type to compute in: they meet once, at
    the end.
    ``layout``: the number of elements of a channel; the strides of the channels in prediction, target, gradient and
    weights; size and strides of the innermost dimension; then of the others, outermost last. Without weights their
    strides are left out. A weight of zero stands before all that a difference may be.
    """
    elements = layout[0]
    factor = tl.sum(coefficients).to(COMPUTE)
    slot = tl.arange(0, SLOTS)
    totals = tl.zeros((SLOTS,), tl.float64)
    channel = tl.cast(channel, tl.int64)
    prediction += channel * layout[1][0]
    target += channel * layout[1][1]
    if gradient is not None:
        gradient += channel * layout[1][2]
    if weights is not None:
        weights += channel * layout[1][3]
    # Of the places of a tile that one thread holds: 256 threads read 16 bytes each, then the next 16.
    parts: tl.constexpr = (BLOCK * prediction.dtype.element_ty.primitive_bitwidth + 32767) // (256 * 128)
    sums = tl.zeros((BLOCK // parts,), COMPUTE)
    for tile in range(share, tl.cdiv(elements, BLOCK), programs):
        element = tl.cast(tile, tl.int64) * BLOCK + tl.arange(0, BLOCK)
        inside = element < elements
        rest = element
        index = rest
        if len(layout) > 3:
            rest = element // layout[2][0]
            index = element - rest * layout[2][0]
        in_prediction = index * layout[2][1]
        in_target = index * layout[2][2]
        in_gradient = index * layout[2][3]
        in_weights = 0
        if weights is not None:
            in_weights = index * layout[2][4]
        for d in tl.static_range(3, len(layout)):
            index = rest % layout[d][0]
            rest = rest // layout[d][0]
            in_prediction += index * layout[d][1]
            in_target += index * layout[d][2]
            in_gradient += index * layout[d][3]
            if weights is not None:
                in_weights += index * layout[d][4]
        x_hat = tl.load(prediction + in_prediction, mask=inside, other=0.0).to(COMPUTE)
        x = tl.load(target + in_target, mask=inside, other=0.0).to(COMPUTE)
        difference = x_hat - x
        if weights is not None:
            weight = tl.load(weights + in_weights, mask=inside, other=0.0).to(COMPUTE)
            difference = tl.where(weight == 0.0, 0.0, difference)
        if len(MEASURES) == 1:
            value, direction = measure(difference, tl.full((), MEASURES[0][1], COMPUTE), MEASURES[0][0])
            if weights is not None:
                value *= weight
                direction *= weight
            derivative = direction * factor
            sums += tl.sum(tl.reshape(value, (parts, BLOCK // parts)), axis=0)
        else:
            derivative = tl.zeros((BLOCK,), COMPUTE)
            for m in tl.static_range(len(MEASURES)):
                value, direction = measure(difference, tl.full((), MEASURES[m][1], COMPUTE), MEASURES[m][0])
                if weights is not None:
                    value *= weight
                    direction *= weight
                derivative += direction * tl.sum(tl.where(slot == m, coefficients, 0.0)).to(COMPUTE)
                totals += tl.where(slot == m, tl.sum(value).to(tl.float64), 0.0)
        if gradient is not None:
            tl.store(gradient + in_gradient, derivative, mask=inside)
    if len(MEASURES) == 1:
        totals += tl.sum(sums.to(tl.float64))
    return totals


@triton.jit
def mean(prediction, gradient, layout, coefficient, BLOCK: tl.constexpr):
    """Sum of one number per example; its gradient is the same for each. One program. ``layout``: size and strides."""
    total = tl.full((), 0.0, tl.float64)
    for tile in range(0, tl.cdiv(layout[0], BLOCK)):
        index = tl.cast(tile, tl.int64) * BLOCK + tl.arange(0, BLOCK)
        inside = index < layout[0]
        total += tl.sum(tl.load(prediction + index * layout[1], mask=inside, other=0.0).to(tl.float64))
        if gradient is not None:
            tl.store(gradient + index * layout[3], coefficient + tl.zeros((BLOCK,), tl.float64), mask=inside)
    return total


@triton.jit
def sum_of_partials(partials, first, count, BLOCK: tl.constexpr):
    """Partial sums of ``count`` programs added up in a fixed order."""
    sums = tl.zeros((BLOCK,), tl.float64)
    for start in range(0, count, BLOCK):
        at = start + tl.arange(0, BLOCK)
        sums += tl.load(partials + first + at, mask=at < count, other=0.0, cache_modifier=".cg")
    return tl.sum(sums)


@triton.jit
def sums_of_channels(partials, first, programs, channel, inside, ROWS: tl.constexpr, BLOCK: tl.constexpr):
    """The same for a vector of channels, each with ``programs`` programs of its own."""
    sums = tl.zeros((ROWS, BLOCK), tl.float64)
    for start in range(0, programs, BLOCK):
        at = start + tl.arange(0, BLOCK)
        mask = inside[:, None] & (at < programs)[None, :]
        where = first + channel[:, None] * programs + at[None, :]
        sums += tl.load(partials + where, mask=mask, other=0.0, cache_modifier=".cg")
    return tl.sum(sums, axis=1)
