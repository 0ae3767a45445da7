"""StructuralSimilarity: what it is besides a windowed constraint (test_windows*.py)."""

import pytest
import torch
from windows import FLOATS, PICTURES, Window, assert_as_the_oracle, pair

from geco_ext import GECOLoss, LocalStatistics, PatchNCC, ReconstructionError, StructuralSimilarity
from geco_ext.functional import structural_similarity

SHAPE = (2, 3, 14, 15)


@pytest.mark.parametrize("patch", [3, 7, 11])
@pytest.mark.parametrize("picture", ["random", "photograph", "digits"])
@pytest.mark.parametrize("data_range", [1.0, 255.0])
def test_agrees_with_scikit_image(backend, device, picture, patch, data_range):
    metrics = pytest.importorskip("skimage.metrics")
    x_hat, x = (data_range * image.detach() for image in pair(picture, SHAPE, torch.float64))
    _, maps = metrics.structural_similarity(
        x_hat.flatten(0, 1).numpy(),
        x.flatten(0, 1).numpy(),
        win_size=patch,
        data_range=data_range,
        gaussian_weights=False,
        use_sample_covariance=False,
        channel_axis=0,
        full=True,
    )
    border = (patch - 1) // 2
    inside = maps[:, border : SHAPE[2] - border, border : SHAPE[3] - border]
    got = structural_similarity(x_hat.to(device), x.to(device), kappa=0.5, patch_size=patch, data_range=data_range)
    assert got.item() == pytest.approx(0.5 - inside.mean(), abs=1e-9)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("picture", PICTURES)
@pytest.mark.parametrize("patch", [1, 4, 11])
def test_identical_images_give_exactly_one(backend, device, picture, dtype, patch):
    x, _ = pair(picture, SHAPE, dtype, device)
    value = structural_similarity(x, x.detach().clone(), kappa=0.0, patch_size=patch)
    (gradient,) = torch.autograd.grad(value, x)
    assert value.item() == pytest.approx(-1.0, abs=1e-15 if dtype == torch.float64 else 0)
    # What pulls is the rounding of x[j] * box(A)[j] - x_hat[j] * box(B)[j] + box(D)[j].
    strongest = Window("ssim", patch, eps=1e-4, per_channel=True).attainable(x.detach().double().cpu())
    assert gradient.double().norm().item() <= 5e-5 * strongest


