# ruff: noqa: N803 (constants of a compilation are in capitals, as everywhere in Triton)
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""The whole operator in one launch: constraint vector, gradients, moving average, multiplier update, loss."""

from __future__ import annotations

import triton
import triton.language as tl

from geco_ext.backends.triton.kernels.measures import (
    elementwise,
    mean,
    sum_of_partials,
    sums_of_channels,
    with_factor,
)
from geco_ext.backends.triton.kernels.state import (
    KAPPA,
    KAPPA_ITSELF,
    KAPPA_SQUARED,
    ONE_MINUS_KAPPA,
    advance,
    float64,
    log_multiplier,
)
from geco_ext.backends.triton.kernels.windows import windowed


@triton.jit
def lagrangian_kernel(
    predictions,
    targets,
    gradients,
    weights,
    layouts,
    first_programs,
    programs,
    compared,
    per_example,
    block,
    counters,
    finished,
    partials,
    sums,
    loss,
    batch,
    ITEMS: tl.constexpr,
    TERMS: tl.constexpr,
    CONSTRAINTS: tl.constexpr,
    ROWS: tl.constexpr,
    UPDATE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Programs take shares of the items, in turn; the last one to finish adds up, moves the state and writes the loss.

    ``ITEMS[i]``: (kind, reading terms, setting); kl, if there is one, is the last and belongs to no term. A setting
    is (the type to compute in, measures, slots for them), the constants of ``windowed``, or None.
    ``TERMS[t]``: (kind, first row, rows, rule of the scale, whether a mean that weights have not divided, its items,
    slots). The last is the first slot of a term in the sums of its items, of how many it is the sum, whether it is
    elementwise and, of a windowed term, (patch size, stride, whether of each channel), or None. Items with several
    slots leave their sums behind those of all programs.
    ``finished`` counts the programs that have handed in their sums; it is zero between launches.
    ``compared[t]``: the numbers of an example that a term compares. ``per_example[i]``: those of an input.
    """
    program = tl.program_id(0)
    total = tl.full((), 0.0, tl.float64)
    for i in tl.static_range(len(ITEMS)):
        # An item of several channels has as many programs for each.
        if (program >= first_programs[i]) & (program < first_programs[i + 1]):
            share = (program - first_programs[i]) % programs[i]
            channel = (program - first_programs[i]) // programs[i]
            if ITEMS[i][0] == "elementwise":
                coefficients = tl.zeros((ITEMS[i][2][2],), tl.float64)
                if gradients[i] is not None:
                    coefficients = _coefficients_of_measures(
                        block, channel, compared, per_example, batch, i, ITEMS, TERMS, CONSTRAINTS
                    )
                found = elementwise(
                    predictions[i], targets[i], gradients[i], weights[i], layouts[i], share, programs[i], channel,
                    coefficients, ITEMS[i][2][0], ITEMS[i][2][1], ITEMS[i][2][2], BLOCK,
                )  # fmt: skip
                if len(ITEMS[i][2][1]) == 1:
                    total = tl.sum(found)
                else:
                    slot = tl.arange(0, ITEMS[i][2][2])
                    at = first_programs[len(ITEMS)] + slot * (first_programs[i + 1] - first_programs[i])
                    tl.store(partials + at + program - first_programs[i], found, mask=slot < len(ITEMS[i][2][1]))
            elif ITEMS[i][0] == "windowed":
                coefficients = _coefficients_of_slots(
                    block, layouts[i], compared, per_example, batch, i, ITEMS, TERMS, CONSTRAINTS
                )
                windowed(
                    predictions[i], targets[i], gradients[i], layouts[i], share, programs[i], coefficients,
                    partials + first_programs[len(ITEMS)], ITEMS[i][2][0], ITEMS[i][2][1], ITEMS[i][2][2],
                    ITEMS[i][2][3], ITEMS[i][2][4], ITEMS[i][2][5], ITEMS[i][2][6],
                )  # fmt: skip
            else:
                coefficient = tl.full((), 0.0, tl.float64)
                if gradients[i] is not None:
                    coefficient = _coefficient_of_mean(
                        block, channel, compared, per_example, batch, i, ITEMS, TERMS, CONSTRAINTS
                    )
                total = mean(predictions[i], gradients[i], layouts[i], coefficient, 256)
    tl.store(partials + program, total)
    tl.debug_barrier()  # the thread that takes the ticket answers for what all others have written
    ticket = tl.atomic_add(finished, 1, sem="acq_rel")
    if ticket == tl.num_programs(0) - 1:
        tl.store(finished, tl.full((), 0, tl.int64))
        _finish(
            first_programs, programs, compared, per_example, layouts, block, counters, partials, sums, loss, batch,
            ITEMS, TERMS, CONSTRAINTS, ROWS, UPDATE,
        )  # fmt: skip


