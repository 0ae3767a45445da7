"""The model kernels declared to PyTorch, for what looks at or rewrites operator calls (see `geco_ext.ops`)."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor

from geco_ext.model_kernels import is_plain, select
from geco_ext.model_kernels.layout import is_channels_last, new_like, new_sums

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
    """One of the kernels: straight from the backend, or as the declared operator where something looks at it.

    Args:
        name: of the kernel.
        leader: the tensor whose device, type and layout the call has.
        arguments: of the kernel.
    """
    if is_plain(*[argument for argument in arguments if isinstance(argument, Tensor)]):
        return getattr(select(leader), name)(*arguments)
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
        return getattr(select(cast(Tensor, arguments[leader])), name)(*arguments)

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
