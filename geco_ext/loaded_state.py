"""What a state that is loaded says otherwise than the code. It holds from then on, which is said."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from torch import Tensor

from geco_ext import state as state_block
from geco_ext.constraints import Constraint
from geco_ext.state_module import StateModule
from geco_ext.warn import warn_user

_NEEDED = "kappa", "kappa_target", "schedule_steps", "follows_error"


def warn_of_differences(
    criterion: StateModule, members: Sequence[tuple[Constraint, slice]], rows: Mapping[str, Tensor]
) -> None:
    """Tolerances, schedules and the rule of multipliers, which would otherwise be lost in silence.

    Args:
        criterion: before it is loaded.
        members: its constraints and their rows.
        rows: what the state has for its block.
    """
    if not rows.keys() >= set(_NEEDED) or any(
        type(row) is not Tensor or row.is_meta for row in (*(rows[name] for name in _NEEDED), criterion.kappa)
    ):
        return
    # One that was moved while it trained, by a schedule, has nothing to say: it goes back to an earlier state.
    is_fresh = int(criterion.steps) == 0
    if differing := [*_tolerances(members, rows, is_fresh), *(_schedules(members, rows) if is_fresh else [])]:
        warn_user(
            f"load_state_dict: {', '.join(differing)}; the state's holds from now on, unless constraint.kappa is "
            "set after loading"
        )
    is_automatic = state_block.views(criterion._block).log_high.isnan()
    if is_fresh and bool(((rows["follows_error"] != criterion.follows_error) & is_automatic).any()):
        rules = ["the error (GECOLoss)", "the tolerance (GECOLoss.natural, and the default of earlier versions)"]
        here, there = rules if criterion.follows_error.any() else reversed(rules)
        warn_user(
            f"load_state_dict: the bounds of multipliers follow {here} here and {there} in the state; the state's "
            "holds from now on"
        )


def _tolerances(members: Sequence[tuple[Constraint, slice]], rows: Mapping[str, Tensor], is_fresh: bool) -> list[str]:
    loaded = state_block.kappa_at_the_end(rows)
    return [
        f"constraint {member.name!r} has kappa={member.kappa_target:g} here and {value:g} in the state"
        for member, of_member in members
        for value in dict.fromkeys(loaded[of_member].tolist())
        if not math.isclose(value, member.kappa_target, rel_tol=1e-6) and (is_fresh or not member._kappa_has_moved())
    ]


def _schedules(members: Sequence[tuple[Constraint, slice]], rows: Mapping[str, Tensor]) -> list[str]:
    if "schedule_step" not in rows:
        return []
    return [
        f"constraint {member.name!r} has a schedule here and none in the state"
        for member, of_member in members
        if member._schedule is not None
        and not (rows["schedule_steps"][of_member].any() or rows["schedule_step"][of_member].any())
    ]
