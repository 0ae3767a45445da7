"""Windowed constraints on every backend: what the oracle computes, to the accuracy that is promised."""

import pytest
import torch
import windows
from windows import CANCELLING, FLOATS, HALVES, LAYOUTS, PICTURES, Window, assert_as_the_oracle, kinds, name_of, pair

pytestmark = pytest.mark.usefixtures("backend")

USUAL = [
    Window("ncc", 8),
    Window("ncc", 3, stride=2),
    Window("ncc", 11, per_channel=True),
    Window("local", 8),
    Window("local", 4, stride=3),
    Window("ssim", 11, eps=1e-4, per_channel=True),
    Window("ssim", 4, stride=3, eps=1e-4, per_channel=True),
]
usual_windows = pytest.mark.parametrize("window", USUAL, ids=name_of)


@usual_windows
@pytest.mark.parametrize("picture", PICTURES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_pictures(device, slow, window, picture, dtype):
    x_hat, x = pair(picture, (1, 2, 15, 19) if slow else (2, 3, 32, 32), dtype, device)
    if picture == "far_off":
        assert_as_the_oracle(window, x_hat, x, value=1e-3, gradient=1e-2)
    else:
        assert_as_the_oracle(window, x_hat, x, gradient=5e-5 if picture in CANCELLING else 1e-5)


@pytest.mark.parametrize("window", [*USUAL[:2], Window("ncc", 4, per_channel=True)], ids=name_of)
def test_a_few_bright_pixels_spoil_no_others(device, slow, window):
    """What is subtracted from an image to keep its digits is not theirs to decide."""
    shape = (1, 2, 15, 19) if slow else (2, 3, 32, 32)
    x_hat, x = pair("random", shape, device=device)
    with torch.no_grad():
        for image in (x_hat, x):
            image[..., shape[2] // 8, shape[3] // 8] = image[..., shape[2] // 2, shape[3] // 2] = 1e4
    assert_as_the_oracle(window, x_hat, x)


# (shape, patch, stride): patch = image, single pixels, odd sizes, many channels, gaps between patches, long sides, and
# patches far beyond what tiles are made for.
GEOMETRIES = [
    ((2, 3, 9, 8), 3, 1),
    ((1, 1, 8, 8), 8, 1),
    ((2, 3, 5, 7), 1, 1),
    ((3, 1, 4, 4), 1, 3),
    ((1, 1, 1, 1), 1, 1),
    ((1, 17, 12, 9), 3, 2),
    ((3, 1, 13, 29), 4, 3),
    ((1, 3, 21, 18), 11, 1),
    ((1, 2, 33, 35), 16, 1),
    ((1, 2, 33, 35), 16, 9),
    ((2, 2, 17, 23), 5, 7),
    ((2, 3, 7, 31), 7, 1),
    ((1, 17, 8, 8), 8, 1),
    ((2, 4, 20, 20), 6, 6),
    ((1, 3, 24, 24), 24, 5),
    ((1, 1, 70, 2), 2, 1),
    ((1, 3, 2, 150), 2, 2),
    ((1, 2, 40, 37), 13, 2),
    ((1, 1, 60, 57), 50, 3),
    ((1, 1, 66, 65), 64, 1),
]


def identifier(value):
    return name_of(value) if isinstance(value, Window) else "x".join(map(str, value))


@pytest.mark.parametrize(
    ("shape", "window"),
    [(shape, window) for shape, patch, stride in GEOMETRIES for window in kinds(patch, stride)],
    ids=identifier,
)
def test_geometries(device, shape, window):
    x_hat, x = pair("random", shape, device=device)
    # One number has no variance, and what two or three say of it is hardly steadier.
    assert_as_the_oracle(window, x_hat, x, vanishing=window.patch == 1)


# (shape, windows): large, tall, wide; the stride is no divisor of where an image is likely to be cut.
LARGE = [
    ((1, 3, 97, 131), [*kinds(8), *kinds(16, 4)]),
    ((1, 1, 300, 41), [*kinds(8), *kinds(16, 4)]),
    ((1, 1, 17, 2100), [*kinds(3), *kinds(8, 7), *kinds(16, 4)]),
    ((1, 2, 420, 300), kinds(3)),
]


@pytest.mark.parametrize(
    ("shape", "window"), [(shape, window) for shape, windows in LARGE for window in windows], ids=identifier
)
def test_large_images_are_seamless(device, slow, shape, window):
    """Wherever an image is cut into tiles or bands."""
    x_hat, x = pair("random", (1, 1, 40, 37) if slow else shape, device=device)
    assert_as_the_oracle(window, x_hat, x)


@usual_windows
@pytest.mark.parametrize("dtype", HALVES)
def test_half_types_give_the_float32_result_rounded_once(device, window, dtype):
    x_hat, x = pair("photograph", (2, 3, 16, 17), dtype, device)
    wide_hat, wide = x_hat.detach().float().requires_grad_(), x.float()
    value, wide_value = window.functional(x_hat, x), window.functional(wide_hat, wide)
    assert value.dtype == torch.float32
    assert float(value) == pytest.approx(float(wide_value), abs=1e-6)
    (wide_gradient,) = torch.autograd.grad(wide_value, wide_hat)
    incoming = windows.power_of_two(1 / wide_gradient.abs().max().item())  # rounded after this factor, not before
    (gradient,) = torch.autograd.grad(value, x_hat, torch.full_like(value, incoming))
    wide_gradient *= incoming
    rounding = torch.finfo(dtype).eps / 2
    allowed = rounding * wide_gradient.abs() + 1e-6 * wide_gradient.abs().max()
    assert gradient.dtype == dtype
    assert ((gradient.float() - wide_gradient).abs() <= allowed).all()


@usual_windows
@pytest.mark.parametrize(("dtype_hat", "dtype"), [(a, b) for a in FLOATS for b in FLOATS if a != b])
def test_prediction_and_target_of_different_types(device, window, dtype_hat, dtype):
    x_hat, x = pair("random", (2, 3, 12, 11), dtype_hat, device, dtype_of_target=dtype)
    assert_as_the_oracle(window, x_hat, x)


@usual_windows
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(device, window, layout, dtype):
    x_hat, x = pair("random", (2, 3, 12, 11), dtype, device, layout)
    assert_as_the_oracle(window, x_hat, x, vanishing=layout == "one_channel")


@usual_windows
@pytest.mark.parametrize("layouts", [("channels_last", "contiguous"), ("contiguous", "sliced"), ("sliced", "expanded")])
def test_prediction_and_target_of_different_layouts(device, window, layouts):
    x_hat, x = (t.detach() for t in pair("random", (2, 3, 12, 11), device=device))
    moved_hat = windows.LAYOUTS[layouts[0]](x_hat).requires_grad_()
    moved = x[:1, :1].expand_as(x) if layouts[1] == "expanded" else windows.LAYOUTS[layouts[1]](x)
    assert_as_the_oracle(window, moved_hat, moved)


@usual_windows
def test_gradient_of_an_expanded_prediction(device, window):
    """Summed over the examples that one tensor stands for."""
    x_hat, x = pair("random", (3, 2, 12, 11), device=device)
    one = x_hat.detach()[:1].requires_grad_()
    (gradient,) = torch.autograd.grad(window.functional(one.expand(3, -1, -1, -1), x), one)
    y = one.detach().double().cpu().requires_grad_()
    (expected,) = torch.autograd.grad(window.expected(y.expand(3, -1, -1, -1), x.double().cpu()), y)
    assert (gradient.double().cpu() - expected).norm() <= 1e-5 * expected.norm()


@usual_windows
def test_gradient_of_the_target(device, window):
    """The constraints are symmetric in their pair."""
    x_hat, x = pair("random", (2, 3, 12, 11), device=device)
    (gradient,) = torch.autograd.grad(window.functional(x_hat, x.requires_grad_()), x)
    y_hat, y = windows.doubled(x_hat, x)
    (expected,) = torch.autograd.grad(window.expected(y_hat, y.requires_grad_()), y)
    assert (gradient.double().cpu() - expected).norm() <= 1e-5 * expected.norm()
