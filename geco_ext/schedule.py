"""Tolerances that tighten while a model trains."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from geco_ext.checks import check_positive_integer

Shape = Literal["geometric", "linear"]


@dataclass(frozen=True)
class KappaSchedule:
    """A kappa that moves from a loose start to its target, in the place of a number.

    After the t-th update of the multipliers the tolerance in force is ``start * (target / start)^(t / steps)``, or with
    the shape "linear" ``start + (target - start) * t / steps``, and from ``t = steps`` on the target itself. Of a
    similarity, whose kappa is demanded and not tolerated, 1 - kappa moves like this. The natural multiplier and
    automatic bounds follow. The step is part of the criterion's state and moved on the device: batches that are not
    finite do not count, and a run that is resumed goes on where it was. A constraint of one's own is taken to give
    ``error - kappa``; compiled, it reads ``kappa_tensor``. Setting ``constraint.kappa`` to a number ends
    the schedule, setting it to another ``KappaSchedule`` starts that.

    Args:
        target: where it ends.
        steps: updates of the multipliers until then.
        start: where it begins, no tighter than the target; ``"auto"``: at the error of the first step, or at the target
            where that step meets it already. The first step itself then has the target.
        shape: ``"geometric"`` or ``"linear"``.

    Raises:
        ValueError: steps < 1, an unknown shape, numbers that are not finite; by the constraint that is given it, where
            its kappa cannot have the values, or start is tighter than target.

    Example:
        >>> import geco_ext
        >>> schedule = KappaSchedule(target=0.1, steps=1000, start=0.3)
        >>> criterion = geco_ext.GECOLoss(geco_ext.ReconstructionError(kappa=schedule))
        >>> criterion.constraints[0].kappa
        0.3
    """

    target: float
    steps: int
    start: float | Literal["auto"] = "auto"
    shape: Shape = "geometric"

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", check_positive_integer(self.steps, "steps"))
        if self.shape not in get_args(Shape):
            raise ValueError(f"shape: got {self.shape!r}, expected {' or '.join(map(repr, get_args(Shape)))}")
        for name in ("target", "start"):
            value = getattr(self, name)
            if name == "start" and isinstance(value, str) and value == "auto":
                continue
            try:
                number = math.nan if isinstance(value, bool | str) else float(value)
            except (TypeError, ValueError):
                number = math.nan
            if not math.isfinite(number):
                expected = "a number" if name == "target" else "a number or 'auto'"
                raise ValueError(f"{name}: got {value!r}, expected {expected}")
            object.__setattr__(self, name, number)


Kappa = float | KappaSchedule
"""What a constraint takes for kappa."""
