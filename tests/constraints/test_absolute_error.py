"""AbsoluteError on every backend, against the oracle: alone, beside patches, of identical images."""

import oracle
import pytest
import torch
from test_backends import FLOATS, GRADIENT, assert_close, doubled, images

import geco_ext
from geco_ext import functional as gf


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "strided"])
@pytest.mark.parametrize("dtype", FLOATS)
def test_absolute_error_equals_the_oracle(backend, device, dtype, layout):
    x_hat, x = images(dtype=dtype, device=device, layout=layout)
    y_hat, y = doubled(x_hat, x)
    for eps in (1e-3, 0.3):
        value = gf.absolute_error(x_hat, x, kappa=0.1, eps=eps)
        assert_close(value, x_hat, oracle.absolute_error(y_hat, y, 0.1, eps), y_hat)


@pytest.mark.parametrize("shape", [(1, 1, 8, 8), (5, 3), (4,), (2, 3, 33, 65), (1, 3, 301, 97)])
def test_absolute_error_takes_any_shape(backend, device, shape):
    x_hat, x = images(shape, device=device)
    y_hat, y = doubled(x_hat, x)
    value = gf.absolute_error(x_hat, x, kappa=0.1, reduction="sum")
    expected = oracle.absolute_error(y_hat[:, None], y[:, None], 0.1, reduction="sum")
    assert_close(value, x_hat, expected, y_hat, value_tolerance=1e-6 * max(1.0, expected.item()))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("eps", [1e-3, 1e-30, 1e30])
def test_absolute_error_of_identical_images_is_minus_kappa(backend, device, dtype, eps):
    x_hat, _ = images((2, 3, 9, 11), dtype, device)
    value = gf.absolute_error(x_hat, x_hat.detach(), kappa=0.25, eps=eps)
    (gradient,) = torch.autograd.grad(value, x_hat)
    assert float(value) == -0.25
    assert torch.equal(gradient, torch.zeros_like(gradient))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("per_channel", [False, True])
def test_absolute_error_beside_patches(backend, device, dtype, per_channel):
    """One gradient of all constraints that read the images."""
    criterion = geco_ext.GECOLoss(
        [
            geco_ext.PatchNCC(0.9, patch_size=4, eps=1e-2),
            geco_ext.AbsoluteError(0.1),
            geco_ext.LocalStatistics(0.1, patch_size=3, stride=2, eps=1e-2),
            geco_ext.ReconstructionError(0.2),
            geco_ext.AbsoluteError(0.2, eps=0.05, channels=3 if per_channel else None, name="other"),
        ],
        multiplier_init=2.0,
    ).to(device)
    x_hat, x = images((2, 3, 12, 10), dtype, device)
    loss = criterion.eval()(x_hat, x, torch.zeros(2, device=device))
    (gradient,) = torch.autograd.grad(loss, x_hat)
    y_hat, y = doubled(x_hat, x)
    other = oracle.absolute_error_per_channel if per_channel else oracle.absolute_error
    expected = 2 * (
        oracle.patch_ncc(y_hat, y, 0.9, 4, eps=1e-2)
        + oracle.absolute_error(y_hat, y, 0.1)
        + oracle.local_statistics(y_hat, y, 0.1, 3, 2, eps=1e-2)
        + oracle.squared_error(y_hat, y, 0.2)
        + other(y_hat, y, 0.2, 0.05).sum()
    )
    (wanted,) = torch.autograd.grad(expected, y_hat)
    assert float(loss) == pytest.approx(float(expected), abs=2e-5)
    assert (gradient.double().cpu() - wanted).norm() <= GRADIENT.get(dtype, 1e-5) * wanted.norm()
