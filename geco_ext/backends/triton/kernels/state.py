# ruff: noqa: N803 (constants of a compilation are in capitals, as everywhere in Triton)
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""Algorithm 1 of "Taming VAEs" for all constraints at once, a vector of rows (``csrc/math/multiplier.h`` in Triton)."""

from __future__ import annotations

import triton
import triton.language as tl

from geco_ext.state import COUNTERS, ROWS

LOG_MULTIPLIER = tl.constexpr(ROWS.index("log_multiplier"))
MOVING_AVERAGE = tl.constexpr(ROWS.index("moving_average"))
VIOLATION = tl.constexpr(ROWS.index("violation"))
KAPPA = tl.constexpr(ROWS.index("kappa"))
ACCUMULATED = tl.constexpr(ROWS.index("accumulated"))
LAST_CONSTRAINT = tl.constexpr(ROWS.index("last_constraint"))
UPPER_BOUND = tl.constexpr(ROWS.index("upper_bound"))
LOG_LOW = tl.constexpr(ROWS.index("log_low"))
LOG_HIGH = tl.constexpr(ROWS.index("log_high"))
SCALE = tl.constexpr(ROWS.index("scale"))
NATURAL_MULTIPLIER = tl.constexpr(ROWS.index("natural_multiplier"))

ACCUMULATED_EXAMPLES = tl.constexpr(COUNTERS.index("accumulated_examples"))
MICRO_BATCHES = tl.constexpr(COUNTERS.index("micro_batches"))
STEPS = tl.constexpr(COUNTERS.index("steps"))
SKIPPED = tl.constexpr(COUNTERS.index("skipped"))

SMALLEST = tl.constexpr(1e-12)  # scales and shares of the tolerance below it count as it

# How a row's scale s follows from its kappa.
KAPPA_SQUARED = tl.constexpr(0)
ONE_MINUS_KAPPA = tl.constexpr(1)
OWN = tl.constexpr(2)
KAPPA_ITSELF = tl.constexpr(3)


@triton.jit
def float64(number):
    """An integer or a constant as float64, exactly."""
    return tl.full((), 0.0, tl.float64) + number


@triton.jit
def constraint_scale(block, row, inside, rule, CONSTRAINTS: tl.constexpr):
    """S of each row, the size of its tolerance."""
    kappa = tl.load(block + KAPPA * CONSTRAINTS + row, mask=inside, other=0.0)
    own = tl.load(block + SCALE * CONSTRAINTS + row, mask=inside, other=1.0)
    own = tl.where(own == own, own, tl.where(kappa > 0.0, kappa, float64(1.0)))  # NaN: none is given
    scale = tl.where(rule == KAPPA_SQUARED, kappa * kappa, tl.where(rule == ONE_MINUS_KAPPA, 1.0 - kappa, own))
    scale = tl.where(rule == KAPPA_ITSELF, kappa, scale)
    return tl.where(scale > SMALLEST, scale, float64(SMALLEST))


@triton.jit
def natural_log_multiplier(block, row, inside, rule, elements, CONSTRAINTS: tl.constexpr):
    """Log lambda*: D / (2 s), or what a constraint of a user's own gives."""
    scale = constraint_scale(block, row, inside, rule, CONSTRAINTS)
    own = tl.load(block + NATURAL_MULTIPLIER * CONSTRAINTS + row, mask=inside, other=1.0)
    natural = elements / (2.0 * scale)
    return tl.log(tl.where(rule == OWN, tl.where(own == own, own, natural), natural))


@triton.jit
def log_multiplier(block, row, inside, rule, elements, CONSTRAINTS: tl.constexpr):
    """Log lambda before this step; an automatic start is resolved here."""
    stored = tl.load(block + LOG_MULTIPLIER * CONSTRAINTS + row, mask=inside, other=0.0)
    natural = natural_log_multiplier(block, row, inside, rule, elements, CONSTRAINTS)
    return tl.where(stored == stored, stored, natural)


@triton.jit
def clipped_violation(average, scale, VIOLATION_KIND: tl.constexpr, MAX_VIOLATION: tl.constexpr):
    """How far a row is from its tolerance: log(1 + C/s), C/s, or C itself."""
    v = average
    if VIOLATION_KIND == "relative":
        v = average / scale
    if VIOLATION_KIND == "log":
        share = 1.0 + average / scale
        v = tl.log(tl.where(share > SMALLEST, share, float64(SMALLEST)))
    most = float64(MAX_VIOLATION)
    return tl.where(v < -most, -most, tl.where(v > most, most, v))


