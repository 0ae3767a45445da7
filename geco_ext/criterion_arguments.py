"""What a criterion is given: its settings, one for all constraints or one for each, and images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from geco_ext.checks import check_prediction
from geco_ext.constraints import Constraint
from geco_ext.constraints.base import check_initialised
from geco_ext.warn import warn_user

Multipliers = float | Sequence[float] | Literal["auto"]
Bounds = tuple[float, float] | Sequence[tuple[float, float]] | Literal["auto"]


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


def warn_if_swapped(criterion: nn.Module, x_hat: Tensor, x: Tensor) -> None:
    """Once for a criterion: constraints are mostly symmetric in the two, so that the numbers would not show it."""
    if not x.requires_grad or x_hat.requires_grad or not torch.is_grad_enabled() or torch.compiler.is_compiling():
        return
    if "_has_warned_of_swapped" not in vars(criterion):
        vars(criterion)["_has_warned_of_swapped"] = True
        warn_user(
            "x_hat does not require a gradient and x does: are they swapped? The reconstruction comes first, "
            "criterion(x_hat, x, kl)"
        )


def initial_multipliers(value: Multipliers, count: int) -> list[float | None]:
    """One number per constraint; None: automatic."""
    many = isinstance(value, Sequence) and not isinstance(value, str)
    return _per_constraint(value, count, "multiplier_init", many, _check_multiplier)


def multiplier_bounds(value: Bounds, count: int) -> list[tuple[float, float] | None]:
    """One pair per constraint; None: automatic."""
    many = (
        isinstance(value, Sequence)
        and not isinstance(value, str)
        and any(isinstance(item, Sequence) for item in value)  # a pair, or "auto"
    )
    return _per_constraint(value, count, "multiplier_bounds", many, _check_bounds)


def _per_constraint(value: Any, count: int, argument: str, many: bool, check: Callable[[Any, str], Any]) -> list[Any]:
    if not many:
        return [check(value, argument)] * count
    if len(value) != count:
        raise ValueError(f"{argument}: got {len(value)} entries, expected one per constraint ({count})")
    return [check(item, argument) for item in value]


def _check_multiplier(value: Any, argument: str) -> float | None:
    if isinstance(value, str) and value == "auto":
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number) or number <= 0.0:
        raise ValueError(f"{argument}: got {value!r}, expected 'auto' or positive numbers")
    return number


def _check_bounds(value: Any, argument: str) -> tuple[float, float] | None:
    if isinstance(value, str) and value == "auto":
        return None
    try:
        low, high = (float(bound) for bound in value)
    except (TypeError, ValueError):
        low = high = math.nan
    if not 0.0 < low < high:
        raise ValueError(f"{argument}: got {value!r}, expected 'auto' or pairs 0 < low < high")
    return low, high