@pytest.mark.parametrize("levels", [(0.0, 0.0), (0.2, 0.6), (1.0, 0.0), (-0.5, 0.5)])
def test_flat_images_differ_by_their_luminance(backend, device, levels):
    x_hat, x = (torch.full(SHAPE, level, device=device) for level in levels)
    value = structural_similarity(x_hat, x, kappa=0.0, patch_size=4)
    a, b = levels
    assert value.item() == pytest.approx(-(2 * a * b + 1e-4) / (a * a + b * b + 1e-4), abs=1e-6)
    assert_as_the_oracle(Window("ssim", 4, eps=1e-4, per_channel=True), x_hat.requires_grad_(), x, vanishing=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("picture", ["random", "photograph", "half_flat", "far_off"])
def test_stays_within_one(backend, device, slow, picture, dtype):
    """A window as large as the image: the value is one similarity."""
    for side in (1, 4, 7) if slow else range(1, 8):
        x_hat, x = pair(picture, (1, 1, side, side), dtype, device)
        for other in (x, -x_hat.detach(), x_hat.detach() * 1.001, 1 - x_hat.detach()):
            assert -1.0 <= structural_similarity(x_hat, other, kappa=0.0, patch_size=side).item() <= 1.0


@pytest.mark.parametrize("brightness", [1.0, 50.0])
@pytest.mark.parametrize("patch", [4, 5])
def test_dark_beside_bright(backend, device, brightness, patch):
    """Each half as good as if the other were not there, in float32."""
    x_hat, x = (image.detach() for image in pair("random", (1, 1, 20, 24), torch.float64))
    for image in (x_hat, x):
        image[..., 12:] += brightness
    window = Window("ssim", patch, eps=1e-4, per_channel=True)
    narrow = [image.float().to(device) for image in (x_hat, x)]
    value = window.functional(narrow[0].requires_grad_(), narrow[1])
    (gradient,) = torch.autograd.grad(value, narrow[0])
    y_hat, y = narrow[0].detach().double().cpu().requires_grad_(), narrow[1].double().cpu()
    expected = window.expected(y_hat, y)
    (expected_gradient,) = torch.autograd.grad(expected, y_hat)
    assert value.item() == pytest.approx(expected.item(), abs=1e-6)
    for half in (slice(0, 12 - patch + 1), slice(12 + patch - 1, 24)):
        error = (gradient.double().cpu() - expected_gradient)[..., half].norm()
        assert error <= 1e-4 * expected_gradient[..., half].norm()


def test_the_rule_of_its_multiplier(backend, device):
    """lambda* = D / (2 s), D the image elements, s = 1 - kappa."""
    x_hat, x = pair("random", SHAPE, device=device)
    criterion = GECOLoss.natural([StructuralSimilarity(0.6, 5)]).to(device)
    loss = criterion(x_hat, x, torch.zeros((), device=device))
    assert list(criterion.names) == ["structural_similarity"]
    assert loss.item() == pytest.approx(3 * 14 * 15 / (2 * 0.4) * criterion.last_constraint.item(), rel=1e-6)


@pytest.mark.parametrize("dtype", FLOATS)
def test_beside_all_other_constraints_of_images(backend, device, dtype):
    """The sum of the parts: of the same patches and of others."""
    constraints = [
        ReconstructionError(0.1),
        PatchNCC(0.9, 11, per_channel=True),
        StructuralSimilarity(0.8, 11),
        LocalStatistics(0.1, 11),
        StructuralSimilarity(0.7, 4, stride=2, name="ssim_4"),
        PatchNCC(0.9, 4, name="patch_ncc_4"),
    ]
    x_hat, x = pair("random", SHAPE, dtype, device)
    zero = torch.zeros((), device=device)
    together = GECOLoss(constraints, multiplier_init=2.0).to(device)
    loss = together(x_hat, x, zero)
    (gradient,) = torch.autograd.grad(loss, x_hat)
    alone = [GECOLoss([c], multiplier_init=2.0).to(device)(x_hat, x, zero) for c in constraints]
    gradients = [torch.autograd.grad(part, x_hat)[0].double() for part in alone]
    assert loss.item() == pytest.approx(sum(part.item() for part in alone), rel=1e-5)
    error = (gradient.double() - sum(gradients)).norm()
    assert error <= {torch.float16: 2e-3, torch.bfloat16: 2e-2}.get(dtype, 1e-5) * sum(gradients).norm()


ERRORS = {
    "kappa low": ({"kappa": -1.0}, r"kappa: got -1.0, expected a number in \(-1, 1\]"),
    "kappa high": ({"kappa": 1.5}, "kappa: got 1.5"),
    "kappa nan": ({"kappa": float("nan")}, "kappa: got nan"),
    "patch size": ({"patch_size": 0}, "patch_size: got 0, expected an integer >= 1"),
    "stride": ({"stride": 1.5}, "stride: got 1.5"),
    "data range": ({"data_range": 0.0}, "data_range: got 0.0, expected a finite number > 0"),
    "no data range": ({"data_range": float("inf")}, "data_range: got inf"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_bad_arguments(case):
    settings, message = ERRORS[case]
    with pytest.raises(ValueError, match=message):
        StructuralSimilarity(**{"kappa": 0.9, **settings})
    with pytest.raises(ValueError, match=message):
        structural_similarity(torch.rand(SHAPE), torch.rand(SHAPE), **{"kappa": 0.9, **settings})


def test_images_smaller_than_a_window():
    criterion = GECOLoss([StructuralSimilarity(0.9)])
    with pytest.raises(ValueError, match="patch_size: got 11, expected at most the image's height and width"):
        criterion(torch.rand(1, 1, 10, 20), torch.rand(1, 1, 10, 20), torch.zeros(()))
    assert int(criterion.steps) == 0


@pytest.mark.parametrize("data_range", [1e-200, 1e200])
def test_a_range_whose_square_is_no_number(backend, device, data_range):
    x_hat, x = pair("random", SHAPE, device=device)
    value = structural_similarity(x_hat, x, kappa=0.0, patch_size=4, data_range=data_range)
    assert value.isfinite()
    assert torch.autograd.grad(value, x_hat)[0].isfinite().all()
