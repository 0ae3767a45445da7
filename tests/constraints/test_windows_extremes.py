"""Windowed constraints where arithmetic ends: flat, equal, huge and tiny images."""

import pytest
import torch
from windows import FLOATS, Window, assert_as_the_oracle, kinds, name_of, pair

pytestmark = pytest.mark.usefixtures("backend")

windows_of_a_kind = pytest.mark.parametrize("window", [*kinds(4), Window("ncc", 3, stride=2)], ids=name_of)
correlations = pytest.mark.parametrize("window", [*kinds(4)[:2], Window("ncc", 8), Window("ncc", 1)], ids=name_of)

SHAPE = (2, 3, 12, 11)


def correlation_of(window, x_hat, x):
    return -float(window.functional(x_hat, x).detach())


@correlations
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("picture", ["random", "digits", "photograph", "ramp", "half_flat", "far_off"])
def test_equal_images_correlate_fully(device, window, picture, dtype):
    x, _ = pair(picture, SHAPE, dtype, device)
    assert correlation_of(window, x, x.detach().clone()) == pytest.approx(1.0, abs=1e-6)


@correlations
@pytest.mark.parametrize("level", [0.0, 0.3, 1.0, 255.0, -1000.0])
def test_flat_images_correlate_fully(device, window, level):
    x_hat = torch.full(SHAPE, level, device=device, requires_grad=True)
    for target in (level, 0.3):
        x = torch.full(SHAPE, target, device=device)
        assert correlation_of(window, x_hat, x) == pytest.approx(1.0, abs=1e-6)
        assert_as_the_oracle(window, x_hat, x, vanishing=True)


@windows_of_a_kind
def test_black_images_when_eps_is_below_the_range_of_float32(device, window):
    window, x_hat = window._replace(eps=1e-60), torch.zeros(SHAPE, device=device, requires_grad=True)
    value = window.functional(x_hat, torch.zeros(SHAPE, device=device))
    (gradient,) = torch.autograd.grad(value, x_hat)
    assert value.item() == pytest.approx(0.0 if window.kind == "local" else -1.0, abs=1e-6)
    assert torch.equal(gradient, torch.zeros_like(gradient))


@windows_of_a_kind
@pytest.mark.parametrize("eps", [1e20, 1e39])
def test_an_eps_above_all_variances(device, window, eps):
    """Beyond the range of float32 too: all patches count as flat."""
    window = window._replace(eps=eps)
    x_hat, x = pair("random", SHAPE, device=device)
    value = window.functional(x_hat, x)
    (gradient,) = torch.autograd.grad(value, x_hat)
    assert value.isfinite()
    assert gradient.isfinite().all()
    if window.kind != "local":
        assert value.item() == pytest.approx(-1.0, abs=1e-6)


@pytest.mark.parametrize("window", kinds(3), ids=name_of)
@pytest.mark.parametrize("stride", [12, 10**6, 10**12, 2**70])
def test_strides_beyond_the_image_leave_one_position(device, window, stride):
    x_hat, x = pair("random", SHAPE, device=device)
    assert_as_the_oracle(window, x_hat[:, :, :3, :3], x[:, :, :3, :3])
    value = window._replace(stride=stride).functional(x_hat, x)
    assert value.item() == pytest.approx(window.expected(x_hat[:, :, :3, :3], x[:, :, :3, :3]).item(), abs=1e-6)


@correlations
@pytest.mark.parametrize("picture", ["random", "photograph", "half_flat"])
def test_nothing_pulls_at_equal_images(device, window, picture):
    x_hat, _ = pair(picture, SHAPE, device=device)
    assert_as_the_oracle(window, x_hat, x_hat.detach().clone(), gradient=5e-5, vanishing=True)


def test_local_statistics_of_equal_images_agree(device):
    x_hat, _ = pair("photograph", SHAPE, device=device)
    (gradient,) = torch.autograd.grad(Window("local", 4).functional(x_hat, x_hat.detach().clone()), x_hat)
    assert float(Window("local", 4).functional(x_hat, x_hat)) == 0.0
    assert gradient.abs().max() < 1e-9


