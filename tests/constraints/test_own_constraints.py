"""Constraints of a user's own: scale, natural multiplier and bounds from kappa alone, and met without setting any."""

import math

import pytest
import torch

import geco_ext
from geco_ext import GECOLoss, MultiplierUpdate


def step(criterion, error):
    x = torch.zeros(2, 1, 4, 4, device=criterion.kappa.device)
    return criterion(x + error, x, x.new_ones(2))


class Deviation(geco_ext.Constraint):
    def forward(self, x_hat, x, labels=None):
        return (x_hat - x).abs().mean((1, 2, 3)) - self.kappa


def test_scale_and_multiplier_of_a_constraint_of_ones_own_follow_kappa(backend, device):
    """s = kappa and lambda* = D / (2 s) until the constraint gives them; D = 16 here, bounds three times above."""
    criterion = GECOLoss.natural([Deviation(0.1)], update=MultiplierUpdate(lr=0.0, proportional=0.0)).to(device)
    step(criterion, error=0.5)
    assert float(criterion.multiplier) == pytest.approx(16 / (2 * 0.1))
    criterion.update = MultiplierUpdate(lr=1.0, proportional=0.0)
    for kappa in (0.1, 0.4):
        criterion.constraints[0].kappa = kappa
        for _ in range(4):
            step(criterion, error=0.9)
        assert float(criterion.multiplier) == pytest.approx(3 * 16 / (2 * kappa))
        share = 1 + float(criterion.moving_average) / kappa
        assert float(criterion.violation) == pytest.approx(min(1.0, math.log(share)))


@pytest.mark.parametrize(
    ("given", "natural"), [({"scale": 0.5}, 16), ({"natural_multiplier": 7.0}, 7), ({"kappa": 0.0}, 8)]
)
def test_a_constraint_may_give_its_scale_or_its_multiplier(backend, device, given, natural):
    constraint = Deviation(0.1)
    for name, value in given.items():
        setattr(constraint, name, value)
    criterion = GECOLoss.natural([constraint], update=MultiplierUpdate(lr=0.0, proportional=0.0)).to(device)
    step(criterion, error=0.5)
    assert float(criterion.multiplier) == pytest.approx(natural)


class Brightness(geco_ext.Constraint):
    def forward(self, x_hat, x, labels=None):
        return (x_hat.mean((1, 2, 3)) - x.mean((1, 2, 3))).abs() - self.kappa


class Edges(geco_ext.Constraint):
    def forward(self, x_hat, x, labels=None):
        difference = x_hat - x
        return (
            difference.diff(dim=2).abs().mean((1, 2, 3)) + difference.diff(dim=3).abs().mean((1, 2, 3))
        ) - self.kappa


@pytest.mark.parametrize("kappa", [0.1, 0.2])
@pytest.mark.parametrize("constraint", [Deviation, Brightness, Edges])
def test_it_is_met_within_five_percent_without_setting_anything(constraint, kappa):
    """A decoder whose noise costs -log sigma nats a pixel: lambda is D / kappa in the end, from any starting sigma.

    That is twice the natural multiplier: the noise does not shrink at first, until the bound has opened.
    """
    criterion = GECOLoss(constraint(kappa))
    x = torch.zeros(16, 1, 8, 8)
    log_sigma = torch.tensor(-1.0, requires_grad=True)
    optimizer = torch.optim.Adam([log_sigma], lr=0.03)
    for _ in range(1200):
        loss = criterion(x + log_sigma.exp() * torch.randn_like(x), x, -64 * log_sigma)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert abs(float(criterion.moving_average)) <= 0.05 * kappa
    assert float(criterion.multiplier) == pytest.approx(64 / kappa, rel=0.1)


def test_scale_and_multiplier_are_fixed_once_a_criterion_has_taken_them():
    constraint = Deviation(0.1)
    constraint.scale = 0.5
    criterion = GECOLoss([constraint])
    for name in ("scale", "natural_multiplier"):
        with pytest.raises(AttributeError, match=f"^{name}: .*'deviation'.*only kappa"):
            setattr(constraint, name, 2.0)
    assert constraint.scale == criterion.constraints[0].scale == 0.5


LABELS = torch.tensor([0, 1])


class WithoutLabels(geco_ext.Constraint):
    def forward(self, x_hat, x):
        return (x_hat - x).abs().mean((1, 2, 3)) - self.kappa


class WeighingWithoutLabels(geco_ext.Constraint):
    def forward(self, x_hat, x, weight=None):
        error = (x_hat - x).abs()
        return (error if weight is None else error * weight).mean((1, 2, 3)) - self.kappa


class Labelled(geco_ext.Constraint):
    def forward(self, x_hat, x, labels=None):
        assert labels is LABELS
        return (x_hat - x).abs().mean((1, 2, 3)) - self.kappa


class LabelsByAnotherName(Labelled):
    def forward(self, x_hat, x, y):
        return super().forward(x_hat, x, y)


class LabelsByName(Labelled):
    def forward(self, x_hat, x, *, labels):
        return super().forward(x_hat, x, labels)


class LabelsLast(Labelled):
    def forward(self, x_hat, x, weight=None, labels=None):
        assert weight is None or weight.shape == x.shape
        return super().forward(x_hat, x, labels)


class Anything(Labelled):
    def forward(self, *images, **named):
        return super().forward(*images, **named)


@pytest.mark.parametrize(
    "constraint",
    [WithoutLabels, WeighingWithoutLabels, Labelled, LabelsByAnotherName, LabelsByName, LabelsLast, Anything],
)
def test_a_forward_is_given_the_labels_it_takes(constraint):
    criterion = GECOLoss(constraint(0.1), multiplier_init=2.0)
    x = torch.zeros(2, 1, 4, 4)
    assert float(criterion(x + 0.2, x, x.new_ones(2), LABELS)) == pytest.approx(1 + 2 * 0.1)
    assert float(criterion.evaluate(x + 0.2, x, labels=LABELS).popitem()[1]) == pytest.approx(0.1)
    if constraint._weighs:
        weighed = criterion.evaluate(x + 0.2, x, labels=LABELS, weight=torch.ones_like(x))
        assert float(weighed.popitem()[1]) == pytest.approx(0.1)


def test_an_init_that_leaves_out_that_of_the_base_class_or_calls_it_too_late():
    class Forgetful(Deviation):
        def __init__(self, kappa):
            self.tolerance = kappa

    class Early(Deviation):
        def __init__(self, kappa):
            self.kappa = kappa
            super().__init__()

    for name, make in (
        ("Forgetful", lambda: GECOLoss([Deviation(0.1), Forgetful(0.1)])),
        ("Early", lambda: Early(0.1)),
    ):
        with pytest.raises(
            ValueError, match=rf"^constraint {name}: .* write super\(\).__init__\(kappa\) as the first line"
        ):
            make()
