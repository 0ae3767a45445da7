"""The model kernels under autograd: backward computes activations again, which takes less than to read them back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from geco_ext.model_kernels import ops


class GaussianRsampleKL(torch.autograd.Function):
    """See :func:`geco_ext.functional.gaussian_rsample_kl`."""

    @staticmethod
    def forward(
        ctx: Any, q_mean: Tensor, q_log_std: Tensor, p_mean: Tensor | None, p_log_std: Tensor | None, noise: Tensor
    ) -> Any:
        """Sample and KL."""
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(q_mean, q_log_std, p_mean, p_log_std, noise)
        return ops.call("gaussian_rsample_kl", q_mean, q_mean, q_log_std, p_mean, p_log_std, noise)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_z: Tensor | None, grad_kl: Tensor | None) -> Any:
        """Gradients by posterior, prior and noise."""
        q_mean, q_log_std, p_mean, p_log_std, noise = ctx.saved_tensors
        gradients = [None] * 4
        if any(ctx.needs_input_grad[:4]):
            arguments = (grad_z, grad_kl, q_mean, q_log_std, p_mean, p_log_std, noise)
            made = ops.call("gaussian_rsample_kl_backward", q_mean, *arguments)
            gradients[: len(made)] = made
        of_noise = grad_z * q_log_std.exp() if ctx.needs_input_grad[4] and grad_z is not None else None
        return *gradients, of_noise


class LSTMGates(torch.autograd.Function):
    """See :func:`geco_ext.functional.lstm_gates`."""

    @staticmethod
    def forward(ctx: Any, gates: Tensor, cell: Tensor) -> Any:
        """Hidden and cell."""
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(gates, cell)
        return ops.call("lstm_gates", gates, gates, cell)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_hidden: Tensor | None, grad_cell: Tensor | None) -> Any:
        """Gradients by gates and by the cell before."""
        gates, cell = ctx.saved_tensors
        return ops.call("lstm_gates_backward", gates, grad_hidden, grad_cell, gates, cell)


class AffineCoupling(torch.autograd.Function):
    """See :func:`geco_ext.functional.affine_coupling`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, log_scale: Tensor, shift: Tensor, inverse: bool) -> Any:
        """The transformed x and the log-determinant."""
        ctx.set_materialize_grads(False)
        y, log_det = ops.call("affine_coupling", x, x, log_scale, shift, inverse)
        ctx.inverse = inverse
        ctx.save_for_backward(y if inverse else x, log_scale)
        return y, log_det

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor | None, grad_log_det: Tensor | None) -> Any:
        """Gradients by x, log_scale and shift; forwards the last is the incoming one."""
        value, log_scale = ctx.saved_tensors
        arguments = (grad_y, grad_log_det, value, log_scale, ctx.inverse)
        of_x, of_log_scale, *of_shift = ops.call("affine_coupling_backward", value, *arguments)
        return of_x, of_log_scale, of_shift[0] if ctx.inverse else grad_y, None
