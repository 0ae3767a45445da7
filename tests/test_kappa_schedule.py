"""Tolerances that tighten while a model trains: the same on every backend, in the state, and never ahead of a batch."""

import copy
import io
import math
import warnings

import pytest
import torch

from geco_ext import (
    AbsoluteError,
    Constraint,
    GECOLoss,
    KappaSchedule,
    PatchNCC,
    ReconstructionError,
    use_backend,
)
from geco_ext.state import LATER_ROWS

SHAPES = ("geometric", "linear")


class Brightness(Constraint):
    """Of a user's own, with the tolerance as it is."""

    def forward(self, x_hat, x, labels=None):
        return (x_hat.mean((1, 2, 3)) - x.mean((1, 2, 3))).abs() - self.kappa_tensor


class Scaled(Brightness):
    scale = 0.25


def similarity(kappa):
    return PatchNCC(kappa, patch_size=3)


def step(criterion, error=0.5, kl=1.0, size=4):
    device = criterion.kappa.device
    x = torch.linspace(0, 1, 2 * size * size, device=device).reshape(2, 1, size, size)
    return criterion(x + error, x, x.new_full((2,), kl))


def in_force(criterion, steps, **step_settings):
    """Kappa after each step."""
    seen = []
    for _ in range(steps):
        step(criterion, **step_settings)
        seen.append(criterion.kappa.tolist()[0])
    return seen


def expected(start, target, steps, shape, t):
    share = min(t / steps, 1.0)
    return start * (target / start) ** share if shape == "geometric" else start + (target - start) * share


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("make", [ReconstructionError, AbsoluteError, Brightness])
def test_an_error_is_tightened_step_by_step(backend, device, make, shape):
    schedule = KappaSchedule(target=0.05, steps=4, start=0.4, shape=shape)
    criterion = GECOLoss(make(kappa=schedule)).to(device)
    assert criterion.kappa.tolist() == [0.4]
    seen = in_force(criterion, 6)
    assert seen == pytest.approx([expected(0.4, 0.05, 4, shape, t) for t in range(1, 7)], rel=1e-12)
    assert seen[3:] == [0.05] * 3
    assert criterion.constraints[0].kappa == criterion.constraints[0].kappa_target == 0.05


@pytest.mark.parametrize("shape", SHAPES)
def test_of_a_similarity_it_is_the_rest_to_one_that_shrinks(backend, device, shape):
    criterion = GECOLoss(PatchNCC(KappaSchedule(0.9, steps=4, start=0.2, shape=shape), patch_size=3)).to(device)
    seen = in_force(criterion, 5)
    assert seen == pytest.approx([1 - expected(0.8, 0.1, 4, shape, t) for t in range(1, 6)], rel=1e-12)


@pytest.mark.parametrize(("make", "error"), [(ReconstructionError, 0.5), (Brightness, 0.5)])
def test_an_automatic_start_is_the_error_of_the_first_step(backend, device, make, error):
    criterion = GECOLoss(make(kappa=KappaSchedule(0.1, steps=10))).to(device)
    assert criterion.schedule_start.isnan().all()
    seen = in_force(criterion, 2, error=error)
    assert criterion.schedule_start.tolist() == pytest.approx([0.5], rel=1e-6)
    assert seen == pytest.approx([expected(0.5, 0.1, 10, "geometric", t) for t in (1, 2)], rel=1e-6)


def test_an_automatic_start_is_the_target_where_the_first_step_meets_it(backend, device):
    criterion = GECOLoss(ReconstructionError(KappaSchedule(0.1, steps=10))).to(device)
    assert in_force(criterion, 3, error=0.05) == [0.1] * 3


def test_average_and_violation_are_those_of_the_new_kappa(backend, device):
    criterion = GECOLoss(ReconstructionError(KappaSchedule(0.1, steps=5, start=0.4))).to(device)
    for _ in range(7):
        step(criterion, error=0.3)
        kappa = criterion.kappa.item()
        assert criterion.moving_average.item() == pytest.approx(0.09 - kappa**2, rel=1e-5)
        assert criterion.violation.item() == pytest.approx(max(-1.0, min(1.0, math.log(0.09 / kappa**2))), rel=1e-4)


@pytest.mark.parametrize("settings", [{}, {"multiplier_init": "natural", "multiplier_bounds": "natural"}])
def test_bounds_follow_the_kappa_in_force(backend, device, settings):
    criterion = GECOLoss(ReconstructionError(KappaSchedule(0.1, steps=400, start=0.4)), **settings).to(device)
    for _ in range(60):
        in_use = criterion.kappa.item()
        step(criterion, error=0.5)
    highest = math.exp(criterion.bound_opening.item()) / 0.25 if not settings else 3 / in_use**2
    assert criterion.multiplier.item() == pytest.approx(16 / 2 * highest, rel=1e-5)
    assert criterion.metrics()["at_bound/reconstruction_error"] == 1