@pytest.mark.parametrize("window", kinds(4, eps=1e-12)[:2], ids=name_of)
def test_correlations_forget_brightness_and_contrast(device, window):
    x, _ = pair("random", SHAPE, torch.float64, device)
    assert correlation_of(window, 3 * x + 7, x.detach()) == pytest.approx(1.0, abs=1e-6)
    assert correlation_of(window, 5 - 2 * x, x.detach()) == pytest.approx(-1.0, abs=1e-6)


@pytest.mark.parametrize("brightness", [1.0, 65535.0, 1e6])
def test_patches_far_brighter_than_they_vary(device, brightness):
    """Half black, half bright, with a little noise, in float64: raw sums of squares would cancel even there."""
    x = torch.zeros(1, 1, 16, 16, dtype=torch.float64)
    x[..., 8:] = brightness
    x = x + 2e-3 * torch.randn_like(x)
    x_hat = x + 2e-3 * torch.randn_like(x)
    window, y_hat = Window("ncc", 4), x_hat.clone().requires_grad_()
    x_hat = x_hat.to(device).requires_grad_()
    value, expected = window.functional(x_hat, x.to(device)), window.expected(y_hat, x)
    assert value.item() == pytest.approx(expected.item(), abs=1e-7)
    gradients = [torch.autograd.grad(v, t)[0].cpu() for v, t in ((value, x_hat), (expected, y_hat))]
    assert (gradients[0] - gradients[1]).norm() <= 1e-5 * gradients[1].norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("picture", ["random", "photograph", "half_flat", "far_off"])
def test_inner_products_stay_within_one(device, slow, picture, dtype):
    """A patch as large as the image: the value is one inner product."""
    for trial in range(5 if slow else 40):
        side = 1 + trial % 9
        window = Window("ncc", side, eps=10.0 ** -(trial % 13))
        x_hat, x = pair(picture, (1, 1 + trial % 3, side, side), dtype, device)
        scale = 1 if trial % 2 else -3
        for other in (x, x_hat.detach() * scale, x_hat.detach() + scale):
            assert -1.0 <= correlation_of(window, x_hat, other) <= 1.0


HUGE = {torch.float16: 65504.0}


def extreme_images(dtype):
    """Of the largest numbers that are served, and the smallest."""
    most = HUGE.get(dtype, 1e6)
    signs = torch.randint(2, SHAPE) * 2.0 - 1
    spike = torch.zeros(SHAPE)
    spike[..., 5, 5] = most
    edge = torch.full(SHAPE, -most)
    edge[..., 6:] = most
    return {
        "signs": most * signs,
        "opposite": -most * signs,
        "noise": most * (2 * torch.rand(SHAPE) - 1),
        "spike": spike,
        "edge": edge,
        "bright": torch.full(SHAPE, most),
        "bright with noise": most - torch.rand(SHAPE),
        "zero": torch.zeros(SHAPE),
        "smallest": torch.full(SHAPE, float(torch.finfo(dtype).smallest_normal)) * signs,
        "subnormal": torch.full(SHAPE, float(torch.finfo(dtype).smallest_normal) / 8) * signs,
        "unit": torch.rand(SHAPE),
    }


@windows_of_a_kind
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("eps", [1e-5, 1e-12])
def test_finite_over_the_whole_range(device, slow, window, dtype, eps):
    images = {name: image.to(device, dtype) for name, image in extreme_images(dtype).items()}
    window = window._replace(eps=eps)
    pairs = [(a, b) for a in images for b in images if a in ("signs", "spike") or b in ("zero", "edge")]
    for name_hat, name in [("signs", "opposite"), ("edge", "zero"), ("subnormal", "spike")] if slow else pairs:
        x_hat = images[name_hat].clone().requires_grad_()
        value = window.functional(x_hat, images[name])
        # As a loss is scaled in half precision, but down: what is finite in float32 need not be in float16.
        (gradient,) = torch.autograd.grad(value, x_hat, torch.full_like(value, 2.0**-12))
        assert value.isfinite(), (name_hat, name)
        assert gradient.isfinite().all(), (name_hat, name)
        if window.kind != "local":
            assert -1.0 <= correlation_of(window, x_hat, images[name]) <= 1.0, (name_hat, name)


@windows_of_a_kind
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_shows(device, window, bad):
    """In the value, so that the step is skipped."""
    for side in (0, 1):
        images = [t.detach() for t in pair("random", SHAPE, device=device)]
        images[side][1, 1, 4, 4] = bad
        assert not window.functional(*images).isfinite()
