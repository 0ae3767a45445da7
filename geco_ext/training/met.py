"""When a constraint counts as met, everywhere: in the tables of `geco train`, in its warnings, in the experiments."""

from __future__ import annotations

MET_WITHIN = 0.05
"""The share of its scale s that a constraint C may be above 0. Of a root mean square that is 2.5% above kappa."""


FAR_BELOW = -0.1
"""C/s below which a constraint is met by far. Of a root mean square that is 5% below kappa."""

SLACK_KL = 0.5
"""Nats of KL below which the latents carry nothing: what is met then is met for free."""


def is_met(violation: float) -> bool:
    """Whether a constraint with this C/s is met; one that is not a number is not.

    Example:
        >>> is_met(-0.2), is_met(0.05), is_met(0.06), is_met(float("nan"))
        (True, True, False, False)
    """
    return violation <= MET_WITHIN


def is_far_below(violation: float) -> bool:
    """Whether a constraint with this C/s is met by so much that nothing holds it at its tolerance."""
    return violation < FAR_BELOW
