"""Several windowed constraints in one criterion, beside reconstruction errors: the sum of the parts."""

import functools

import oracle
import pytest
import torch
from torch.autograd import gradcheck
from windows import Window, doubled, kinds, name_of, operator_arguments, pair

from geco_ext import GECOLoss, LocalStatistics, PatchNCC, ReconstructionError

SHAPE = (3, 2, 17, 14)

# One geometry for several terms, other geometries beside it.
WINDOWS = [
    (0.9, Window("ncc", 8)),
    (0.5, Window("ncc", 8, eps=1e-2)),
    (0.2, Window("local", 8, eps=1e-3)),
    (0.7, Window("ncc", 8, per_channel=True)),
    (0.1, Window("ncc", 3, stride=2, eps=1e-3)),
    (0.3, Window("local", 5, stride=7)),
    (0.4, Window("local", 14)),
    (0.6, Window("ncc", 8, stride=3)),
    (0.8, Window("ssim", 8, per_channel=True)),
]
SAME_GEOMETRY = WINDOWS[:4]
PER_CHANNEL = WINDOWS[3:4]
MANY = [(0.3, window) for exponent in range(4) for window in kinds(5, 2, eps=10.0**-exponent)]


def constraints(tolerances_and_windows=WINDOWS):
    return [
        ReconstructionError(0.1),
        *[w.constraint(kappa, name=f"window {i}") for i, (kappa, w) in enumerate(tolerances_and_windows)],
        ReconstructionError(0.2, channels=2, name="channel"),
        ReconstructionError(0.3, reduction="sum", name="total"),
    ]


def expected_vector(x_hat, x, tolerances_and_windows=WINDOWS):
    parts = [oracle.squared_error(x_hat, x, 0.1)]
    parts += [w.expected(x_hat, x, kappa) for kappa, w in tolerances_and_windows]
    parts += [*oracle.squared_error_per_channel(x_hat, x, 0.2), oracle.squared_error(x_hat, x, 0.3, "sum")]
    return torch.stack(parts)


def multipliers(count):
    """Sizes as they occur: the gradients of all parts matter."""
    return [1e-3 if i == count - 1 else 1.0 + 0.5 * i for i in range(count)]


def close(got, expected, tolerance):
    assert (got.double().cpu() - expected).norm() <= tolerance * expected.norm()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "parts",
    [WINDOWS, SAME_GEOMETRY, PER_CHANNEL, WINDOWS[4:5], MANY],
    ids=["all", "same geometry", "per channel", "one", "many"],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_sum_of_the_parts(backend, device, parts, training, dtype):
    x_hat, x = pair("random", SHAPE, dtype, device)
    y_hat, y = doubled(x_hat, x)
    vector = expected_vector(y_hat, y, parts)
    weights = multipliers(len(vector))
    criterion = GECOLoss(constraints(parts), multiplier_init=weights).to(device)
    criterion.train(training)
    kl = torch.full((3,), 2.0, device=device)
    if parts is MANY and backend == "cuda":  # its tables are of limited size; nothing moves
        with pytest.raises(RuntimeError, match="it takes at most"):
            criterion(x_hat, x, kl)
        assert int(criterion.steps) == 0
        return
    loss = criterion(x_hat, x, kl)
    (gradient,) = torch.autograd.grad(loss, x_hat)
    expected_loss = 2.0 + (torch.tensor(weights, dtype=torch.float64) * vector).sum()
    (expected_gradient,) = torch.autograd.grad(expected_loss, y_hat)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-6
    assert loss.item() == pytest.approx(expected_loss.item(), rel=10 * tolerance)
    close(gradient, expected_gradient, 1e-10 if dtype == torch.float64 else 1e-5)
    if training:
        allowed = [10 * tolerance if n == "total" else tolerance for n in criterion.names]
        for got, wanted, tolerance in zip(criterion.last_constraint.tolist(), vector.tolist(), allowed, strict=True):
            assert got == pytest.approx(wanted, abs=tolerance)


