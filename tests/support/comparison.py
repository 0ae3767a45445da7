"""What tests of all backends share: random images in every type and layout, and the comparison with the oracle."""

from __future__ import annotations

import pytest
import torch

FLOATS = [torch.float32, torch.float64, torch.float16, torch.bfloat16]

# NUMBERS: statistics within 1e-6, gradients within 1e-5 of their norm; float64 exactly.
VALUE = {torch.float64: 1e-13}
# Half types: one rounding. In float16 gradients have to stay above 6e-5, below which they lose digits (subnormal
# numbers): of small images, or with an incoming gradient as GradScaler's.
GRADIENT = {torch.float64: 1e-12, torch.float16: 1e-3, torch.bfloat16: 8e-3}


def images(shape=(3, 2, 9, 7), dtype=torch.float32, device="cpu", layout="contiguous", offset=0.0):
    x_hat, x = (torch.rand(shape, dtype=torch.float64) + offset for _ in range(2))
    tensors = []
    for tensor in (x_hat.to(dtype), x.to(dtype)):
        moved = tensor.to(device)
        if layout == "channels_last":
            moved = moved.contiguous(memory_format=torch.channels_last)
        if layout == "strided":  # every other column of a wider tensor, transposed
            wide = torch.zeros(*shape[:-2], shape[-1] * 2, shape[-2], dtype=dtype, device=device)
            wide[..., ::2, :] = moved.transpose(-1, -2)
            moved = wide[..., ::2, :].transpose(-1, -2)
        tensors.append(moved)
    return tensors[0].requires_grad_(), tensors[1]


def assert_close(value, x_hat, expected, expected_x_hat, value_tolerance=None):
    """Value and gradient against the oracle's float64."""
    expected_gradient = torch.autograd.grad(expected, expected_x_hat)[0]
    (gradient,) = torch.autograd.grad(value, x_hat)
    assert gradient.dtype == x_hat.dtype
    assert gradient.stride() == x_hat.stride() or not x_hat.is_contiguous()
    assert value.dtype == (torch.float64 if x_hat.dtype == torch.float64 else torch.float32)
    assert value.item() == pytest.approx(expected.item(), abs=value_tolerance or VALUE.get(x_hat.dtype, 1e-6))
    error = (gradient.double().cpu() - expected_gradient).norm() / expected_gradient.norm().clamp_min(1e-30)
    assert error < GRADIENT.get(x_hat.dtype, 1e-5)


def doubled(x_hat, x):
    return x_hat.detach().double().cpu().requires_grad_(), x.double().cpu()