def test_all_backends_move_the_state_alike(backend, device):
    def train(name):
        constraints = [
            ReconstructionError(KappaSchedule(0.1, steps=5), name="re"),
            PatchNCC(KappaSchedule(0.9, steps=3, start=0.1, shape="linear"), patch_size=3),
            AbsoluteError(0.2),
        ]
        criterion = GECOLoss(constraints, accumulation_steps=2).to(device)
        generator = torch.Generator().manual_seed(0)
        with use_backend(name):
            for index in range(16):
                x = torch.rand(2, 1, 6, 6, generator=generator)
                x_hat = x + 0.8**index * torch.randn(2, 1, 6, 6, generator=generator)
                kl = torch.full((2,), math.nan if index in (4, 9) else 1.0)
                criterion(x_hat.to(device), x.to(device), kl.to(device))
        return criterion.state_dict()

    got, wanted = train(backend), train("reference")
    for name, value in wanted.items():
        assert torch.allclose(got[name], value, rtol=1e-5, atol=1e-8, equal_nan=True), name


def test_what_is_not_finite_and_what_is_accumulated_does_not_move_it(backend, device):
    criterion = GECOLoss(ReconstructionError(KappaSchedule(0.1, steps=4, start=0.4)), accumulation_steps=2).to(device)
    assert in_force(criterion, 2) == [0.4, pytest.approx(expected(0.4, 0.1, 4, "geometric", 1))]
    before = criterion.kappa.item()
    assert in_force(criterion, 4, kl=math.nan) == [before] * 4
    assert criterion.schedule_step.item() == 1


def test_evaluation_judges_by_the_kappa_in_force_and_does_not_move_it(backend, device):
    criterion = GECOLoss(ReconstructionError(KappaSchedule(0.1, steps=4, start=0.4)), multiplier_init=1.0).to(device)
    in_force(criterion, 2)
    kappa, multiplier = criterion.kappa.item(), criterion.multiplier.item()
    loss = step(criterion.eval(), error=0.3)
    assert loss.item() == pytest.approx(1.0 + multiplier * (0.09 - kappa**2), rel=1e-5)
    assert criterion.kappa.item() == kappa


def test_a_number_ends_it_and_another_schedule_starts_anew():
    constraint = ReconstructionError(KappaSchedule(0.1, steps=4, start=0.4))
    criterion = GECOLoss(constraint)
    in_force(criterion, 2)
    constraint.kappa = 0.2
    assert in_force(criterion, 3) == [0.2] * 3
    assert (constraint.kappa, constraint.kappa_target) == (0.2, 0.2)
    constraint.kappa = KappaSchedule(0.1, steps=2, start=0.3, shape="linear")
    assert constraint.kappa == 0.3
    assert in_force(criterion, 3) == pytest.approx([0.2, 0.1, 0.1])


@pytest.mark.parametrize(
    ("make", "loose", "tight"), [(ReconstructionError, 0.5, 0.05), (Brightness, 0.5, 0.05), (similarity, 0.1, 0.9)]
)
def test_a_kappa_set_by_hand_takes_the_average_along(backend, device, make, loose, tight):
    """So that the bound is that of the error, not of a tolerance that was met a moment ago."""
    live, other = (GECOLoss(make(kappa), multiplier_init=1.0).to(device) for kappa in (loose, tight))
    for _ in range(3):
        step(live, error=0.4)
        step(other, error=0.4)
    live.constraints[0].kappa = tight
    assert live.moving_average.item() == pytest.approx(other.moving_average.item(), rel=1e-5)


@pytest.mark.parametrize("start", [0.4, "auto"])
def test_another_criterion_starts_it_anew(start):
    constraint = ReconstructionError(KappaSchedule(0.1, steps=4, start=start))
    first = in_force(GECOLoss(constraint), 3)
    assert in_force(GECOLoss(constraint), 3) == first


def test_kappa_is_read_from_the_state_that_moves():
    constraint = ReconstructionError(KappaSchedule(0.1, steps=4, start=0.4))
    criterion = GECOLoss(constraint)
    for _ in range(6):
        step(criterion)
        assert constraint.kappa == constraint.kappa_tensor.item() == criterion.metrics()["kappa/reconstruction_error"]
        assert constraint.kappa_target == 0.1


def test_it_goes_on_from_a_state_where_it_was():
    def make():
        return GECOLoss(ReconstructionError(KappaSchedule(0.1, steps=8)))

    criterion = make()
    in_force(criterion, 3)
    file = io.BytesIO()
    torch.save(criterion.state_dict(), file)
    file.seek(0)
    other = make()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        other.load_state_dict(torch.load(file))
    for copied in (other, copy.deepcopy(criterion)):
        assert copied.constraints[0].kappa == criterion.constraints[0].kappa
        assert in_force(copied, 7) == in_force(copy.deepcopy(criterion), 7)


def test_a_schedule_in_the_state_moves_a_constraint_that_has_none():
    criterion = GECOLoss(ReconstructionError(KappaSchedule(0.1, steps=8, start=0.4)))
    in_force(criterion, 3)
    other = GECOLoss(ReconstructionError(0.1))
    other.load_state_dict(criterion.state_dict())
    assert in_force(other, 6) == in_force(criterion, 6)
    assert other.constraints[0].kappa == 0.1


