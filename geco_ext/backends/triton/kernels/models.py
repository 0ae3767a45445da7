# ruff: noqa: N803 (constants of a compilation are in capitals, as everywhere in Triton)
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""The model kernels. A program works on several small examples, or on a share of the tiles of a large one.

An operand is (tensor, stride of examples, stride of rows), see `layout`; ``work`` is (examples, numbers of an example,
numbers of a row, programs of an example). Where ``BY_ROW`` is false, all numbers of an example lie one after the other.
"""

from __future__ import annotations

import triton
import triton.language as tl

from geco_ext.backends.triton.kernels.model_formulas import (
    compared,
    excess,
    exponential,
    exponential_minus_one,
    sigmoid,
    tanh,
)


@triton.jit
def _examples(work, EXAMPLES: tl.constexpr):
    """The examples of this program, and which share of them it does."""
    program = tl.program_id(0)
    first = tl.cast(program // work[3], tl.int64) * EXAMPLES
    return (first + tl.arange(0, EXAMPLES))[:, None], program % work[3]


@triton.jit
def _place(work, example, tile, INDEX: tl.constexpr, BY_ROW: tl.constexpr, BLOCK: tl.constexpr):
    """Example, row, column of the numbers of a tile, and which of them there are."""
    number = (tl.cast(tile, INDEX) * BLOCK + tl.arange(0, BLOCK))[None, :]
    inside = (example < work[0]) & (number < work[1])
    row = number
    column = number
    if BY_ROW:
        row = number // work[2]
        column = number - row * work[2]
    return example, row.to(tl.int64), column, inside


@triton.jit
def _address(operand, place, BY_ROW: tl.constexpr):
    address = operand[0] + (place[0] * operand[1] + place[2])
    if BY_ROW:
        address = operand[0] + (place[0] * operand[1] + (place[1] * operand[2] + place[2]))
    return address


@triton.jit
def _read(operand, place, COMPUTE: tl.constexpr, BY_ROW: tl.constexpr):
    return tl.load(_address(operand, place, BY_ROW), mask=place[3], other=0.0).to(COMPUTE)


@triton.jit
def _write(operand, place, value, BY_ROW: tl.constexpr):
    tl.store(_address(operand, place, BY_ROW), value.to(operand[0].dtype.element_ty), mask=place[3])


@triton.jit
def _gate(gates, k: tl.constexpr, work):
    """The four gates of a row lie one after the other, each as long as a row of the cell."""
    return gates[0] + tl.cast(work[2], tl.int64) * k, gates[1], gates[2]


@triton.jit
def _of_example(gradient, example, work, COMPUTE: tl.constexpr):
    """The gradient of a sum: (tensor, stride); zero where there is none."""
    value = tl.zeros_like(example).to(COMPUTE)
    if gradient is not None:
        value = tl.load(gradient[0] + example * gradient[1], mask=example < work[0], other=0.0).to(COMPUTE)
    return value


@triton.jit
def _write_sums(sums, example, share, work, total):
    """Of examples, or of their shares."""
    tl.store(sums + example * work[3] + share, total[:, None].to(sums.dtype.element_ty), mask=example < work[0])


@triton.jit
def gaussian_kernel(
    q_mean, q_log_std, p_mean, p_log_std, noise, z, sums, work,
    COMPUTE: tl.constexpr, INDEX: tl.constexpr, BY_ROW: tl.constexpr, EXAMPLES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Sample, and KL."""
    example, share = _examples(work, EXAMPLES)
    total = tl.zeros((EXAMPLES,), tl.float64)
    for tile in range(share, tl.cdiv(work[1], BLOCK), work[3]):
        place = _place(work, example, tile, INDEX, BY_ROW, BLOCK)
        mean = _read(q_mean, place, COMPUTE, BY_ROW)
        log_std = _read(q_log_std, place, COMPUTE, BY_ROW)
        sample = mean + exponential(log_std) * _read(noise, place, COMPUTE, BY_ROW)
        log_ratio = log_std
        distance = mean
        if p_mean is not None:
            of_prior = _read(p_log_std, place, COMPUTE, BY_ROW)
            log_ratio, distance, _ = compared(mean, log_std, _read(p_mean, place, COMPUTE, BY_ROW), of_prior)
        _write(z, place, sample, BY_ROW)
        kl = 0.5 * (excess(2.0 * log_ratio) + distance * distance)
        total += tl.sum(kl, axis=1).to(tl.float64)
    _write_sums(sums, example, share, work, total)