@triton.jit
def advance(
    block, counters, row, inside, rule, elements, c_hat, kl, batch, CONSTRAINTS: tl.constexpr, UPDATE: tl.constexpr
):
    """Moves the state by one call and returns lambda C of each row (lambda before the update).

    ``UPDATE``: the fields of ``UpdateSettings``, in their order.
    """
    # What the call means for the step it belongs to.
    not_finite = tl.sum(tl.where(inside & (c_hat - c_hat != 0.0), 1, 0))
    finite = (not_finite == 0) & (kl - kl == 0.0)
    steps = tl.load(counters + STEPS)
    first = steps == 0
    micro_batches = tl.load(counters + MICRO_BATCHES) + 1
    complete = micro_batches >= UPDATE[5]
    examples = tl.load(counters + ACCUMULATED_EXAMPLES) + tl.where(finite, batch, 0)
    updates = complete & (examples > 0)

    log_lambda = log_multiplier(block, row, inside, rule, elements, CONSTRAINTS)
    stored_log_lambda = tl.load(block + LOG_MULTIPLIER * CONSTRAINTS + row, mask=inside, other=0.0)
    previous = tl.load(block + MOVING_AVERAGE * CONSTRAINTS + row, mask=inside, other=0.0)
    previous_violation = tl.load(block + VIOLATION * CONSTRAINTS + row, mask=inside, other=0.0)
    accumulated = tl.load(block + ACCUMULATED * CONSTRAINTS + row, mask=inside, other=0.0)
    accumulated = tl.where(finite, accumulated + c_hat * batch, accumulated)

    # The average over the micro-batches of a step; of one it is C_hat itself, to the bit.
    alone = finite & (examples == batch)
    step_average = tl.where(alone, c_hat, accumulated / tl.where(examples > 0, examples, 1).to(tl.float64))
    alpha = float64(UPDATE[0])
    average = tl.where(first, step_average, alpha * previous + (1.0 - alpha) * step_average)
    scale = constraint_scale(block, row, inside, rule, CONSTRAINTS)
    v = clipped_violation(average, scale, UPDATE[3], UPDATE[4])
    v_previous = tl.where(first, v, previous_violation)

    natural = natural_log_multiplier(block, row, inside, rule, elements, CONSTRAINTS)
    low = tl.load(block + LOG_LOW * CONSTRAINTS + row, mask=inside, other=0.0)
    high = tl.load(block + LOG_HIGH * CONSTRAINTS + row, mask=inside, other=0.0)
    low = tl.where(low == low, low, natural - tl.log(float64(1000.0)))
    high = tl.where(high == high, high, natural + tl.log(float64(3.0)))
    moved = log_lambda + float64(UPDATE[1]) * v + float64(UPDATE[2]) * (v - v_previous)
    moved = tl.where(moved < low, low, tl.where(moved > high, high, moved))

    shown = tl.where(updates, average, tl.where(first, c_hat, previous))
    resolved = tl.where(finite, log_lambda, stored_log_lambda)
    previous_constraint = tl.load(block + LAST_CONSTRAINT * CONSTRAINTS + row, mask=inside, other=0.0)
    previous_bound = tl.load(block + UPPER_BOUND * CONSTRAINTS + row, mask=inside, other=0.0)
    skipped = tl.load(counters + SKIPPED)
    tl.debug_barrier()  # threads of other warps hold what they read before the first word changes
    tl.store(block + LOG_MULTIPLIER * CONSTRAINTS + row, tl.where(updates, moved, resolved), mask=inside)
    tl.store(block + MOVING_AVERAGE * CONSTRAINTS + row, tl.where(updates, average, previous), mask=inside)
    tl.store(block + VIOLATION * CONSTRAINTS + row, tl.where(updates, v, previous_violation), mask=inside)
    tl.store(block + UPPER_BOUND * CONSTRAINTS + row, tl.where(updates, high, previous_bound), mask=inside)
    tl.store(block + LAST_CONSTRAINT * CONSTRAINTS + row, tl.where(finite, c_hat, previous_constraint), mask=inside)
    tl.store(block + ACCUMULATED * CONSTRAINTS + row, tl.where(updates, 0.0, accumulated), mask=inside)
    tl.store(counters + MICRO_BATCHES, tl.where(complete, 0, micro_batches))
    tl.store(counters + ACCUMULATED_EXAMPLES, tl.where(complete, 0, examples))
    tl.store(counters + STEPS, steps + updates.to(tl.int64))
    tl.store(counters + SKIPPED, skipped + tl.where(finite, 0, 1))
    return tl.exp(log_lambda) * tl.where(finite, shown, c_hat)
