"""Before anything is timed: do all candidates compute the same?"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from candidates import Step
from torch import Tensor

# Of the gradient's norm, and of the image elements (the size of lambda times the tolerance) for the loss.
TOLERANCE = {torch.float32: 5e-5, torch.float16: 1e-3, torch.bfloat16: 4e-3}
# It loses digits by its nature and takes part all the same: the benefit of the doubt is the baseline's.
ROUGH_FORMS = {"F.mse_loss in bfloat16": 2e-2}


def check_agreement(steps: Mapping[str, Step]) -> None:
    """Three steps of every candidate beside those of ``reference``, on images that move in between.

    The loss of a step holds the average and the multiplier that the steps before have left, so a candidate that
    updates them otherwise does not pass either. The candidates have gone three steps afterwards.

    Raises:
        AssertionError: a loss or a gradient differs; the message names candidate and step.
    """
    expected = _three_steps(steps["reference"])
    for name, step in steps.items():
        if name == "reference":
            continue
        dtype, elements = step.x.dtype, step.x[0].numel()
        tolerance = ROUGH_FORMS.get(name.split(": ")[-1], TOLERANCE[dtype])
        for index, (found, wanted) in enumerate(zip(_three_steps(step), expected, strict=True)):
            gaps = {
                "loss": (found[0] - wanted[0]).abs() / elements,
                "gradient of x_hat": _distance(found[1], wanted[1]),
                "gradient of kl": _distance(found[2], wanted[2]),
            }
            for what, gap in gaps.items():
                assert gap <= tolerance, f"{name}, step {index}: its {what} is off by {gap:.1e}, over {tolerance:.0e}"


def _three_steps(step: Step) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Loss and gradients, float64."""
    results = []
    for _ in range(3):
        loss = step().detach()
        results.append((loss.double(), step.x_hat.grad.double(), step.kl.grad.double()))
        step.x_hat.data.lerp_(step.x, -0.15)
    return results


def _distance(found: Tensor, wanted: Tensor) -> Tensor:
    return (found - wanted).norm() / wanted.norm()
