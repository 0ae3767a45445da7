"""What variational models compute between their convolutions, one pass each, forward and backward.

All tensors of a call may have any float types (they are promoted to a common one) and strides: contiguous and
channels_last tensors, and their chunks along dimension 1, are read where they lie. Half types are computed in float32
and rounded once. Sums over an example are float32, float64 for float64. There are no second derivatives. In an exported
program (`torch.export`, ONNX) they are the plain operations of their formulas, so that it runs without this package.
"""

from __future__ import annotations

from functools import reduce
from typing import Any

import torch
from torch import Tensor

from geco_ext.backends.layout import sum_dtype
from geco_ext.backends.reference import models as formulas
from geco_ext.functional.exporting import is_exporting
from geco_ext.ops import dispatch
from geco_ext.ops.models import AffineCoupling, GaussianRsampleKL, LSTMGates


def gaussian_rsample_kl(
    q_mean: Tensor,
    q_log_std: Tensor,
    p_mean: Tensor | None = None,
    p_log_std: Tensor | None = None,
    noise: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """A reparametrised sample of a diagonal Gaussian posterior and its KL from the prior, in closed form.

    With q = N(q_mean, exp(q_log_std)^2) and p = N(p_mean, exp(p_log_std)^2), or p = N(0, I) where none is given
    (Kingma and Welling 2013, equation 10 and appendix B):

        z  = q_mean + exp(q_log_std) * noise
        kl = sum p_log_std - q_log_std + (exp(q_log_std)^2 + (q_mean - p_mean)^2) / (2 exp(p_log_std)^2) - 1/2

    Args:
        q_mean: mean of the posterior, [B, ...].
        q_log_std: logarithm of its standard deviation, the same shape.
        p_mean: mean of the prior, the same shape; None with ``p_log_std``: a standard normal.
        p_log_std: logarithm of its standard deviation, the same shape.
        noise: standard normal numbers, the same shape; None draws them with :func:`torch.randn_like`, so they are the
            same on every backend.

    Returns:
        z, the shape of ``q_mean``, and the KL in nats, [B].

    Raises:
        ValueError: shapes or devices differ, no batch dimension, one of ``p_mean`` and ``p_log_std`` without the other.
        TypeError: not float tensors.

    Example:
        >>> z, kl = gaussian_rsample_kl(torch.ones(2, 3), torch.zeros(2, 3))
        >>> z.shape, kl
        (torch.Size([2, 3]), tensor([1.5000, 1.5000]))
    """
    if (p_mean is None) != (p_log_std is None):
        missing, given = ("p_mean", "p_log_std") if p_mean is None else ("p_log_std", "p_mean")
        raise ValueError(f"{missing}: got None, expected a tensor beside {given}, or None for both")
    check_example_tensors(q_mean=q_mean, q_log_std=q_log_std, p_mean=p_mean, p_log_std=p_log_std, noise=noise)
    if noise is None:
        noise = torch.randn_like(q_mean)
    q_mean, q_log_std, p_mean, p_log_std, noise = _promoted(q_mean, q_log_std, p_mean, p_log_std, noise)
    if is_exporting():
        return formulas.gaussian_rsample_kl(q_mean, q_log_std, p_mean, p_log_std, noise, sum_dtype(q_mean.dtype))
    return GaussianRsampleKL.apply(q_mean, q_log_std, p_mean, p_log_std, noise)  # type: ignore[no-any-return, no-untyped-call]


def lstm_gates(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """The gates of a long short-term memory cell (Hochreiter and Schmidhuber 1997), convolutional ones as well.

    With (i, f, g, o) = gates along dimension 1, in the order of :class:`torch.nn.LSTMCell`:

        cell   <- sigmoid(f) * cell + sigmoid(i) * tanh(g)
        hidden <- sigmoid(o) * tanh(cell)

    Args:
        gates: pre-activations, [B, 4 H, ...].
        cell: the cell before, [B, H, ...].

    Returns:
        hidden and cell, [B, H, ...].

    Raises:
        ValueError: shapes that do not belong together, or devices that differ.
        TypeError: not float tensors.

    Example:
        >>> hidden, cell = lstm_gates(torch.zeros(2, 12), torch.ones(2, 3))
        >>> cell
        tensor([[0.5000, 0.5000, 0.5000],
                [0.5000, 0.5000, 0.5000]])
    """
    check_example_tensors(gates=gates)
    check_example_tensors(cell=cell)
    if gates.device != cell.device:
        raise ValueError(f"gates and cell: got devices {gates.device} and {cell.device}, expected the same device")
    if gates.dim() < 2 or gates.shape != (cell.shape[0], *[4 * h for h in cell.shape[1:2]], *cell.shape[2:]):
        raise ValueError(
            f"gates and cell: got shapes {tuple(gates.shape)} and {tuple(cell.shape)}, expected [B, 4 H, ...] and "
            "[B, H, ...]"
        )
    gates, cell = _promoted(gates, cell)
    if is_exporting():
        return formulas.lstm_gates(gates, cell, sum_dtype(gates.dtype))
    return LSTMGates.apply(gates, cell)  # type: ignore[no-any-return, no-untyped-call]


def affine_coupling(x: Tensor, log_scale: Tensor, shift: Tensor, inverse: bool = False) -> tuple[Tensor, Tensor]:
    """The transformed part of an affine coupling layer and its log-determinant (Dinh et al. 2016, equations 7 and 8).

        y = x * exp(log_scale) + shift,            log_det = sum log_scale
        inverse:  (x - shift) * exp(-log_scale),   log_det = -sum log_scale

    Args:
        x: what is transformed, [B, ...].
        log_scale: logarithm of the scale, the same shape.
        shift: the same shape.
        inverse: undo the transformation.

    Returns:
        The transformed x, and the logarithm of its change of volume, summed over all but the batch, [B].

    Raises:
        ValueError: shapes or devices differ, or no batch dimension.
        TypeError: not float tensors.

    Example:
        >>> y, log_det = affine_coupling(torch.ones(1, 2), torch.zeros(1, 2), torch.ones(1, 2))
        >>> y, log_det
        (tensor([[2., 2.]]), tensor([0.]))
    """
    check_example_tensors(x=x, log_scale=log_scale, shift=shift)
    x, log_scale, shift = _promoted(x, log_scale, shift)
    if is_exporting() or _takes_plain_operators(x, inverse):
        return formulas.affine_coupling(x, log_scale, shift, bool(inverse), sum_dtype(x.dtype))
    return AffineCoupling.apply(x, log_scale, shift, bool(inverse))  # type: ignore[no-any-return, no-untyped-call]


# Up to so many numbers, forwards and inverse, an autograd Function costs more than its kernel saves beside the few
# operators of PyTorch that a coupling is (bench/NOTES.md).
_PLAIN_COUPLINGS = {False: 1 << 16, True: 1 << 14}


def _takes_plain_operators(x: Tensor, inverse: bool) -> bool:
    """Whether the coupling of a small tensor on the CPU runs as the operators of its formula."""
    return (
        x.device.type == "cpu"
        and x.numel() <= _PLAIN_COUPLINGS[bool(inverse)]
        and x.dtype in (torch.float32, torch.float64)
        and not torch.compiler.is_compiling()
        and dispatch.asked_for() is None
    )


def check_example_tensors(**tensors: Tensor | None) -> None:
    """Float tensors [B, ...] of one shape on one device; None is left out."""
    first_name, first = next(iter(tensors.items()))
    for name, tensor in tensors.items():
        if tensor is None and name != first_name:
            continue
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name}: got {type(tensor).__name__}, expected a tensor")
        if not tensor.dtype.is_floating_point:
            raise TypeError(f"{name}: got dtype {tensor.dtype}, expected a floating-point tensor")
        assert first is not None
        if tensor.dim() == 0:
            raise ValueError(f"{name}: got a number, expected a tensor [B, ...]")
        if tensor.shape != first.shape:
            raise ValueError(
                f"{first_name} and {name}: got shapes {tuple(first.shape)} and {tuple(tensor.shape)}, expected the "
                "same shape"
            )
        if tensor.device != first.device:
            raise ValueError(
                f"{first_name} and {name}: got devices {first.device} and {tensor.device}, expected the same device"
            )


def _promoted(*tensors: Tensor | None) -> list[Any]:
    """All of the common type, as PyTorch's own arithmetic would have them."""
    dtypes = {tensor.dtype for tensor in tensors if tensor is not None}
    if len(dtypes) == 1:
        return list(tensors)
    common = reduce(torch.promote_types, dtypes)
    return [None if tensor is None else tensor.to(common) for tensor in tensors]