def test_a_schedule_in_the_state_is_seen_by_a_call_that_is_compiled():
    """Of a constraint that reads the number, which a graph would keep."""

    class Reads(Brightness):
        def forward(self, x_hat, x, labels=None):
            return (x_hat.mean((1, 2, 3)) - x.mean((1, 2, 3))).abs() - self.kappa

    def loaded(state):
        criterion = GECOLoss(Reads(0.1), multiplier_init=1.0)
        criterion.load_state_dict(state)
        return criterion

    saved = GECOLoss(Reads(KappaSchedule(0.1, steps=5, start=0.4)), multiplier_init=1.0).state_dict()
    torch._dynamo.reset()
    eager, compiled = loaded(saved), torch.compile(loaded(saved), backend="aot_eager")
    for _ in range(4):
        x = torch.rand(2, 1, 4, 4)
        assert torch.allclose(compiled(x + 0.3, x, torch.ones(2)), eager(x + 0.3, x, torch.ones(2)))


def test_a_schedule_that_a_state_ends_is_said():
    criterion = GECOLoss(ReconstructionError(KappaSchedule(0.1, steps=5, start=0.4)))
    with pytest.warns(UserWarning, match="has a schedule here and none in the state"):
        criterion.load_state_dict(GECOLoss(ReconstructionError(0.1)).state_dict())
    assert in_force(criterion, 2) == [0.1] * 2
    assert GECOLoss(criterion.constraints[0]).kappa.tolist() == [0.1]


def test_a_state_from_before_there_were_schedules_has_none():
    criterion = GECOLoss(ReconstructionError(KappaSchedule(0.1, steps=8, start=0.4)))
    old = GECOLoss(ReconstructionError(0.2)).state_dict()
    old = {name: value for name, value in old.items() if name not in LATER_ROWS}
    with (
        pytest.warns(UserWarning, match="kappa=0.1 here and 0.2 in the state"),
        pytest.warns(UserWarning, match="follow the error .* here and the tolerance"),
    ):
        criterion.load_state_dict(old)
    assert in_force(criterion, 3) == [0.2] * 3
    assert criterion.constraints[0].kappa_target == 0.2


def test_a_compiled_step_follows_it():
    criterion = GECOLoss([ReconstructionError(KappaSchedule(0.1, steps=4, start=0.4)), Brightness(0.3)])
    twin = copy.deepcopy(criterion)
    compiled = torch.compile(criterion, backend="aot_eager", fullgraph=True)
    for _ in range(6):
        x = torch.rand(2, 1, 4, 4)
        x_hat = (x + 0.3).requires_grad_()
        assert torch.equal(compiled(x_hat, x, torch.ones(2)), twin(x_hat, x, torch.ones(2)))
        assert torch.equal(criterion.kappa, twin.kappa)


def test_a_step_calls_no_more_operators_with_it():
    def operators(kappa):
        criterion = GECOLoss(ReconstructionError(kappa))
        step(criterion)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
            step(criterion)
        return sorted((event.key, event.count, event.self_cpu_memory_usage) for event in profile.key_averages())

    assert operators(KappaSchedule(0.1, steps=8)) == operators(0.1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps: got 0, expected an integer >= 1"),
        ({"steps": 2.5}, "steps: got 2.5"),
        ({"steps": 2, "shape": "round"}, "shape: got 'round', expected 'geometric' or 'linear'"),
        ({"steps": 2, "start": math.nan}, "start: got nan, expected a number or 'auto'"),
        ({"steps": 2, "start": "loose"}, "start: got 'loose'"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        KappaSchedule(0.1, **settings)


@pytest.mark.parametrize(
    ("make", "schedule", "message"),
    [
        (ReconstructionError, KappaSchedule(0.1, 5, start=0.05), "start: got 0.05, which is tighter than the target"),
        (lambda kappa: PatchNCC(kappa, 3), KappaSchedule(0.8, 5, start=0.9), "start: got 0.9, which is tighter"),
        (ReconstructionError, KappaSchedule(0.0, 5), "kappa: got 0.0, expected one that leaves"),
        (Brightness, KappaSchedule(0.0, 5, shape="linear"), "target: got 0, expected one that leaves a tolerance"),
        (Scaled, KappaSchedule(0.1, 5), "kappa: got a schedule, and Scaled has a scale of its own, 0.25"),
        (ReconstructionError, KappaSchedule(-1.0, 5), "kappa: got -1.0"),
    ],
)
def test_a_schedule_that_the_constraint_cannot_follow_changes_nothing(make, schedule, message):
    with pytest.raises(ValueError, match=message):
        make(kappa=schedule)
    constraint = make(kappa=0.5)
    criterion = GECOLoss(constraint)
    before = criterion._block.clone()
    with pytest.raises(ValueError, match=message):
        constraint.kappa = schedule
    assert torch.equal(criterion._block.view(torch.int64), before.view(torch.int64))
    assert constraint.kappa == 0.5
