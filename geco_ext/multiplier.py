"""How log lambda moves."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

from geco_ext.checks import check_non_negative, check_positive

ViolationKind = Literal["log", "relative", "raw"]


@dataclass(frozen=True)
class MultiplierUpdate:
    r"""The update of the Lagrange multipliers, ``Delta log lambda`` of Algorithm 1 ("Taming VAEs").

    With the moving average ``C_ma`` of a constraint, its scale ``s`` (kappa^2 for squared errors) and the violation
    ``v = clip(violation(C_ma, s), -max_violation, +max_violation)``::

        log lambda <- clip(log lambda + lr * v + proportional * (v - v_previous), log bounds)

    Args:
        lr: integral gain, log lambda per step and unit of violation.
        proportional: proportional gain, log lambda per change of the violation; it damps the swing that an integral
            alone has.
        violation: ``"log"``: log(1 + C_ma / s), where 1 + C/s is the share of the tolerance in use; ``"relative"``:
            C_ma / s; ``"raw"``: C_ma.
        max_violation: bound of ``|v|``, so that a bad start cannot wind the multiplier up.

    Raises:
        ValueError: a gain is negative or not finite, max_violation is not positive, or violation is unknown.

    Example:
        >>> MultiplierUpdate().violation
        'log'
    """

    lr: float = 0.05
    proportional: float = 5.0
    violation: ViolationKind = "log"
    max_violation: float = 1.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "lr", check_non_negative(self.lr, "lr"))
        object.__setattr__(self, "proportional", check_non_negative(self.proportional, "proportional"))
        if self.violation not in get_args(ViolationKind):
            raise ValueError(
                f"violation: got {self.violation!r}, expected one of {', '.join(map(repr, get_args(ViolationKind)))}"
            )
        if self.max_violation != math.inf:
            object.__setattr__(self, "max_violation", check_positive(self.max_violation, "max_violation"))

    @classmethod
    def paper(cls, lr: float) -> MultiplierUpdate:
        """The paper's literal rule, lambda <- lambda exp(lr * C_ma): no scale, no clipping, no proportional part."""
        return cls(lr=lr, proportional=0.0, violation="raw", max_violation=math.inf)