@pytest.mark.parametrize("window", kinds(5, 2), ids=name_of)
def test_one_constraint_alone(backend, device, window):
    """Without a reconstruction error that would write the gradient first."""
    x_hat, x = pair("random", SHAPE, device=device)
    criterion = GECOLoss([window.constraint(0.5)], multiplier_init=3.0).to(device)
    criterion(x_hat, x, torch.zeros((), device=device)).backward()
    y_hat, y = doubled(x_hat, x)
    expected = window.expected(y_hat, y, 0.5)
    assert criterion.last_constraint.item() == pytest.approx(expected.item(), abs=1e-6)
    close(x_hat.grad, 3 * torch.autograd.grad(expected, y_hat)[0], 1e-5)


def test_beside_one_reconstruction_error_of_all_channels(backend, device):
    x_hat, x = pair("random", SHAPE, device=device)
    criterion = GECOLoss([ReconstructionError(0.1), PatchNCC(0.9, 5, per_channel=True)], multiplier_init=2.0).to(device)
    criterion(x_hat, x, torch.zeros((), device=device)).backward()
    y_hat, y = doubled(x_hat, x)
    parts = oracle.squared_error(y_hat, y, 0.1), oracle.patch_ncc(y_hat, y, 0.9, 5, per_channel=True)
    assert criterion.last_constraint.tolist() == pytest.approx([part.item() for part in parts], abs=1e-6)
    close(x_hat.grad, 2 * torch.autograd.grad(sum(parts), y_hat)[0], 1e-5)


def test_no_gradient_wanted(backend, device):
    """The same constraints, without a buffer."""
    x_hat, x = pair("random", SHAPE, device=device)
    kl = torch.rand(3, device=device)
    criteria = [GECOLoss(constraints(), multiplier_init=1.0).to(device) for _ in range(3)]
    losses = [criteria[0](x_hat, x, kl), criteria[1](x_hat.detach(), x, kl)]
    with torch.no_grad():
        losses.append(criteria[2](x_hat, x, kl))
    assert [loss.requires_grad for loss in losses] == [True, False, False]
    for criterion, loss in zip(criteria, losses, strict=True):
        assert loss.item() == pytest.approx(losses[0].item(), rel=1e-6)
        assert criterion.last_constraint.tolist() == pytest.approx(criteria[0].last_constraint.tolist(), abs=1e-6)


def test_multipliers_start_at_the_natural_ones(backend, device):
    """lambda* = D / (2 s): D the image elements for correlations, two numbers a patch for local statistics."""
    x_hat, x = pair("random", SHAPE, device=device)
    criterion = GECOLoss.natural(
        [PatchNCC(0.9, 8), PatchNCC(0.5, 3, stride=2, per_channel=True, name="b"), LocalStatistics(0.2, 5, stride=4)]
    ).to(device)
    loss = criterion(x_hat, x, torch.zeros((), device=device))
    natural = [17 * 14 * 2 / 0.2, 17 * 14 * 2 / 1.0, 2 * 4 * 3 / 0.08]
    terms = zip(natural, criterion.last_constraint.tolist(), strict=True)
    assert loss.item() == pytest.approx(sum(n * c for n, c in terms), rel=1e-6)


def test_a_kappa_that_changes(backend, device):
    criterion = GECOLoss([PatchNCC(0.9, 4), LocalStatistics(0.1, 4)], multiplier_init=1.0).to(device)
    x_hat, x = pair("random", SHAPE, device=device)
    criterion(x_hat, x, torch.zeros((), device=device))
    first = criterion.last_constraint
    criterion.constraints[0].kappa = 0.7
    criterion.constraints[1].kappa = 0.3
    criterion(x_hat, x, torch.zeros((), device=device))
    change = (criterion.last_constraint - first).tolist()
    assert change == pytest.approx([0.7 - 0.9, 0.1**2 - 0.3**2], abs=1e-12)


