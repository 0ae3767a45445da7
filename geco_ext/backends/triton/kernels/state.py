# ruff: noqa: N803 (constants of a compilation are in capitals, as everywhere in Triton)
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls
"""Algorithm 1 of "Taming VAEs" for all constraints at once, a vector of rows (``csrc/math/multiplier.h`` in Triton)."""

from __future__ import annotations

import triton
import triton.language as tl

from geco_ext.state import COUNTERS, HIGHEST_MULTIPLE, LOWEST_MULTIPLE, MOST_OF_AN_OUTLIER, OPENING_RATE, ROWS

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
BOUND_OPENING = tl.constexpr(ROWS.index("bound_opening"))
FOLLOWS_ERROR = tl.constexpr(ROWS.index("follows_error"))
KAPPA_TARGET = tl.constexpr(ROWS.index("kappa_target"))
SCHEDULE_START = tl.constexpr(ROWS.index("schedule_start"))
SCHEDULE_STEPS = tl.constexpr(ROWS.index("schedule_steps"))
SCHEDULE_STEP = tl.constexpr(ROWS.index("schedule_step"))
SCHEDULE_IS_LINEAR = tl.constexpr(ROWS.index("schedule_is_linear"))

ACCUMULATED_EXAMPLES = tl.constexpr(COUNTERS.index("accumulated_examples"))
MICRO_BATCHES = tl.constexpr(COUNTERS.index("micro_batches"))
STEPS = tl.constexpr(COUNTERS.index("steps"))
SKIPPED = tl.constexpr(COUNTERS.index("skipped"))

LOWEST = tl.constexpr(LOWEST_MULTIPLE)
HIGHEST = tl.constexpr(HIGHEST_MULTIPLE)
OPENING = tl.constexpr(OPENING_RATE)
OUTLIER = tl.constexpr(MOST_OF_AN_OUTLIER)
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
    return scale_of_kappa(block, row, inside, rule, kappa, CONSTRAINTS)


@triton.jit
def scale_of_kappa(block, row, inside, rule, kappa, CONSTRAINTS: tl.constexpr):
    """S under a kappa."""
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
    """Log lambda before this step; the lowest, or lambda*, until the first update resolves an automatic start."""
    stored = tl.load(block + LOG_MULTIPLIER * CONSTRAINTS + row, mask=inside, other=0.0)
    follows = tl.load(block + FOLLOWS_ERROR * CONSTRAINTS + row, mask=inside, other=0.0) != 0.0
    natural = natural_log_multiplier(block, row, inside, rule, elements, CONSTRAINTS)
    lowest, of_one = natural + tl.log(float64(LOWEST)), tl.log(elements / 2.0)
    lowest = tl.where(lowest < of_one, lowest, of_one)
    low = tl.load(block + LOG_LOW * CONSTRAINTS + row, mask=inside, other=0.0)
    high = tl.load(block + LOG_HIGH * CONSTRAINTS + row, mask=inside, other=0.0)
    lowest = tl.where(lowest < low, low, tl.where(lowest > high, high, lowest))  # NaN: none is given
    natural = tl.where(follows, lowest, natural)
    return tl.where(stored == stored, stored, natural)


