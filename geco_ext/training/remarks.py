"""What a table of constraints does not say by itself: what to do where one is not met, or is met for nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from geco_ext.training.bounds import WHAT_TO_DO
from geco_ext.training.evaluation import ConstraintResult
from geco_ext.training.met import MET_WITHIN, SLACK_KL, is_far_below


def about_constraints(results: Sequence[ConstraintResult], kl: float) -> Iterator[str]:
    """One sentence a line; none where there are no constraints.

    Args:
        results: how each of them ended.
        kl: mean KL of the training set in nats.
    """
    if not results:
        return
    yield from (_at_bound(result) for result in results if result.at_bound and not result.met)
    missed = [each for each in results if not each.met and not each.at_bound and math.isfinite(each.violation)]
    if missed:
        yield (
            f"{_names(missed)} not met, and its multiplier is not at its bound: what helps is more steps (geco train "
            "--resume RUN --steps N), a larger model (--model-option) or a looser kappa."
        )
    if kl < SLACK_KL:
        yield from (_carrying_nothing(result, kl) for result in results if result.met)
    elsewhere = [each for each in results if each.met and each.held_out_met is False]
    if elsewhere:
        yield (
            f"{_names(elsewhere)} met on the training set and not held out: the gap is generalisation. More data "
            "narrow it; a tighter kappa lowers both."
        )
    limits = ", ".join(f"{each.name} {each.counts_as_met}" for each in results)
    yield f"Met: at most {MET_WITHIN:.0%} of the constraint's scale beyond its tolerance, here {limits}."


def _at_bound(result: ConstraintResult) -> str:
    return (
        f"The multiplier of {result.name} rests on its upper bound ({format_number(result.multiplier)}) and the "
        f"constraint is not met: it cannot weigh more; {WHAT_TO_DO}. Where neither helps, kappa = {result.kappa:g} "
        "asks for more than the model can give."
    )


def _carrying_nothing(result: ConstraintResult, kl: float) -> str:
    asks_for = "more" if result.asked.startswith(">") else "less"
    advice = f"ask for {asks_for} than {result.reached:.4f}" if result.deviation_percent is not None else "tighten it"
    said = (
        f"kappa = {result.kappa:g} of {result.name} is looser than what a constant image gives (or the context alone, "
        "in a conditional model)"
        if is_far_below(result.violation)
        else f"{result.name} is met with next to no KL"
    )
    return f"{said}: the latents carry nothing, {kl:.2f} nats; {advice}."


def _names(results: Sequence[ConstraintResult]) -> str:
    return ", ".join(result.name for result in results) + (" is" if len(results) == 1 else " are")


def format_number(multiplier: float) -> str:
    """A multiplier as people write it: no exponent where digits will do."""
    return f"{multiplier:.0f}" if 1000 <= multiplier < 1e7 else f"{multiplier:.4g}"
