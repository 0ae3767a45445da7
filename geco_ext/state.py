"""The state of a criterion: one float64 block on the device, rows of one number per constraint, then counters.

Every backend reads and writes this block in place (``csrc/math/state.h`` is its C++ side), so a step moves one pointer
and never a number to the host. The counters are 64-bit integers stored in the last words.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

ROWS = (
    "log_multiplier",  # log lambda; NaN until an automatic start is resolved
    "moving_average",  # C_ma
    "violation",  # v of the last update
    "kappa",  # the tolerance
    "accumulated",  # sum of C_hat * examples over the micro-batches of this step
    "last_constraint",  # C_hat of the last finite call
    "upper_bound",  # log bound in force at the last update
    "log_low",  # log bounds asked for; NaN: automatic
    "log_high",
    "scale",  # s and lambda* of constraints that bring their own; NaN: by kappa
    "natural_multiplier",
    "follows_error",  # whether automatic start and bounds are those of the error in force, not of kappa
    "bound_opening",  # log of the automatic upper bound over the natural multiplier of the error
    "kappa_target",  # the kappa that a schedule ends at; kappa itself without one
    "schedule_start",  # the kappa that it starts at; NaN: that of the first step, to be seen
    "schedule_steps",  # its length; 0: there is none, or it has ended
    "schedule_step",  # how many have been taken
    "schedule_is_linear",  # else geometric
)
COUNTERS = ("accumulated_examples", "micro_batches", "steps", "skipped")

SCHEDULE_ROWS = ("kappa_target", "schedule_start", "schedule_steps", "schedule_step", "schedule_is_linear")
LATER_ROWS = ("follows_error", "bound_opening", *SCHEDULE_ROWS)  # that states of earlier versions do not have
PERSISTENT_ROWS = ("log_multiplier", "moving_average", "violation", "kappa", "accumulated", *LATER_ROWS)


# Automatic bounds, as multiples of the natural multiplier, and by how much the logarithm of the upper one opens in a
# step in which the multiplier would exceed it (``csrc/math/multiplier.h`` has the same).
LOWEST_MULTIPLE, HIGHEST_MULTIPLE = 1e-3, 3.0
OPENING_RATE = 0.002
MOST_OF_AN_OUTLIER = 2.0  # how many times the error beside it counts for the bounds


class State(NamedTuple):
    """Views of a state block, one per row of ``ROWS`` ([L] float64) and per counter (0-d int64)."""

    log_multiplier: Tensor
    moving_average: Tensor
    violation: Tensor
    kappa: Tensor
    accumulated: Tensor
    last_constraint: Tensor
    upper_bound: Tensor
    log_low: Tensor
    log_high: Tensor
    scale: Tensor
    natural_multiplier: Tensor
    follows_error: Tensor
    bound_opening: Tensor
    kappa_target: Tensor
    schedule_start: Tensor
    schedule_steps: Tensor
    schedule_step: Tensor
    schedule_is_linear: Tensor
    accumulated_examples: Tensor
    micro_batches: Tensor
    steps: Tensor
    skipped: Tensor


def words(constraints: int) -> int:
    """Number of 8-byte words of a block for ``constraints`` constraints."""
    return len(ROWS) * constraints + len(COUNTERS)


def views(block: Tensor) -> State:
    """The rows and counters of a block, sharing its memory."""
    constraints = (block.numel() - len(COUNTERS)) // len(ROWS)
    rows = block[: len(ROWS) * constraints].view(len(ROWS), constraints)
    counters = block[len(ROWS) * constraints :].view(torch.int64)
    # Indexed rather than unbound: autograd lets single views be written in place anywhere.
    return State(*(rows[i] for i in range(len(ROWS))), *(counters[i] for i in range(len(COUNTERS))))


def kappa_at_the_end(rows: Mapping[str, Tensor]) -> Tensor:
    """The tolerances at the ends of their schedules, [L]; without one, those in force."""
    return torch.where(rows["schedule_steps"] > 0, rows["kappa_target"], rows["kappa"])


def later_rows(kappa: Tensor) -> dict[str, Tensor]:
    """What ``LATER_ROWS`` would have been in a state of an earlier version: multipliers by lambda*, no schedule."""
    none = torch.zeros_like(kappa)
    return {name: kappa if name == "kappa_target" else none for name in LATER_ROWS}


def upgraded(block: Tensor, constraints: int) -> Tensor:
    """A block as it is now, of one from an old pickle: with fewer rows, or a word of the kernels' own at the end.

    Multipliers of such a block are those of :meth:`geco_ext.GECOLoss.natural`.
    """
    if block.numel() == words(constraints):
        return block
    old_rows = (len(ROWS) - len(LATER_ROWS)) * constraints
    new = new_block(constraints, block.device)
    new[:old_rows] = block[:old_rows]
    new[-len(COUNTERS) :] = block[old_rows:][: len(COUNTERS)]
    state = views(new)
    state.kappa_target.copy_(state.kappa)
    return new


def new_block(constraints: int, device: torch.device | str | None = None) -> Tensor:
    """A block in which every multiplier is 1, unbounded, and nothing has been seen. Needs no synchronisation."""
    block = torch.zeros(words(constraints), dtype=torch.float64, device=device)
    state = views(block)
    state.upper_bound.fill_(torch.inf)
    state.log_low.fill_(-torch.inf)
    state.log_high.fill_(torch.inf)
    state.scale.fill_(1.0)
    state.natural_multiplier.fill_(1.0)
    return block


def forget_unsaved(block: Tensor) -> None:
    """Bring the rows that no ``state_dict`` has, and a call writes, to what they are before the first one."""
    state = views(block)
    with torch.no_grad():
        state.last_constraint.fill_(torch.nan)
        state.upper_bound.copy_(torch.where(state.log_high.isnan(), torch.inf, state.log_high))