@triton.jit
def log_excess(average, scale):
    """Log of how many times its tolerance an error is, 0 where the constraint is met."""
    share = 1.0 + average / scale
    return tl.log(tl.where(share > 1.0, share, float64(1.0)))


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
def tolerance(rule, kappa):
    """The size of what kappa allows: itself, or what is missing to the similarity of identical images; its inverse."""
    return tl.where(rule == ONE_MINUS_KAPPA, 1.0 - kappa, kappa)


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

    # Bounds and an automatic start: those of the error in force, or of the tolerance.
    follows = tl.load(block + FOLLOWS_ERROR * CONSTRAINTS + row, mask=inside, other=0.0) != 0.0
    # Of an outlier, which stays in the average for hundreds of steps, no more than twice the error beside it counts.
    before = tl.where(first, step_average, previous)
    most = tl.log(float64(OUTLIER)) + log_excess(tl.where(step_average < before, step_average, before), scale)
    excess = log_excess(average, scale)
    excess = tl.where(follows, tl.where(excess < most, excess, most), float64(0.0))
    natural = natural_log_multiplier(block, row, inside, rule, elements, CONSTRAINTS) - excess
    start = tl.where(stored_log_lambda == stored_log_lambda, stored_log_lambda, natural)
    moved = start + float64(UPDATE[1]) * v + float64(UPDATE[2]) * (v - v_previous)
    low = tl.load(block + LOG_LOW * CONSTRAINTS + row, mask=inside, other=0.0)
    high = tl.load(block + LOG_HIGH * CONSTRAINTS + row, mask=inside, other=0.0)
    low = tl.where(low == low, low, natural + tl.log(float64(LOWEST)))
    widest = tl.log(float64(HIGHEST))
    previous_opening = tl.load(block + BOUND_OPENING * CONSTRAINTS + row, mask=inside, other=0.0)
    opening = tl.where(follows, previous_opening, widest)
    opening = tl.where(moved > natural + opening, opening + float64(OPENING), opening)
    opening = tl.where(opening < widest, opening, widest)
    opens = inside & follows & (high != high) & (tl.where(updates, row, -1) >= 0)
    high = tl.where(high == high, high, natural + opening)
    moved = tl.where(moved < low, low, tl.where(moved > high, high, moved))

    shown = tl.where(updates, average, tl.where(first, c_hat, previous))

    # One step of the schedule of kappa, where there is one; average and violation are then those of the new kappa.
    kappa = tl.load(block + KAPPA * CONSTRAINTS + row, mask=inside, other=1.0)
    target = tl.load(block + KAPPA_TARGET * CONSTRAINTS + row, mask=inside, other=1.0)
    schedule_start = tl.load(block + SCHEDULE_START * CONSTRAINTS + row, mask=inside, other=1.0)
    schedule_steps = tl.load(block + SCHEDULE_STEPS * CONSTRAINTS + row, mask=inside, other=0.0)
    schedule_step = tl.load(block + SCHEDULE_STEP * CONSTRAINTS + row, mask=inside, other=0.0)
    is_linear = tl.load(block + SCHEDULE_IS_LINEAR * CONSTRAINTS + row, mask=inside, other=0.0) != 0.0
    moves = inside & (tl.where(updates, schedule_steps, 0.0) > 0.0)
    last = tolerance(rule, target)
    square = average + kappa * kappa
    seen = tl.where(
        rule == KAPPA_SQUARED, tl.sqrt(tl.where(square > 0.0, square, 0.0)), average + tolerance(rule, kappa)
    )
    seen = tl.where(seen < last, last, seen)
    tolerance_at_start = tolerance(rule, schedule_start)
    tolerance_at_start = tl.where(tolerance_at_start == tolerance_at_start, tolerance_at_start, seen)
    done = (schedule_step + 1.0) / tl.where(schedule_steps > 0.0, schedule_steps, 1.0)
    ratio = tl.where(moves, last, 1.0) / tl.where(moves, tolerance_at_start, 1.0)
    between = tolerance_at_start * tl.exp(done * tl.log(ratio))
    between = tl.where(is_linear, tolerance_at_start + (last - tolerance_at_start) * done, between)
    next_kappa = tl.where(moves, tl.where(done < 1.0, tolerance(rule, between), target), kappa)
    shift = tolerance(rule, kappa) - tolerance(rule, next_kappa)
    shift = tl.where(rule == KAPPA_SQUARED, kappa * kappa - next_kappa * next_kappa, shift)
    shifted = tl.where(moves, average + shift, average)
    next_scale = scale_of_kappa(block, row, inside, rule, next_kappa, CONSTRAINTS)
    next_violation = tl.where(moves, clipped_violation(shifted, next_scale, UPDATE[3], UPDATE[4]), v)
    unresolved = moves & (schedule_start != schedule_start)
    previous_constraint = tl.load(block + LAST_CONSTRAINT * CONSTRAINTS + row, mask=inside, other=0.0)
    previous_bound = tl.load(block + UPPER_BOUND * CONSTRAINTS + row, mask=inside, other=0.0)
    skipped = tl.load(counters + SKIPPED)
    tl.debug_barrier()  # threads of other warps hold what they read before the first word changes
    tl.store(block + LOG_MULTIPLIER * CONSTRAINTS + row, tl.where(updates, moved, stored_log_lambda), mask=inside)
    tl.store(block + MOVING_AVERAGE * CONSTRAINTS + row, tl.where(updates, shifted, previous), mask=inside)
    tl.store(block + VIOLATION * CONSTRAINTS + row, tl.where(updates, next_violation, previous_violation), mask=inside)
    tl.store(block + KAPPA * CONSTRAINTS + row, next_kappa, mask=moves)
    tl.store(block + SCHEDULE_START * CONSTRAINTS + row, tolerance(rule, tolerance_at_start), mask=unresolved)
    tl.store(block + SCHEDULE_STEP * CONSTRAINTS + row, schedule_step + 1.0, mask=moves)
    tl.store(block + SCHEDULE_STEPS * CONSTRAINTS + row, 0.0, mask=moves & (done >= 1.0))
    tl.store(block + BOUND_OPENING * CONSTRAINTS + row, opening, mask=opens)
    tl.store(block + UPPER_BOUND * CONSTRAINTS + row, tl.where(updates, high, previous_bound), mask=inside)
    tl.store(block + LAST_CONSTRAINT * CONSTRAINTS + row, tl.where(finite, c_hat, previous_constraint), mask=inside)
    tl.store(block + ACCUMULATED * CONSTRAINTS + row, tl.where(updates, 0.0, accumulated), mask=inside)
    tl.store(counters + MICRO_BATCHES, tl.where(complete, 0, micro_batches))
    tl.store(counters + ACCUMULATED_EXAMPLES, tl.where(complete, 0, examples))
    tl.store(counters + STEPS, steps + updates.to(tl.int64))
    tl.store(counters + SKIPPED, skipped + tl.where(finite, 0, 1))
    return tl.exp(log_lambda) * tl.where(finite, shown, c_hat)
