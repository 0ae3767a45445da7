"""What the tests of windowed constraints share: constraints, pictures, layouts, and the comparison with the oracle."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import oracle
import pytest
import torch
import torch.nn.functional as F

from geco_ext import LocalStatistics, PatchNCC, StructuralSimilarity
from geco_ext import functional as gf
from geco_ext.state import new_block, views

HALVES = [torch.float16, torch.bfloat16]
FLOATS = [torch.float32, torch.float64, *HALVES]

# NUMBERS: float32 statistics within 1e-6, gradients within 1e-5 of their norm. Half types: the float32 gradient,
# rounded once.
VALUE = {torch.float64: 1e-12}
GRADIENT = {torch.float64: 1e-10, torch.float16: 4e-4, torch.bfloat16: 3e-3}


class Window(NamedTuple):
    """A windowed constraint."""

    kind: str
    patch: int
    stride: int = 1
    eps: float = 1e-5
    per_channel: bool = False

    def settings(self) -> dict:
        if self.kind == "ssim":
            return {"patch_size": self.patch, "stride": self.stride, "data_range": self.data_range}
        per_channel = {"per_channel": True} if self.per_channel else {}
        return {"patch_size": self.patch, "stride": self.stride, "eps": self.eps, **per_channel}

    @property
    def data_range(self) -> float:
        """Of a structural similarity: its C1 is eps."""
        return 100 * math.sqrt(self.eps)

    def constraint(self, kappa, name=None):
        classes = {"ncc": PatchNCC, "local": LocalStatistics, "ssim": StructuralSimilarity}
        return classes[self.kind](kappa, **self.settings(), name=name)

    def functional(self, x_hat, x, kappa=0.0):
        functions = {"ncc": gf.patch_ncc, "local": gf.local_statistics, "ssim": gf.structural_similarity}
        return functions[self.kind](x_hat, x, kappa=kappa, **self.settings())

    def expected(self, x_hat, x, kappa=0.0):
        """The oracle's value."""
        if self.kind == "ncc":
            return oracle.patch_ncc(x_hat, x, kappa, self.patch, self.stride, self.eps, self.per_channel)
        if self.kind == "ssim":
            return oracle.structural_similarity(x_hat, x, kappa, self.patch, self.stride, self.data_range)
        return oracle.local_statistics(x_hat, x, kappa, self.patch, self.stride, self.eps)

    def attainable(self, x_hat):
        """About the norm of the largest gradient that any target could give: what rounding errors are measured by
        where the gradient itself vanishes."""
        patches = oracle.patches(x_hat, self.patch, self.stride, self.per_channel)
        numbers, count = patches.shape[2], patches[:, :, 0].numel()
        variances = patches.var(2, unbiased=False)
        slopes = numbers * (variances + self.eps) if self.kind == "ncc" else numbers
        if self.kind == "ssim":  # its two factors have one each
            slopes = numbers / (1 / (variances + 9 * self.eps) + 1 / (patches.mean(2) ** 2 + self.eps))
        return (torch.ones_like(patches[:, :, 0]) / slopes).sum().sqrt().item() / count


def kinds(patch, stride=1, eps=1e-5):
    """Every windowed constraint of a geometry."""
    return [
        Window("ncc", patch, stride, eps),
        Window("ncc", patch, stride, eps, per_channel=True),
        Window("local", patch, stride, eps),
        Window("ssim", patch, stride, eps, per_channel=True),
    ]


def name_of(window):
    per_channel = "-per-channel" if window.per_channel else ""
    return f"{window.kind}{window.patch}/{window.stride}{per_channel}"


# Pictures: shape -> (x_hat, x), float64


def random(shape):
    x = torch.rand(shape, dtype=torch.float64)
    return (x + torch.rand_like(x)) / 2, x


def digits(shape):
    """Flat backgrounds, steep edges."""
    x = _digits()[torch.randint(1000, (shape[0] * shape[1],))].view(shape[0], shape[1], 8, 8)
    return _reconstructed(F.interpolate(x, shape[2:]), 0.05)


def photograph(shape):
    first = torch.randint(100, (2,)).tolist()
    channels = torch.arange(shape[1]) % 3
    crop = _photograph()[channels, first[0] : first[0] + shape[2], first[1] : first[1] + shape[3]]
    return _reconstructed(crop.expand(shape), 0.01)


def ramp(shape):
    return _reconstructed(torch.linspace(0, 1, shape[3], dtype=torch.float64).expand(shape), 1e-3)


