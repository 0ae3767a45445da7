"""The operators of models in plain PyTorch: the formulas to read, and the oracle of the tests.

They are computed in float64. Forward also in another type, for exported programs, which hold these formulas.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from geco_ext.backends.layout import is_channels_last, sum_dtype


def gaussian_rsample_kl(
    q_mean: Tensor,
    q_log_std: Tensor,
    p_mean: Tensor | None,
    p_log_std: Tensor | None,
    noise: Tensor,
    dtype: torch.dtype = torch.float64,
) -> tuple[Tensor, Tensor]:
    """A sample, and the KL [B] from the prior (a standard normal where it is None)."""
    mean, log_std = _as(dtype, q_mean), _as(dtype, q_log_std)
    log_ratio, distance = _compared(mean, log_std, p_mean, p_log_std)
    # exp(2r) - 1 - 2r: nothing is left of it, but rounding, where posterior and prior agree and it is not expm1.
    kl = 0.5 * (torch.expm1(2 * log_ratio) - 2 * log_ratio + distance.square())
    return _like(q_mean, mean + log_std.exp() * noise), _sums(q_mean, kl)


def gaussian_rsample_kl_backward(
    grad_z: Tensor | None,
    grad_kl: Tensor | None,
    q_mean: Tensor,
    q_log_std: Tensor,
    p_mean: Tensor | None,
    p_log_std: Tensor | None,
    noise: Tensor,
) -> list[Tensor]:
    """Gradients by q_mean and q_log_std, and where there is a prior by p_mean and p_log_std."""
    mean, log_std = q_mean.double(), q_log_std.double()
    log_ratio, distance = _compared(mean, log_std, p_mean, p_log_std)
    of_z, of_kl = _or_zero(grad_z), _per_example(grad_kl, q_mean)
    precision = torch.ones_like(mean) if p_log_std is None else (-p_log_std.double()).exp()
    of_mean = of_kl * distance * precision
    of_log_std = of_kl * torch.expm1(2 * log_ratio)
    gradients = [of_z + of_mean, of_z * log_std.exp() * noise + of_log_std]
    if p_mean is not None:
        gradients += [-of_mean, -of_log_std - of_kl * distance.square()]
    return [_like(q_mean, gradient) for gradient in gradients]


def lstm_gates(gates: Tensor, cell: Tensor, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Hidden and cell."""
    i, f, g, o = _as(dtype, gates).chunk(4, dim=1)
    new_cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
    return _like(gates, o.sigmoid() * new_cell.tanh()), _like(gates, new_cell)


def lstm_gates_backward(
    grad_hidden: Tensor | None, grad_cell: Tensor | None, gates: Tensor, cell: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients by gates and by the cell before."""
    i, f, g, o = gates.double().chunk(4, dim=1)
    squashed = (f.sigmoid() * cell + i.sigmoid() * g.tanh()).tanh()
    of_hidden = _or_zero(grad_hidden)
    of_cell = _or_zero(grad_cell) + of_hidden * o.sigmoid() * (1 - squashed.square())
    of_gates = (
        of_cell * g.tanh() * _sigmoid_slope(i),
        of_cell * cell * _sigmoid_slope(f),
        of_cell * i.sigmoid() * (1 - g.tanh().square()),
        of_hidden * squashed * _sigmoid_slope(o),
    )
    of_gates = tuple(gradient.expand_as(cell) for gradient in of_gates)
    return _like(gates, torch.cat(of_gates, dim=1)), _like(gates, (of_cell * f.sigmoid()).expand_as(cell))


def affine_coupling(
    x: Tensor, log_scale: Tensor, shift: Tensor, inverse: bool, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor]:
    """The transformed x and the log-determinant [B]."""
    logarithm = _as(dtype, log_scale)
    if inverse:
        return _like(x, (_as(dtype, x) - shift) * (-logarithm).exp()), _sums(x, -logarithm)
    return _like(x, x * logarithm.exp() + shift), _sums(x, logarithm)


def affine_coupling_backward(
    grad_y: Tensor | None, grad_log_det: Tensor | None, value: Tensor, log_scale: Tensor, inverse: bool
) -> list[Tensor]:
    """Gradients by x and log_scale, and of the inverse by shift. ``value``: x, or what the inverse returned."""
    of_y, of_log_det = _or_zero(grad_y), _per_example(grad_log_det, value)
    logarithm = log_scale.double()
    if inverse:
        of_x = of_y * (-logarithm).exp()
        gradients = [of_x, -of_y * value - of_log_det, -of_x]
    else:
        of_x = of_y * logarithm.exp()
        gradients = [of_x, of_x * value + of_log_det]
    return [_like(value, gradient.expand_as(value)) for gradient in gradients]


def _compared(mean: Tensor, log_std: Tensor, p_mean: Tensor | None, p_log_std: Tensor | None) -> tuple[Tensor, Tensor]:
    """Log-ratio of the standard deviations of posterior and prior, and distance of the means in those of the prior."""
    if p_mean is None or p_log_std is None:
        return log_std, mean
    p_log_std = _as(log_std.dtype, p_log_std)
    return log_std - p_log_std, (mean - _as(mean.dtype, p_mean)) * (-p_log_std).exp()


def _sigmoid_slope(x: Tensor) -> Tensor:
    return x.sigmoid() * (-x).sigmoid()  # 1 - sigmoid(x) would be 0 where it is only small


def _or_zero(gradient: Tensor | None) -> Any:
    return torch.zeros(()).double() if gradient is None else gradient.double()


def _per_example(gradient: Tensor | None, like: Tensor) -> Any:
    """A gradient [B] that broadcasts over the numbers of an example."""
    return _or_zero(gradient) if gradient is None else gradient.double().view(-1, *[1] * (like.dim() - 1))


def _like(leader: Tensor, result: Tensor) -> Tensor:
    """Rounded once, and laid out as all backends do."""
    memory_format = torch.channels_last if is_channels_last(leader) else torch.contiguous_format
    return _as(leader.dtype, result).contiguous(memory_format=memory_format)


def _sums(leader: Tensor, numbers: Tensor) -> Tensor:
    return _as(sum_dtype(leader.dtype), numbers.flatten(1).sum(1) if leader.dim() > 1 else numbers)


def _as(dtype: torch.dtype, tensor: Tensor) -> Tensor:
    """In a type. An exported program keeps a conversion, and all that it is of, even where it converts nothing."""
    return tensor if tensor.dtype == dtype else tensor.to(dtype)
