"""Fused kernels of the models, in the same four implementations as the criterion, and which one serves a call."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Protocol, cast

import torch
from torch import Tensor

from geco_ext import backends


class ModelKernels(Protocol):
    """What each of ``cpu``, ``cuda``, ``triton`` and ``reference`` computes.

    All tensors of a call have one float type, shape (but for gates: [B, 4 H, ...]) and device, and any strides. What
    is returned is dense, channels_last where the first tensor is (`layout.is_channels_last`), and of that type; sums
    over an example are float32, or float64 for float64. A gradient that is None counts as zero.
    """

    def gaussian_rsample_kl(
        self, q_mean: Tensor, q_log_std: Tensor, p_mean: Tensor | None, p_log_std: Tensor | None, noise: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Sample, and KL [B] from the prior (a standard normal where it is None)."""

    def gaussian_rsample_kl_backward(
        self,
        grad_z: Tensor | None,
        grad_kl: Tensor | None,
        q_mean: Tensor,
        q_log_std: Tensor,
        p_mean: Tensor | None,
        p_log_std: Tensor | None,
        noise: Tensor,
    ) -> list[Tensor]:
        """Gradients by q_mean and q_log_std, and where there is a prior by p_mean and p_log_std."""

    def lstm_gates(self, gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """Hidden and cell."""

    def lstm_gates_backward(
        self, grad_hidden: Tensor | None, grad_cell: Tensor | None, gates: Tensor, cell: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Gradients by gates and by the cell before."""

    def affine_coupling(self, x: Tensor, log_scale: Tensor, shift: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
        """The transformed x and the log-determinant [B]."""

    def affine_coupling_backward(
        self, grad_y: Tensor | None, grad_log_det: Tensor | None, value: Tensor, log_scale: Tensor, inverse: bool
    ) -> list[Tensor]:
        """Gradients by x and log_scale, and of the inverse by shift (else that is ``grad_y``).

        ``value`` is x, or what came out of the inverse.
        """


def select(tensor: Tensor) -> ModelKernels:
    """The implementation that serves a call on such a tensor: the one asked for, or the best that can.

    Raises:
        RuntimeError: the backend asked for cannot serve it.
    """
    return _kernels(backends.select_for(tensor.device, tensor.dtype))


@cache
def _kernels(name: str) -> ModelKernels:
    return cast(ModelKernels, import_module(f"geco_ext.model_kernels.{name}"))


def is_plain(*tensors: Tensor | None) -> bool:
    """Whether nothing looks at the operators of a call, so that it can go straight to a backend."""
    if torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack() > 0:
        return False
    return all(tensor is None or type(tensor) in (Tensor, torch.nn.Parameter) for tensor in tensors)
