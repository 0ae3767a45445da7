"""Where multipliers start and between which bounds they move, by the error or by the tolerance."""

import math
import warnings

import pytest
import torch

from geco_ext import GECOLoss, MultiplierUpdate, ReconstructionError


def criterion_of(*kappas, **settings):
    return GECOLoss([ReconstructionError(k, name=f"re{i}") for i, k in enumerate(kappas)], **settings)


def step(criterion, error=0.2, batch=2, kl=1.0):
    x = torch.zeros(batch, 1, 4, 4, device=criterion.kappa.device)
    return criterion(x + error, x, x.new_full((batch,), kl))


def test_natural_start_is_the_gaussian_likelihood_with_sigma_kappa():
    criterion = GECOLoss.natural([ReconstructionError(0.1)])
    assert criterion.multiplier.isnan().all()
    loss = step(criterion, error=0.2)
    assert float(loss) == pytest.approx(1.0 + 16 / (2 * 0.01) * (0.04 - 0.01), rel=1e-6)


def test_natural_bounds_follow_kappa():
    criterion = GECOLoss.natural([ReconstructionError(0.1, name="re0")])
    for _ in range(400):
        step(criterion, error=0.5)
    assert float(criterion.multiplier) == pytest.approx(3 * 16 / (2 * 0.01))
    assert float(criterion.metrics()["at_bound/re0"]) == 1.0
    criterion.constraints[0].kappa = 0.4
    step(criterion, error=0.5)
    assert float(criterion.multiplier) == pytest.approx(3 * 16 / (2 * 0.16))
    for _ in range(2000):
        step(criterion, error=0.0)
    assert float(criterion.multiplier) == pytest.approx(16 / (2 * 0.16) / 1000)
    assert float(criterion.metrics()["at_bound/re0"]) == 0.0


def test_automatic_multipliers_follow_the_error():
    criterion = criterion_of(0.1, alpha=0.0)
    for error in (0.5, 0.49, 0.48):
        step(criterion, error=error)
        opening = float(criterion.bound_opening)
        assert float(criterion.multiplier) == pytest.approx(math.exp(opening) * 16 / (2 * error**2), rel=1e-6)
    assert opening == pytest.approx(3 * 0.002)  # a little more in every step in which it would be more
    for _ in range(1000):
        step(criterion, error=0.5)
    assert float(criterion.bound_opening) == pytest.approx(math.log(3))
    assert float(criterion.multiplier) == pytest.approx(3 * 16 / (2 * 0.25), rel=1e-6)
    for _ in range(2000):
        step(criterion, error=0.0)
    assert float(criterion.multiplier) == pytest.approx(16 / (2 * 0.01) / 1000)
    assert float(criterion.bound_opening) == pytest.approx(math.log(3))


def test_an_outlier_does_not_take_a_constraint_its_weight():
    criterion = criterion_of(0.1)
    for _ in range(800):
        step(criterion, error=0.1001)
    before = float(criterion.multiplier)
    step(criterion, error=3.0)
    for _ in range(50):
        step(criterion, error=0.1)
        assert float(criterion.multiplier) > before / 2.1


def test_an_automatic_start_of_a_tight_tolerance_is_no_more_than_that_of_an_error_of_one():
    loss = step(criterion_of(0.001), error=0.5)
    assert float(loss) == pytest.approx(1.0 + 16 / 2 * (0.25 - 1e-6), rel=1e-5)
    loss = step(criterion_of(0.1, multiplier_bounds=(50.0, 100.0)), error=0.5)
    assert float(loss) == pytest.approx(1.0 + 50 * (0.25 - 0.01), rel=1e-5)


def test_an_automatic_start_is_not_resolved_by_a_part_of_a_step():
    criterion = criterion_of(0.1, accumulation_steps=2, update=MultiplierUpdate(lr=0.0, proportional=0.0))
    step(criterion, error=0.5)
    assert criterion.multiplier.isnan().all()
    step(criterion, error=0.3)
    assert float(criterion.multiplier) == pytest.approx(16 / (2 * (0.25 + 0.09) / 2))


@pytest.mark.parametrize("settings", [{"multiplier_init": "natural"}, {"multiplier_bounds": ["natural"]}])
def test_start_and_bounds_are_natural_together(settings):
    with pytest.raises(ValueError, match="expected 'natural' for both or for neither"):
        criterion_of(0.1, **settings)


def test_until_it_is_resolved_an_automatic_multiplier_is_the_lowest():
    criterion = criterion_of(0.1)
    for loss in (step(criterion.eval()), step(criterion.train())):
        assert float(loss) == pytest.approx(1.0 + 16 / (2 * 0.01) / 1000 * (0.04 - 0.01), rel=1e-6)
    assert float(criterion.multiplier) == pytest.approx(16 / (2 * 0.04) * math.exp(0.002), rel=1e-6)


def test_eval_before_the_first_training_call_stores_nothing():
    criterion = criterion_of(0.1).eval()
    before = criterion._block.clone()
    loss = step(criterion)
    assert torch.equal(criterion._block.nan_to_num(nan=7.0), before.nan_to_num(nan=7.0))
    criterion.train()
    assert torch.equal(loss, step(criterion))  # the first training call starts from them
    criterion = criterion_of(0.1)
    step(criterion)
    assert math.isfinite(step(criterion.eval()))
    fixed = criterion_of(0.1, multiplier_init=2.0).eval()
    assert float(step(fixed)) == pytest.approx(1.0 + 2.0 * 0.03)


@pytest.mark.parametrize("given", [{"multiplier_init": 2.0}, {"multiplier_bounds": (1.0, 2.0)}])
def test_natural_sets_start_and_bounds_itself(given):
    with pytest.raises(ValueError, match=f"{next(iter(given))}: got .* GECOLoss.natural sets it"):
        GECOLoss.natural(ReconstructionError(0.1), **given)


def test_a_state_of_the_other_rule_is_said():
    for here, there, said in (
        (GECOLoss, GECOLoss.natural, r"follow the error .* here and the tolerance .* in the state"),
        (GECOLoss.natural, GECOLoss, r"follow the tolerance .* here and the error .* in the state"),
    ):
        with pytest.warns(UserWarning, match=said):
            here(ReconstructionError(0.1)).load_state_dict(there(ReconstructionError(0.1)).state_dict())


def test_the_rule_does_not_matter_where_bounds_are_given():
    bounds = (1e-3, 1e3)
    criterion = GECOLoss(ReconstructionError(0.1), multiplier_bounds=bounds)
    state = GECOLoss.natural(ReconstructionError(0.1)).state_dict()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        criterion.load_state_dict(state)