@triton.jit
def _weight(per_example, term: tl.constexpr):
    """Of one measured difference in the term's constraint, before the mean over the batch."""
    weight = float64(1.0)
    if term[4]:
        weight = float64(term[2]) / (float64(len(term[5])) * per_example)
    return weight


@triton.jit
def _coefficients_of_measures(
    block,
    channel,
    compared,
    per_example,
    batch,
    i: tl.constexpr,
    ITEMS: tl.constexpr,
    TERMS: tl.constexpr,
    CONSTRAINTS: tl.constexpr,
):
    """What the direction of each measure is multiplied by: the coefficients of all terms that share it add up."""
    slot = tl.arange(0, ITEMS[i][2][2])
    coefficients = tl.zeros((ITEMS[i][2][2],), tl.float64)
    for reader in tl.static_range(len(ITEMS[i][1])):
        coefficient = _coefficient_of_term(
            block, channel, compared[ITEMS[i][1][reader]], per_example[i], batch, TERMS[ITEMS[i][1][reader]],
            CONSTRAINTS,
        )  # fmt: skip
        coefficients += tl.where(slot == TERMS[ITEMS[i][1][reader]][6][0], coefficient, 0.0)
    return coefficients


@triton.jit
def _coefficient_of_mean(
    block,
    channel,
    compared,
    per_example,
    batch,
    i: tl.constexpr,
    ITEMS: tl.constexpr,
    TERMS: tl.constexpr,
    CONSTRAINTS: tl.constexpr,
):
    """What the derivative of a mean is multiplied by."""
    coefficient = tl.full((), 0.0, tl.float64)
    for reader in tl.static_range(len(ITEMS[i][1])):
        coefficient += _coefficient_of_term(
            block,
            channel,
            compared[ITEMS[i][1][reader]],
            per_example[i],
            batch,
            TERMS[ITEMS[i][1][reader]],
            CONSTRAINTS,
        )
    if len(ITEMS[i][1]) == 0:  # kl
        coefficient = 1.0 / float64(per_example[i])
    return coefficient


@triton.jit
def _coefficient_of_term(block, channel, compared, per_example, batch, term: tl.constexpr, CONSTRAINTS: tl.constexpr):
    row = term[1] + channel if term[2] > 1 else term[1] + channel * 0
    elements = float64(compared) / term[2]
    multiplier = tl.exp(log_multiplier(block, row, row >= 0, term[3], elements, CONSTRAINTS))
    if term[6][2]:
        result = with_factor(multiplier, term[0]) * _weight(per_example, term) / batch
    else:
        result = multiplier / per_example
        if term[3] == ONE_MINUS_KAPPA:
            result = -result
    return result


@triton.jit
def _coefficients_of_slots(
    block,
    layout,
    compared,
    per_example,
    batch,
    i: tl.constexpr,
    ITEMS: tl.constexpr,
    TERMS: tl.constexpr,
    CONSTRAINTS: tl.constexpr,
):
    """The same for each sum of a windowed item."""
    slot = tl.arange(0, ITEMS[i][2][1])
    coefficients = tl.zeros((ITEMS[i][2][1],), tl.float64)
    for reader in tl.static_range(len(ITEMS[i][1])):
        coefficients += _of_slots_of_term(
            block, slot, layout, compared[ITEMS[i][1][reader]], per_example[i], batch, TERMS[ITEMS[i][1][reader]],
            CONSTRAINTS,
        )  # fmt: skip
    return coefficients


@triton.jit
def _of_slots_of_term(block, slot, layout, compared, per_example, batch, term: tl.constexpr, CONSTRAINTS: tl.constexpr):
    here = (slot >= term[6][0]) & (slot < term[6][0] + term[6][1])
    row = term[1] + slot - term[6][0] if term[2] > 1 else term[1] + slot * 0
    elements = float64(compared) / term[2]
    multiplier = tl.exp(log_multiplier(block, row, here, term[3], elements, CONSTRAINTS))
    if term[6][2]:
        result = with_factor(multiplier, term[0]) * _weight(per_example, term) / batch
    else:
        numbers = float64(term[6][3][0] * term[6][3][0])
        if not term[6][3][2]:
            numbers = numbers * layout[1][0]
        result = multiplier / (_values(layout, term) * numbers * batch)
        if term[3] == ONE_MINUS_KAPPA:
            result = -result
    return tl.where(here, result, 0.0)