@triton.jit
def gaussian_backward_kernel(
    grad_z, grad_kl, q_mean, q_log_std, p_mean, p_log_std, noise,
    by_q_mean, by_q_log_std, by_p_mean, by_p_log_std, work,
    COMPUTE: tl.constexpr, INDEX: tl.constexpr, BY_ROW: tl.constexpr, EXAMPLES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Gradients by the posterior, and by the prior where there is one."""
    example, share = _examples(work, EXAMPLES)
    of_kl = _of_example(grad_kl, example, work, COMPUTE)
    for tile in range(share, tl.cdiv(work[1], BLOCK), work[3]):
        place = _place(work, example, tile, INDEX, BY_ROW, BLOCK)
        mean = _read(q_mean, place, COMPUTE, BY_ROW)
        log_std = _read(q_log_std, place, COMPUTE, BY_ROW)
        log_ratio = log_std
        distance = mean
        by_mean = of_kl * mean
        if p_mean is not None:
            of_prior = _read(p_log_std, place, COMPUTE, BY_ROW)
            log_ratio, distance, precision = compared(mean, log_std, _read(p_mean, place, COMPUTE, BY_ROW), of_prior)
            by_mean = of_kl * (distance * precision)
        by_log_std = of_kl * exponential_minus_one(2.0 * log_ratio)
        if p_mean is not None:
            _write(by_p_mean, place, -by_mean, BY_ROW)
            _write(by_p_log_std, place, -by_log_std - of_kl * (distance * distance), BY_ROW)
        if grad_z is not None:
            of_z = _read(grad_z, place, COMPUTE, BY_ROW)
            by_mean += of_z
            by_log_std += of_z * (exponential(log_std) * _read(noise, place, COMPUTE, BY_ROW))
        _write(by_q_mean, place, by_mean, BY_ROW)
        _write(by_q_log_std, place, by_log_std, BY_ROW)


@triton.jit
def gates_kernel(
    gates, cell, hidden, new_cell, work,
    COMPUTE: tl.constexpr, INDEX: tl.constexpr, BY_ROW: tl.constexpr, EXAMPLES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The new cell, and what comes out of it."""
    example, share = _examples(work, EXAMPLES)
    for tile in range(share, tl.cdiv(work[1], BLOCK), work[3]):
        place = _place(work, example, tile, INDEX, BY_ROW, BLOCK)
        in_gate, _ = sigmoid(_read(_gate(gates, 0, work), place, COMPUTE, BY_ROW))
        forget_gate, _ = sigmoid(_read(_gate(gates, 1, work), place, COMPUTE, BY_ROW))
        candidate, _ = tanh(_read(_gate(gates, 2, work), place, COMPUTE, BY_ROW))
        out_gate, _ = sigmoid(_read(_gate(gates, 3, work), place, COMPUTE, BY_ROW))
        now = forget_gate * _read(cell, place, COMPUTE, BY_ROW) + in_gate * candidate
        squashed, _ = tanh(now)
        _write(hidden, place, out_gate * squashed, BY_ROW)
        _write(new_cell, place, now, BY_ROW)


@triton.jit
def gates_backward_kernel(
    grad_hidden, grad_cell, gates, cell, by_gates, by_cell, work,
    COMPUTE: tl.constexpr, INDEX: tl.constexpr, BY_ROW: tl.constexpr, EXAMPLES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Gradients by the gates and by the cell before."""
    example, share = _examples(work, EXAMPLES)
    for tile in range(share, tl.cdiv(work[1], BLOCK), work[3]):
        place = _place(work, example, tile, INDEX, BY_ROW, BLOCK)
        in_gate, in_slope = sigmoid(_read(_gate(gates, 0, work), place, COMPUTE, BY_ROW))
        forget_gate, forget_slope = sigmoid(_read(_gate(gates, 1, work), place, COMPUTE, BY_ROW))
        candidate, candidate_slope = tanh(_read(_gate(gates, 2, work), place, COMPUTE, BY_ROW))
        out_gate, out_slope = sigmoid(_read(_gate(gates, 3, work), place, COMPUTE, BY_ROW))
        before = _read(cell, place, COMPUTE, BY_ROW)
        squashed, squashed_slope = tanh(forget_gate * before + in_gate * candidate)
        of_cell = tl.zeros_like(before)
        by_out = tl.zeros_like(before)
        if grad_cell is not None:
            of_cell = _read(grad_cell, place, COMPUTE, BY_ROW)
        if grad_hidden is not None:
            of_hidden = _read(grad_hidden, place, COMPUTE, BY_ROW)
            of_cell += of_hidden * (out_gate * squashed_slope)
            by_out = of_hidden * squashed * out_slope
        _write(_gate(by_gates, 0, work), place, of_cell * candidate * in_slope, BY_ROW)
        _write(_gate(by_gates, 1, work), place, of_cell * before * forget_slope, BY_ROW)
        _write(_gate(by_gates, 2, work), place, of_cell * in_gate * candidate_slope, BY_ROW)
        _write(_gate(by_gates, 3, work), place, by_out, BY_ROW)
        _write(by_cell, place, of_cell * forget_gate, BY_ROW)


@triton.jit
def coupling_kernel(
    x, log_scale, shift, y, INVERSE: tl.constexpr, sums, work,
    COMPUTE: tl.constexpr, INDEX: tl.constexpr, BY_ROW: tl.constexpr, EXAMPLES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The transformed x, and the log-determinant (Dinh et al. 2016, equations 7 and 8)."""
    example, share = _examples(work, EXAMPLES)
    total = tl.zeros((EXAMPLES,), tl.float64)
    for tile in range(share, tl.cdiv(work[1], BLOCK), work[3]):
        place = _place(work, example, tile, INDEX, BY_ROW, BLOCK)
        value = _read(x, place, COMPUTE, BY_ROW)
        logarithm = _read(log_scale, place, COMPUTE, BY_ROW)
        moved = _read(shift, place, COMPUTE, BY_ROW)
        if INVERSE:
            logarithm = -logarithm
            result = (value - moved) * exponential(logarithm)
        else:
            result = value * exponential(logarithm) + moved
        _write(y, place, result, BY_ROW)
        total += tl.sum(logarithm, axis=1).to(tl.float64)
    _write_sums(sums, example, share, work, total)


@triton.jit
def coupling_backward_kernel(
    grad_y, grad_log_det, value, log_scale, by_x, by_log_scale, by_shift, INVERSE: tl.constexpr, work,
    COMPUTE: tl.constexpr, INDEX: tl.constexpr, BY_ROW: tl.constexpr, EXAMPLES: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Gradients by x and log_scale, of the inverse by shift too; ``value`` is x, or what came out of the inverse."""
    example, share = _examples(work, EXAMPLES)
    of_log_det = _of_example(grad_log_det, example, work, COMPUTE)
    for tile in range(share, tl.cdiv(work[1], BLOCK), work[3]):
        place = _place(work, example, tile, INDEX, BY_ROW, BLOCK)
        of_x = tl.zeros((EXAMPLES, BLOCK), COMPUTE)
        of_logarithm = of_x + of_log_det
        if grad_y is not None:
            of_y = _read(grad_y, place, COMPUTE, BY_ROW)
            given = _read(value, place, COMPUTE, BY_ROW)
            logarithm = _read(log_scale, place, COMPUTE, BY_ROW)
            if INVERSE:
                of_x = of_y * exponential(-logarithm)
                of_logarithm += of_y * given
            else:
                of_x = of_y * exponential(logarithm)
                of_logarithm += of_x * given
        if INVERSE:
            of_logarithm = -of_logarithm
        _write(by_x, place, of_x, BY_ROW)
        _write(by_log_scale, place, of_logarithm, BY_ROW)
        if INVERSE:
            _write(by_shift, place, -of_x, BY_ROW)


@triton.jit
def sum_of_shares_kernel(partials, sums, shares, BLOCK: tl.constexpr):
    """What the programs of an example have found, added up in a fixed order. A program does one example."""
    example = tl.cast(tl.program_id(0), tl.int64)
    total = tl.zeros((BLOCK,), tl.float64)
    for first in range(0, shares, BLOCK):
        share = first + tl.arange(0, BLOCK)
        total += tl.load(partials + example * shares + share, mask=share < shares, other=0.0)
    tl.store(sums + example, tl.sum(total).to(sums.dtype.element_ty))