def test_a_batch_that_is_not_finite_is_skipped(backend, device):
    criterion = GECOLoss(constraints()).to(device)
    x_hat, x = pair("random", SHAPE, device=device)
    criterion(x_hat, x, torch.zeros(3, device=device))
    before = {name: value.clone() for name, value in criterion.state_dict().items() if name != "skipped"}
    x = x.clone()
    x[2, 1, 16, 13] = torch.nan
    assert not criterion(x_hat, x, torch.zeros(3, device=device)).isfinite()
    assert int(criterion.skipped) == 1
    for name, value in before.items():
        assert torch.equal(criterion.state_dict()[name], value), name


def test_one_process_of_several(backend, device):
    """Sums over the batch, to be added up over processes."""
    x_hat, x = pair("random", SHAPE, device=device)
    parts = [(0.9, Window("ncc", 8)), (0.5, Window("ncc", 3, 2)), (0.2, Window("local", 5))]
    arguments = operator_arguments(parts, x_hat, x)
    sums = torch.ops.geco_ext.constraint_sums.default(*arguments)
    y_hat, y = doubled(x_hat, x)
    expected = torch.stack([w.expected(y_hat, y, kappa) for kappa, w in parts])
    assert sums.tolist() == pytest.approx([*(3 * expected).tolist(), 3], abs=3e-6)
    (gradient,) = arguments[7]
    close(gradient, torch.autograd.grad(expected.sum(), y_hat)[0], 1e-5)


@pytest.mark.parametrize("window", kinds(3, 2, eps=1e-2), ids=name_of)
def test_gradcheck_of_a_functional(backend, device, slow, window):
    x_hat, x = pair("random", (1, 2, 3, 4) if slow else (2, 2, 5, 4), torch.float64, device)
    assert gradcheck(functools.partial(window.functional, kappa=0.3), (x_hat, x.requires_grad_()), fast_mode=slow)


def test_gradcheck_of_the_evaluation_loss(backend, device, slow):
    parts = [(kappa, w._replace(patch=2 + w.patch % 2, eps=1e-2)) for kappa, w in WINDOWS[:6]]
    x_hat, x = pair("random", (1, 2, 3, 4) if slow else (2, 2, 5, 4), torch.float64, device)
    weights = multipliers(len(expected_vector(*doubled(x_hat, x), parts)))
    criterion = GECOLoss(constraints(parts), multiplier_init=weights).to(device).eval()
    kl = torch.rand(len(x), dtype=torch.float64, device=device, requires_grad=True)
    assert gradcheck(lambda a, k: criterion(a, x, k), (x_hat, kl), fast_mode=slow)


MISFITS = {
    "patch too large": ((2, 3, 16, 4), "patch_size: got 5, expected at most the image's height and width"),
    "other channels": ((2, 1, 16, 16), "expected 3 channels"),
    "no batch": ((3, 16, 16), "x_hat: got shape"),
    "empty": ((0, 3, 16, 16), "got the empty shape"),
}


misfits = pytest.mark.parametrize(
    ("case", "training"), [(case, training) for case in MISFITS for training in (True, False)]
)


def assert_refused(case, training, device):
    """By name, and the state stays as it is."""
    shape, message = MISFITS[case]
    criterion = GECOLoss([ReconstructionError(0.1, channels=3), PatchNCC(0.9, 5), LocalStatistics(0.1, 3)]).to(device)
    x_hat, x = pair("random", (2, 3, 8, 8), device=device)
    kl = torch.zeros((), device=device)
    criterion(x_hat, x, kl)
    before = {name: value.clone() for name, value in criterion.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        criterion.train(training)(torch.zeros(shape, device=device), torch.zeros(shape, device=device), kl)
    for name, value in criterion.state_dict().items():
        assert torch.equal(value, before[name]), name


@misfits
def test_images_that_do_not_fit(backend, device, case, training):
    assert_refused(case, training, device)


@misfits
def test_images_that_do_not_fit_where_no_backend_is_asked_for(case, training):
    """The short way that a criterion of images alone takes on the CPU refuses the same."""
    assert_refused(case, training, torch.device("cpu"))
