"""The operators of models under autograd, and as PyTorch knows them.

Backward computes activations again, which takes less than to read them back. As with the loss, calls on plain tensors
go straight to a backend, and what looks at operator calls sees the declared ones.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from geco_ext.backends.layout import is_channels_last, new_like, new_sums
from geco_ext.ops import dispatch


class GaussianRsampleKL(torch.autograd.Function):
    """A reparametrised sample and its KL as functions of posterior, prior and noise."""

    @staticmethod
    def forward(
        ctx: Any, q_mean: Tensor, q_log_std: Tensor, p_mean: Tensor | None, p_log_std: Tensor | None, noise: Tensor
    ) -> Any:
        """Sample and KL."""
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(q_mean, q_log_std, p_mean, p_log_std, noise)
        return call("gaussian_rsample_kl", q_mean, q_mean, q_log_std, p_mean, p_log_std, noise)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_z: Tensor | None, grad_kl: Tensor | None) -> Any:
        """Gradients by posterior, prior and noise."""
        q_mean, q_log_std, p_mean, p_log_std, noise = ctx.saved_tensors
        gradients = [None] * 4
        if any(ctx.needs_input_grad[:4]):
            arguments = (grad_z, grad_kl, q_mean, q_log_std, p_mean, p_log_std, noise)
            made = call("gaussian_rsample_kl_backward", q_mean, *arguments)
            gradients[: len(made)] = made
        of_noise = grad_z * q_log_std.exp() if ctx.needs_input_grad[4] and grad_z is not None else None
        return *gradients, of_noise


class LSTMGates(torch.autograd.Function):
    """Hidden and cell as functions of the gates and of the cell before."""

    @staticmethod
    def forward(ctx: Any, gates: Tensor, cell: Tensor) -> Any:
        """Hidden and cell."""
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(gates, cell)
        return call("lstm_gates", gates, gates, cell)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_hidden: Tensor | None, grad_cell: Tensor | None) -> Any:
        """Gradients by gates and by the cell before."""
        gates, cell = ctx.saved_tensors
        return call("lstm_gates_backward", gates, grad_hidden, grad_cell, gates, cell)


class AffineCoupling(torch.autograd.Function):
    """The transformed x and the log-determinant as functions of x, log-scale and shift."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, log_scale: Tensor, shift: Tensor, inverse: bool) -> Any:
        """The transformed x and the log-determinant."""
        ctx.set_materialize_grads(False)
        y, log_det = call("affine_coupling", x, x, log_scale, shift, inverse)
        ctx.inverse = inverse
        ctx.save_for_backward(y if inverse else x, log_scale)
        return y, log_det

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor | None, grad_log_det: Tensor | None) -> Any:
        """Gradients by x, log_scale and shift; forwards the last is the incoming one."""
        value, log_scale = ctx.saved_tensors
        arguments = (grad_y, grad_log_det, value, log_scale, ctx.inverse)
        of_x, of_log_scale, *of_shift = call("affine_coupling_backward", value, *arguments)
        return of_x, of_log_scale, of_shift[0] if ctx.inverse else grad_y, None


# The operators: schemas and fake kernels ------------------------------------------------------------------------------

_GAUSSIAN = "Tensor q_mean, Tensor q_log_std, Tensor? p_mean, Tensor? p_log_std, Tensor noise"

_library = torch.library.Library("geco_ext", "FRAGMENT")
_library.define(f"gaussian_rsample_kl({_GAUSSIAN}) -> (Tensor, Tensor)")
_library.define(f"gaussian_rsample_kl_backward(Tensor? grad_z, Tensor? grad_kl, {_GAUSSIAN}) -> Tensor[]")
_library.define("lstm_gates(Tensor gates, Tensor cell) -> (Tensor, Tensor)")
_library.define(
    "lstm_gates_backward(Tensor? grad_hidden, Tensor? grad_cell, Tensor gates, Tensor cell) -> (Tensor, Tensor)"
)
_library.define("affine_coupling(Tensor x, Tensor log_scale, Tensor shift, bool inverse) -> (Tensor, Tensor)")
_library.define(
    "affine_coupling_backward(Tensor? grad_y, Tensor? grad_log_det, Tensor value, Tensor log_scale, bool inverse)"
    " -> Tensor[]"
)


def call(name: str, leader: Tensor, *arguments: Any) -> Any:
    """One of the operators: straight from the backend, or as the declared operator where something looks at it.

    Args:
        name: of the operator.
        leader: the tensor whose device, type and layout the call has.
        arguments: of the operator.
    """
    if dispatch.is_plain(*[argument for argument in arguments if isinstance(argument, Tensor)]):
        return dispatch.select_for_models(leader).model_operator(name, leader, *arguments)
    return getattr(torch.ops.geco_ext, name).default(*arguments)


def _fake_pair(shape_of: Tensor, leader: Tensor) -> tuple[Tensor, Tensor]:
    channels_last = is_channels_last(leader)
    return new_like(shape_of, channels_last), new_like(shape_of, channels_last)


def _fake_gaussian(q_mean: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return new_like(q_mean, is_channels_last(q_mean)), new_sums(q_mean)


def _fake_gaussian_backward(
    grad_z: Tensor | None, grad_kl: Tensor | None, q_mean: Tensor, q_log_std: Tensor, p_mean: Tensor | None, *_: Any
) -> list[Tensor]:
    channels_last = is_channels_last(q_mean)
    return [new_like(q_mean, channels_last) for _ in range(2 if p_mean is None else 4)]


def _fake_gates(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    return _fake_pair(cell, gates)


def _fake_gates_backward(
    grad_hidden: Tensor | None, grad_cell: Tensor | None, gates: Tensor, cell: Tensor
) -> tuple[Tensor, Tensor]:
    channels_last = is_channels_last(gates)
    return new_like(gates, channels_last), new_like(cell, channels_last)


def _fake_coupling(x: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return new_like(x, is_channels_last(x)), new_sums(x)


def _fake_coupling_backward(
    grad_y: Tensor | None, grad_log_det: Tensor | None, value: Tensor, log_scale: Tensor, inverse: bool
) -> list[Tensor]:
    channels_last = is_channels_last(value)
    return [new_like(value, channels_last) for _ in range(3 if inverse else 2)]


def _kernel(name: str, leader: int) -> Any:
    def kernel(*arguments: Any) -> Any:
        tensor = cast(Tensor, arguments[leader])
        return dispatch.select_for_models(tensor).model_operator(name, tensor, *arguments)

    return kernel


for _name, _leader, _fake in (
    ("gaussian_rsample_kl", 0, _fake_gaussian),
    ("gaussian_rsample_kl_backward", 2, _fake_gaussian_backward),
    ("lstm_gates", 0, _fake_gates),
    ("lstm_gates_backward", 2, _fake_gates_backward),
    ("affine_coupling", 0, _fake_coupling),
    ("affine_coupling_backward", 2, _fake_coupling_backward),
):
    _library.impl(_name, _kernel(_name, _leader), "CompositeExplicitAutograd")
    torch.library.register_fake(f"geco_ext::{_name}", _fake, lib=_library)