def half_flat(shape):
    """Half black, half white, with so little noise that raw sums of squares would cancel."""
    x = torch.zeros(shape, dtype=torch.float64)
    x[..., shape[3] // 2 :] = 1
    return _reconstructed(x + 2e-3 * torch.randn_like(x), 2e-3)


def far_off(shape):
    x_hat, x = random(shape)
    return x_hat + 1000, x + 1000


def borders(shape):
    """Parts that are black in both images, where 1/eps multiplies what must cancel."""
    x_hat, x = (image.clone() for image in photograph(shape))
    for image in (x_hat, x):
        image[:, :, : shape[2] // 3] = 0
        image[..., : shape[3] // 4] = 0
    return x_hat, x


def clamped_digits(shape):
    """Backgrounds are as black in the reconstruction, as those of models are that end in a clamp."""
    _, x = digits(shape)
    return torch.where(x > 0, 0.9 * x + 0.05 * torch.randn_like(x), x).clamp(0, 1), x


PICTURES = {p.__name__: p for p in (random, digits, photograph, ramp, half_flat, far_off, borders, clamped_digits)}
CANCELLING = {
    "digits",
    "ramp",
    "half_flat",
    "borders",
    "clamped_digits",
}  # (nearly) flat patches, far from the mean of the image


def _reconstructed(x, noise):
    """With a little less contrast: differences of local statistics are no smaller than a constraint tolerates."""
    return 0.9 * x + 0.03 + noise * torch.randn(x.shape, dtype=torch.float64), x


@functools.cache
def _digits():
    datasets = pytest.importorskip("sklearn.datasets")
    return torch.from_numpy(datasets.load_digits().images / 16)


@functools.cache
def _photograph():
    datasets = pytest.importorskip("sklearn.datasets")
    return torch.from_numpy(datasets.load_sample_image("china.jpg") / 255).permute(2, 0, 1)


# Memory layouts of the same numbers; an expanded tensor repeats its first example or channel instead.


def _sliced(t):
    batch, channels, height, width = t.shape
    wide = torch.full((batch + 1, channels, height + 3, 2 * width + 1), torch.nan, dtype=t.dtype, device=t.device)
    view = wide[1:, :, 2:-1, 1::2]
    view.copy_(t)
    return view


LAYOUTS = {
    "contiguous": torch.Tensor.contiguous,
    "channels_last": lambda t: t.contiguous(memory_format=torch.channels_last),
    "sliced": _sliced,
    "transposed": lambda t: t.transpose(2, 3).contiguous().transpose(2, 3),
    "one_example": lambda t: t[:1].expand_as(t),
    "one_channel": lambda t: t[:, :1].expand_as(t),
    "flipped_order": lambda t: t.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
}


def pair(picture, shape, dtype=torch.float32, device="cpu", layout="contiguous", dtype_of_target=None):
    """(x_hat that wants a gradient, x)"""
    tensors = PICTURES[picture](shape)
    dtypes = (dtype, dtype_of_target or dtype)
    x_hat, x = (LAYOUTS[layout](t.to(device, d)) for t, d in zip(tensors, dtypes, strict=True))
    return x_hat.requires_grad_(), x


def doubled(x_hat, x):
    return x_hat.detach().double().cpu().requires_grad_(), x.detach().double().cpu()


def operator_arguments(tolerances_and_windows, x_hat, x):
    """Of the operators in ``torch.ops.geco_ext``, multipliers of one."""
    block = new_block(len(tolerances_and_windows), device=x.device)
    views(block).kappa.copy_(torch.tensor([kappa for kappa, _ in tolerances_and_windows]))
    views(block).log_multiplier.zero_()
    terms = "; ".join(str(window.constraint(kappa)._term()) for kappa, window in tolerances_and_windows)
    buffer = torch.empty_like(x_hat, dtype=torch.float64 if x_hat.dtype == torch.float64 else torch.float32)
    return [x_hat.detach()], [x], [None], None, block, terms, [-1], [buffer], [True, False], len(x), x[0].numel()


def power_of_two(number):
    return 2.0 ** round(math.log2(number))


def assert_as_the_oracle(window, x_hat, x, value=1e-6, gradient=1e-5, vanishing=False):
    """Value and gradient; ``vanishing``: the gradient may be (nearly) zero, where it can only be compared with what it
    could be."""
    y_hat, y = doubled(x_hat, x)
    expected = window.expected(y_hat, y)
    (expected_gradient,) = torch.autograd.grad(expected, y_hat)
    norm = expected_gradient.norm().item()
    if vanishing:
        norm = max(norm, window.attainable(y_hat.detach()))
    got = window.functional(x_hat, x)
    # As GradScaler does: a gradient of half precision is looked at where half precision has its digits.
    incoming = power_of_two(1 / max(expected_gradient.abs().max().item(), 1e-6))
    (got_gradient,) = torch.autograd.grad(got, x_hat, torch.full_like(got, incoming))
    assert got.dtype == (torch.float64 if x_hat.dtype == torch.float64 else torch.float32)
    assert got_gradient.dtype == x_hat.dtype
    assert got.item() == pytest.approx(expected.item(), abs=VALUE.get(x_hat.dtype, value))
    error = (got_gradient.double().cpu() / incoming - expected_gradient).norm().item()
    assert error <= GRADIENT.get(x_hat.dtype, gradient) * norm
