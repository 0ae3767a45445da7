"""A dark part of an image beside a bright one: each keeps the digits of its own gradient, in float32."""

import pytest
import torch
import torch.nn.functional as F
from windows import Window

WINDOWS = {
    "ncc4": Window("ncc", 4),
    "ncc8": Window("ncc", 8, eps=1e-12),
    "local4": Window("local", 4),
    "ncc4-per-channel": Window("ncc", 4, per_channel=True),
    "ncc11": Window("ncc", 11),
    "ncc5-strided": Window("ncc", 5, stride=3),
}
HEIGHT, WIDTH = 40, 30
BRIGHT = {  # parts of an image
    "left": lambda row, column: column < 21,
    "right": lambda row, column: column >= 9,
    "below": lambda row, column: row >= 17,
    "all but a corner": lambda row, column: (row < 18) | (column < 14),
    "a corner": lambda row, column: (row >= 15) & (column >= 13),
}
CASES = [(window, bright) for window in WINDOWS for bright in BRIGHT]
# For kernels in Triton's interpreter, which takes seconds for each: some windows, every edge once.
FEW = [("ncc4", "left"), ("ncc8", "right"), ("local4", "below"), ("ncc4", "all but a corner"), ("ncc8", "a corner")]
FEW += [("ncc4-per-channel", "left")]


def far_from_the_edge(part, patch):
    """Pixels all of whose patches lie in a part, [H, W]."""
    crosses = F.max_pool2d((~part).float()[None], patch, 1)
    return F.max_pool2d(F.pad(crosses, (patch - 1,) * 4), patch, 1)[0] == 0


def parts_of(bright):
    part = BRIGHT[bright](torch.arange(HEIGHT)[:, None], torch.arange(WIDTH)[None, :]).expand(HEIGHT, WIDTH)
    return part, ~part


def pictures(part, brightness, detail):
    torch.manual_seed(0)
    x = detail * torch.rand(2, 2, HEIGHT, WIDTH, dtype=torch.float64) + brightness * part
    return (x + detail * torch.rand_like(x)).float(), x.float()


@pytest.mark.parametrize(("name", "bright"), CASES)
def test_each_part_keeps_its_digits(backend, device, name, bright):
    """Wherever the edge goes through a tile, up to a million times as bright as it varies."""
    if backend == "triton" and device == "cpu" and (name, bright) not in FEW:
        pytest.skip("takes seconds in the interpreter")
    window, parts = WINDOWS[name], parts_of(bright)
    for brightness, detail in ((1.0, 1e-6), (1e6, 1.0), (1.0, 3e-4), (1e5, 0.1), (300.0, 1.0)):
        x_hat, x = pictures(parts[0], brightness, detail)
        y_hat, on_device = x_hat.double().requires_grad_(), x_hat.to(device).requires_grad_()
        (ours,) = torch.autograd.grad(window.functional(on_device, x.to(device)), on_device)
        (expected,) = torch.autograd.grad(window.expected(y_hat, x.double()), y_hat)
        for part in parts:
            where = far_from_the_edge(part, window.patch)
            difference = (ours.cpu().double() - expected)[..., where]
            assert difference.norm() <= 5e-5 * expected[..., where].norm(), (brightness, detail)