@triton.jit
def _values(layout, term: tl.constexpr):
    """How many numbers a windowed term averages for each example."""
    of_channel = float64((layout[2][0] - term[6][3][0]) // term[6][3][1] + 1)
    of_channel = of_channel * ((layout[3][0] - term[6][3][0]) // term[6][3][1] + 1)
    if term[6][3][2]:
        of_channel = of_channel * layout[1][0]
    return of_channel


@triton.jit
def _finish(
    first_programs,
    programs,
    compared,
    per_example,
    layouts,
    block,
    counters,
    partials,
    sums,
    loss,
    batch,
    ITEMS: tl.constexpr,
    TERMS: tl.constexpr,
    CONSTRAINTS: tl.constexpr,
    ROWS: tl.constexpr,
    UPDATE: tl.constexpr,
):
    row = tl.arange(0, ROWS)
    inside = row < CONSTRAINTS
    rule = tl.zeros((ROWS,), tl.int32)
    elements = tl.full((ROWS,), 1.0, tl.float64)
    c_hat = tl.zeros((ROWS,), tl.float64)
    for t in tl.static_range(len(TERMS)):
        in_term = (row >= TERMS[t][1]) & (row < TERMS[t][1] + TERMS[t][2])
        rule = tl.where(in_term, TERMS[t][3], rule)
        elements = tl.where(in_term, float64(compared[t]) / TERMS[t][2], elements)
        for r in tl.static_range(len(TERMS[t][5])):
            measured = _measured(
                first_programs, programs[TERMS[t][5][r]], per_example[TERMS[t][5][r]], layouts[TERMS[t][5][r]],
                partials, row - TERMS[t][1], in_term, batch, TERMS[t][5][r], ITEMS, TERMS[t], ROWS,
            )  # fmt: skip
            c_hat += tl.where(in_term, measured, 0.0)
    kappa = tl.load(block + KAPPA * CONSTRAINTS + row, mask=inside, other=0.0)
    c_hat = tl.where(rule == KAPPA_SQUARED, c_hat - kappa * kappa, c_hat)
    c_hat = tl.where(rule == ONE_MINUS_KAPPA, kappa - c_hat, c_hat)
    c_hat = tl.where(rule == KAPPA_ITSELF, c_hat - kappa, c_hat)
    kl = tl.full((), 0.0, tl.float64)
    if len(ITEMS[len(ITEMS) - 1][1]) == 0:
        last: tl.constexpr = len(ITEMS) - 1
        kl = sum_of_partials(partials, first_programs[last], 1, 1) / per_example[last]

    if sums is not None:
        poison = tl.where(kl - kl == 0.0, 0.0, float("nan")).to(tl.float64)  # all processes then skip the step
        tl.store(sums + row, c_hat * batch + poison, mask=inside)
        tl.store(sums + CONSTRAINTS, float64(batch))
    else:
        if UPDATE is not None:
            penalty = advance(
                block, counters, row, inside, rule, elements, c_hat, kl, batch, CONSTRAINTS, UPDATE
            )  # fmt: skip
        else:
            penalty = tl.exp(log_multiplier(block, row, inside, rule, elements, CONSTRAINTS)) * c_hat
        tl.store(loss, kl + tl.sum(tl.where(inside, penalty, 0.0)))


@triton.jit
def _measured(
    first_programs,
    programs,
    per_example,
    layout,
    partials,
    channel,
    in_term,
    batch,
    i: tl.constexpr,
    ITEMS: tl.constexpr,
    term: tl.constexpr,
    ROWS: tl.constexpr,
):
    """What an item adds to the rows of a term that reads it."""
    first = first_programs[i]
    count = first_programs[i + 1] - first
    if ITEMS[i][0] == "windowed":  # behind what the programs of all items have left
        first = first_programs[len(ITEMS)] + term[6][0] * programs
        count = programs * term[6][1]
    elif ITEMS[i][0] == "elementwise":  # noqa: SIM102 (others have no measures)
        if len(ITEMS[i][2][1]) > 1:
            first = first_programs[len(ITEMS)] + term[6][0] * count
    if term[2] > 1:
        of_rows = sums_of_channels(partials, first, programs, channel, in_term, ROWS, 64)
    else:
        of_rows = sum_of_partials(partials, first, count, 512) + tl.zeros((ROWS,), tl.float64)
    if term[6][2]:
        of_rows = of_rows * _weight(per_example, term) / batch
    elif ITEMS[i][0] == "windowed":
        of_rows = of_rows / (_values(layout, term) * batch)
    else:
        of_rows = of_rows / per_example
    return of_rows
