"""What is said below a table of constraints: about those that are not met, and those that are met for nothing."""

import dataclasses

import pytest
import torch

import geco_ext
from geco_ext.training.evaluation import Evaluation, constraint_results, scale_of
from geco_ext.training.remarks import about_constraints


class Own(geco_ext.Constraint):
    scale = 0.5

    def forward(self, x_hat, x, labels=None):
        return x_hat.mean((1, 2, 3)) - self.kappa


def result(constraint, violation, **changes):
    """One that ended at C/s = ``violation``."""
    criterion = geco_ext.GECOLoss(constraint, multiplier_init=2.0, multiplier_bounds=(1.0, 4.0))
    c = torch.tensor([violation * scale_of(constraint, constraint.kappa)], dtype=torch.float64)
    (found,) = constraint_results(criterion, Evaluation(0.1, 5.0, c, elements=64.0), {})
    assert found.violation == pytest.approx(violation, nan_ok=True)
    return dataclasses.replace(found, **changes)


def said(*results, kl=5.0):
    *lines, what_met_means = about_constraints(results, kl)
    assert what_met_means.startswith("Met: at most 5% of the constraint's scale beyond its tolerance, here ")
    return lines


RE = geco_ext.ReconstructionError(0.1)


def test_a_constraint_that_is_met_needs_no_word():
    assert said(result(RE, 0.04, held_out_met=True), result(Own(kappa=0.3), -0.5, held_out_met=True)) == []
    assert [*about_constraints([], 5.0)] == []


def test_what_to_do_about_one_that_is_not_met():
    missed, held_back = result(RE, 0.08), result(Own(kappa=0.3), 0.08, at_bound=True)
    (line,) = said(missed)
    assert line.startswith("reconstruction_error is not met")
    assert all(remedy in line for remedy in ("more steps", "a larger model", "a looser kappa"))
    first, second = said(missed, held_back)
    assert "rests on its upper bound" in first
    assert second == line
    assert said(result(RE, float("nan"))) == []


def test_a_gap_to_what_is_held_out_is_told_from_a_training_that_failed():
    (line,) = said(result(RE, 0.0, held_out_met=False))
    assert line.startswith(
        "reconstruction_error is met on the training set and not held out: the gap is generalisation"
    )
    (line,) = said(result(RE, 0.5, held_out_met=False))
    assert "generalisation" not in line


def test_a_tolerance_that_a_constant_image_meets():
    loose = geco_ext.ReconstructionError(25.0), (0.26 / 25) ** 2 - 1
    (line,) = said(result(*loose), kl=0.08)
    assert line.startswith("kappa = 25 of reconstruction_error is looser than what a constant image gives")
    assert line.endswith("the latents carry nothing, 0.08 nats; ask for less than 0.2600.")
    assert said(result(*loose), kl=0.6) == []
    (line,) = said(result(geco_ext.PatchNCC(0.2, patch_size=4), -0.5), kl=0.08)
    assert line.endswith("ask for more than 0.6000.")
    (line,) = said(result(Own(kappa=0.3), -0.5), kl=0.08)
    assert line.endswith("tighten it.")
    (line,) = said(result(RE, -0.02), kl=0.08)
    assert line.startswith("reconstruction_error is met with next to no KL: the latents carry nothing")


@pytest.mark.parametrize(
    ("constraint", "enough"),
    [
        (geco_ext.ReconstructionError(0.1), "reconstruction_error <= 0.1025"),
        (geco_ext.AbsoluteError(0.2), "absolute_error <= 0.21"),
        (geco_ext.PatchNCC(0.9, patch_size=4), "patch_ncc >= 0.895"),
        (Own(kappa=0.3), "own C <= 0.025"),
    ],
)
def test_what_counts_as_met_is_said_in_the_quantity_of_the_constraint(constraint, enough):
    inside, outside = result(constraint, 0.049), result(constraint, 0.051)
    assert [*about_constraints([inside], 5.0)][-1].endswith(f"here {enough}.")
    assert (inside.met, outside.met) == (True, False)
    limit = float(enough.rpartition(" ")[2])
    assert inside.reached < limit < outside.reached or inside.reached > limit > outside.reached
