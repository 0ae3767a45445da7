"""What a criterion is given: its settings, one for all constraints or one for each, and images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from geco_ext import state as state_block
from geco_ext.checks import check_non_negative, check_positive, check_prediction
from geco_ext.constraints import Constraint
from geco_ext.constraints.base import ToleranceRows, check_initialised
from geco_ext.warn import warn_user

Rule = Literal["auto", "natural"]
Multipliers = float | Sequence[float | Rule] | Rule
Bounds = tuple[float, float] | Sequence[tuple[float, float] | Rule] | Rule


class MultiplierRange(NamedTuple):
    """Where the multiplier of a constraint starts and may lie."""

    start: float | None  # None: made by the kernels
    bounds: tuple[float, float] | None
    follows_error: bool  # what the kernels make is that of the error in force, not of kappa


def check_constraints(constraints: Constraint | Iterable[Constraint]) -> list[Constraint]:
    """At least one, and every row of the constraint vector with a name of its own."""
    given: object = [constraints] if isinstance(constraints, Constraint) else constraints
    if not isinstance(given, Iterable) or isinstance(given, str):
        raise _not_constraints(given)
    members = list(given)
    if not members:
        raise ValueError("constraints: got none, expected at least one Constraint")
    for member in members:
        if not isinstance(member, Constraint):
            raise _not_constraints(member)
        check_initialised(member)
    names = [name for member in members for name in member._row_names()]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"constraints: got the name {repeated[0]!r} more than once, tell them apart with name=...")
    return members


def _not_constraints(value: object) -> ValueError:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    got = repr(value) if is_number or isinstance(value, str) else type(value).__name__
    kappa = value if is_number else 0.1
    return ValueError(
        f"constraints: got {got}, expected geco_ext.Constraint instances; for a root mean squared error of {kappa} an "
        f"element write GECOLoss(geco_ext.ReconstructionError(kappa={kappa}))"
    )


def check_images_of_call(x_hat: Tensor, x: Tensor, device: torch.device) -> None:
    """Two float tensors of one shape, where the criterion is."""
    check_prediction(x_hat, x)
    if device != x_hat.device:
        raise ValueError(
            f"x_hat: got device {x_hat.device}, the criterion is on {device}; move it with criterion.to(...)"
        )


class Remarks:
    """What is said of calls that are no errors, once for a criterion: their numbers would not show it.

    Nothing here looks at the device: whether a multiplier has moved is known by the training calls there were.
    """

    def __init__(self, has_trained: bool = False) -> None:
        self.has_trained = has_trained
        self._said: set[str] = set()

    def on_training_call(self, x_hat: Tensor, x: Tensor) -> None:
        """Constraints are mostly symmetric in the two images."""
        self.has_trained = True
        if torch.compiler.is_compiling():
            return
        if x.requires_grad and not x_hat.requires_grad and torch.is_grad_enabled():
            self._say(
                "x_hat does not require a gradient and x does: are they swapped? The reconstruction comes first, "
                "criterion(x_hat, x, kl)"
            )
        self.on_call_without_gradient(x_hat)

    def on_call_without_gradient(self, x_hat: Tensor) -> None:
        """Of training mode: multipliers would follow validation examples."""
        if not x_hat.requires_grad and not torch.is_grad_enabled():
            self._say(
                "the criterion is called in training mode where no gradient is wanted, and its multipliers move with "
                "these examples too: for validation use criterion.evaluate(x_hat, x, kl), or criterion.eval() before"
            )

    def on_eval_call(self, x_hat: Tensor) -> None:
        """The automatic multiplier is a thousandth of the natural one until it is resolved: the KL goes to zero."""
        if not self.has_trained and getattr(x_hat, "requires_grad", False) and torch.is_grad_enabled():
            self._say(
                "the criterion is called for a gradient in eval mode, in which multipliers do not move, and has not "
                "been trained: to train with it call criterion.train()"
            )

    def _say(self, message: str) -> None:
        if message not in self._said:
            self._said.add(message)
            warn_user(message)


def multiplier_ranges(start: Multipliers, bounds: Bounds, count: int) -> list[MultiplierRange]:
    """One for each constraint."""
    starts = _per_constraint(
        start,
        count,
        "multiplier_init",
        isinstance(start, Sequence) and not isinstance(start, str),
        _check_multiplier,
    )
    pairs = _per_constraint(
        bounds,
        count,
        "multiplier_bounds",
        # A pair of numbers is that of all constraints, and so is a word.
        isinstance(bounds, Sequence) and not isinstance(bounds, str) and any(isinstance(b, Sequence) for b in bounds),
        _check_bounds,
    )
    return [_range(*pair) for pair in zip(starts, pairs, strict=True)]


def _range(start: float | str, bounds: tuple[float, float] | str) -> MultiplierRange:
    words = {value for value in (start, bounds) if isinstance(value, str)}
    if len(words) > 1:
        raise ValueError(
            f"multiplier_init: got {start!r} with multiplier_bounds {bounds!r}, expected 'natural' for both or for "
            "neither (GECOLoss.natural gives both)"
        )
    return MultiplierRange(
        None if isinstance(start, str) else start,
        None if isinstance(bounds, str) else bounds,
        "natural" not in words,
    )


def _per_constraint(value: Any, count: int, argument: str, many: bool, check: Callable[[Any, str], Any]) -> list[Any]:
    if not many:
        return [check(value, argument)] * count
    if len(value) != count:
        raise ValueError(f"{argument}: got {len(value)} entries, expected one per constraint ({count})")
    return [check(item, argument) for item in value]


def _check_multiplier(value: Any, argument: str) -> float | str:
    if isinstance(value, str) and value in get_args(Rule):
        return value
    try:
        return check_positive(value, argument)
    except ValueError:
        raise ValueError(f"{argument}: got {value!r}, expected 'auto', 'natural' or positive numbers") from None


def _check_bounds(value: Any, argument: str) -> tuple[float, float] | str:
    if isinstance(value, str) and value in get_args(Rule):
        return value
    try:
        low, high = (math.nan if isinstance(bound, str) else float(bound) for bound in value)
    except (TypeError, ValueError):
        low = high = math.nan
    if not 0.0 < low < high:
        raise ValueError(f"{argument}: got {value!r}, expected 'auto', 'natural' or pairs 0 < low < high")
    return low, high


def first_block(members: list[Constraint], ranges: list[MultiplierRange]) -> Tensor:
    """A block before the first step."""
    block = state_block.new_block(len(ranges))
    state = state_block.views(block)
    state.last_constraint.fill_(math.nan)
    row = 0
    for member in members:
        rows = slice(row, row + member._rows)
        state.kappa[rows] = member.kappa_target
        member._write_tolerance(ToleranceRows(*(getattr(state, name)[rows] for name in ToleranceRows._fields)))
        state.scale[rows] = _given(member.scale, check_non_negative, f"scale of constraint {member.name!r}")
        state.natural_multiplier[rows] = _given(
            member.natural_multiplier, check_positive, f"natural_multiplier of constraint {member.name!r}"
        )
        if member.scale_rule == "own":  # an error as it is: its likelihood, Laplace's, has twice D / (2 error)
            state.bound_opening[rows] = math.log(2.0)
        row += member._rows
    for index, (start, pair, follows_error) in enumerate(ranges):
        state.follows_error[index] = float(follows_error)
        state.log_multiplier[index] = math.nan if start is None else math.log(start)
        state.log_low[index] = math.nan if pair is None else math.log(pair[0])
        state.log_high[index] = math.nan if pair is None else math.log(pair[1])
        if pair is not None:
            state.upper_bound[index] = math.log(pair[1])
    return block


def _given(value: float | None, check: Callable[[float, str], float], argument: str) -> float:
    """A number that a constraint may give; NaN where it leaves it to the kernels."""
    return math.nan if value is None else check(value, argument)
