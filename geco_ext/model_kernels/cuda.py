"""The model kernels in CUDA (``csrc/cuda/model_kernels.h``)."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from torch import Tensor

from geco_ext.backends import cuda
from geco_ext.backends.native import extension


@lru_cache(maxsize=1)
def _kernels() -> Any:
    return extension()[0].cuda


def gaussian_rsample_kl(
    q_mean: Tensor, q_log_std: Tensor, p_mean: Tensor | None, p_log_std: Tensor | None, noise: Tensor
) -> tuple[Tensor, Tensor]:
    """See :class:`geco_ext.model_kernels.ModelKernels`."""
    arguments = (q_mean, q_log_std, p_mean, p_log_std, noise)
    return _kernels().gaussian_rsample_kl(*arguments, *cuda.model_place(q_mean))  # type: ignore[no-any-return]


def gaussian_rsample_kl_backward(
    grad_z: Tensor | None,
    grad_kl: Tensor | None,
    q_mean: Tensor,
    q_log_std: Tensor,
    p_mean: Tensor | None,
    p_log_std: Tensor | None,
    noise: Tensor,
) -> list[Tensor]:
    """See :class:`geco_ext.model_kernels.ModelKernels`."""
    arguments = (grad_z, grad_kl, q_mean, q_log_std, p_mean, p_log_std, noise)
    return _kernels().gaussian_rsample_kl_backward(*arguments, *cuda.model_place(q_mean))  # type: ignore[no-any-return]


def lstm_gates(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """See :class:`geco_ext.model_kernels.ModelKernels`."""
    return _kernels().lstm_gates(gates, cell, *cuda.model_place(gates))  # type: ignore[no-any-return]


def lstm_gates_backward(
    grad_hidden: Tensor | None, grad_cell: Tensor | None, gates: Tensor, cell: Tensor
) -> tuple[Tensor, Tensor]:
    """See :class:`geco_ext.model_kernels.ModelKernels`."""
    arguments = (grad_hidden, grad_cell, gates, cell)
    return _kernels().lstm_gates_backward(*arguments, *cuda.model_place(gates))  # type: ignore[no-any-return]


def affine_coupling(x: Tensor, log_scale: Tensor, shift: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
    """See :class:`geco_ext.model_kernels.ModelKernels`."""
    return _kernels().affine_coupling(x, log_scale, shift, inverse, *cuda.model_place(x))  # type: ignore[no-any-return]


def affine_coupling_backward(
    grad_y: Tensor | None, grad_log_det: Tensor | None, value: Tensor, log_scale: Tensor, inverse: bool
) -> list[Tensor]:
    """See :class:`geco_ext.model_kernels.ModelKernels`."""
    arguments = (grad_y, grad_log_det, value, log_scale, inverse)
    return _kernels().affine_coupling_backward(*arguments, *cuda.model_place(value))  # type: ignore[no-any-return]
