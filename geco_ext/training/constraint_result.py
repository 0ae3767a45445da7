"""What a constraint asked for and what was reached, in the quantity its kappa bounds."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from geco_ext import Constraint, GECOLoss, ReconstructionError
from geco_ext.training.evaluation import Evaluation, constraints_of
from geco_ext.training.metrics_history import History

MET_WITHIN = 0.06
"""A constraint counts as met up to this share of its scale above 0: for a root mean square, 3% above kappa."""

SETTLED_SHARE = 0.1
"""The last share of the history that tells whether a multiplier rests on its bound."""


@dataclass(frozen=True)
class ConstraintResult:
    """One constraint at the end of a run.

    Attributes:
        name: its name.
        kappa: the tolerance.
        asked: what was asked of ``reached``.
        reached: the quantity that kappa bounds (root mean square error, correlation, probability); for a class of
            one's own the constraint's value itself.
        deviation_percent: how far ``reached`` lies above kappa in percent of it; None where that says nothing.
        violation: the constraint over its scale, C/s; satisfied at 0 or below.
        multiplier: lambda.
        met: whether C/s is at most `MET_WITHIN`.
        at_bound: whether the multiplier rests on its upper bound.
    """

    name: str
    kappa: float
    asked: str
    reached: float
    deviation_percent: float | None
    violation: float
    multiplier: float
    met: bool
    at_bound: bool


def constraint_results(criterion: GECOLoss, evaluation: Evaluation, history: History) -> tuple[ConstraintResult, ...]:
    """One result per entry of the constraint vector."""
    vectors = (evaluation.constraints, criterion.kappa, criterion.multiplier)
    numbers = zip(*(vector.tolist() for vector in vectors), strict=True)
    return tuple(
        _result(name, constraint, value, kappa, multiplier, _rests_at_bound(history.get(f"at_bound/{name}", [])))
        for (name, constraint), (value, kappa, multiplier) in zip(_entries(criterion), numbers, strict=True)
    )


def reconstruction_tolerances(criterion: GECOLoss) -> dict[str, float]:
    """Kappa by name of the constraints that bound the RMSE of the images."""
    return {
        name: kappa
        for (name, constraint), kappa in zip(_entries(criterion), criterion.kappa.tolist(), strict=True)
        if isinstance(constraint, ReconstructionError) and constraint.reduction == "mean"
    }


def _entries(criterion: GECOLoss) -> Iterator[tuple[str, Constraint]]:
    """Name and constraint of every entry: a constraint on C channels has C entries."""
    constraints = {constraint.name: constraint for constraint in constraints_of(criterion)}
    for name in criterion.names:
        yield name, constraints[name if name in constraints else name.rpartition("/")[0]]


def _result(
    name: str, constraint: Constraint, value: float, kappa: float, multiplier: float, at_bound: bool
) -> ConstraintResult:
    rule = constraint._term().scale_rule
    if rule == "kappa^2":
        asked = f"<= {kappa:g}"
        reached, scale = math.sqrt(abs(value + kappa**2)), kappa**2  # rounding may leave -1e-18
    elif rule == "1-kappa":
        asked = f">= {kappa:g}"
        reached, scale = kappa - value, 1 - kappa
    else:
        asked = f"value <= 0 ({kappa:g})"
        reached, scale = value, float(constraint.scale)
    violation = value / max(scale, 1e-12)
    says_something = kappa != 0 and rule != "own"
    return ConstraintResult(
        name=name,
        kappa=kappa,
        asked=asked,
        reached=reached,
        deviation_percent=100 * (reached / kappa - 1) if says_something else None,
        violation=violation,
        multiplier=multiplier,
        met=violation <= MET_WITHIN,
        at_bound=at_bound,
    )


def _rests_at_bound(records: list[float]) -> bool:
    last = records[-max(1, round(SETTLED_SHARE * len(records))) :]
    return bool(last) and sum(last) > len(last) / 2
