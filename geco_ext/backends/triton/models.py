"""The operators of models just in time (``kernels/models.py``). Not this imports triton, but the first call."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from geco_ext.backends.allocation import new_empty
from geco_ext.backends.layout import extent_of, is_channels_last, new_like, new_sums, strided
from geco_ext.backends.triton.device import FUSED, multiprocessors, on_device, power_of_two

_TILE = 1024  # numbers of a program in one round: in float32, 16 bytes twice for each of its threads
_TILE_OF_DOUBLE = 512  # with more, registers do not suffice
_WARPS = 4
_LARGE_EXAMPLE = 8 * _TILE
# Of a multiprocessor. With fewer programs than this, large examples are shared out, and a second launch adds up.
_ENOUGH_PROGRAMS = 4
_PROGRAMS_OF_SHARED_EXAMPLES = 16
_LARGEST_INDEX = 2**31 - 2 * _TILE


def gaussian_rsample_kl(
    q_mean: Tensor, q_log_std: Tensor, p_mean: Tensor | None, p_log_std: Tensor | None, noise: Tensor
) -> tuple[Tensor, Tensor]:
    """A sample, and the KL [B] from the prior (a standard normal where it is None)."""
    from geco_ext.backends.triton.kernels.models import gaussian_kernel

    call = _Call(q_mean, q_mean)
    z = new_like(q_mean, call.channels_last)
    operands = call.operands(q_mean, q_log_std, p_mean, p_log_std, noise, z)
    return z, call.launch_with_sums(gaussian_kernel, *operands)


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
    from geco_ext.backends.triton.kernels.models import gaussian_backward_kernel

    call = _Call(q_mean, q_mean)
    gradients = [new_like(q_mean, call.channels_last) for _ in range(2 if p_mean is None else 4)]
    missing = [None] * (4 - len(gradients))
    of_z, *operands = call.operands(grad_z, q_mean, q_log_std, p_mean, p_log_std, noise, *gradients, *missing)
    call.launch(gaussian_backward_kernel, of_z, _per_example(grad_kl), *operands)
    return gradients


def lstm_gates(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """Hidden and cell."""
    from geco_ext.backends.triton.kernels.models import gates_kernel

    call = _Call(gates, cell)
    hidden, new_cell = (new_like(cell, call.channels_last) for _ in range(2))
    call.launch(gates_kernel, *call.operands(gates, cell, hidden, new_cell))
    return hidden, new_cell


def lstm_gates_backward(
    grad_hidden: Tensor | None, grad_cell: Tensor | None, gates: Tensor, cell: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients by gates and by the cell before."""
    from geco_ext.backends.triton.kernels.models import gates_backward_kernel

    call = _Call(gates, cell)
    by_gates, by_cell = new_like(gates, call.channels_last), new_like(cell, call.channels_last)
    call.launch(gates_backward_kernel, *call.operands(grad_hidden, grad_cell, gates, cell, by_gates, by_cell))
    return by_gates, by_cell


def affine_coupling(x: Tensor, log_scale: Tensor, shift: Tensor, inverse: bool) -> tuple[Tensor, Tensor]:
    """The transformed x and the log-determinant [B]."""
    from geco_ext.backends.triton.kernels.models import coupling_kernel

    call = _Call(x, x)
    y = new_like(x, call.channels_last)
    return y, call.launch_with_sums(coupling_kernel, *call.operands(x, log_scale, shift, y), inverse)


def affine_coupling_backward(
    grad_y: Tensor | None, grad_log_det: Tensor | None, value: Tensor, log_scale: Tensor, inverse: bool
) -> list[Tensor]:
    """Gradients by x and log_scale, and of the inverse by shift. ``value``: x, or what the inverse returned."""
    from geco_ext.backends.triton.kernels.models import coupling_backward_kernel

    call = _Call(value, value)
    made = [new_like(value, call.channels_last) for _ in range(3 if inverse else 2)]
    of_y, *operands = call.operands(grad_y, value, log_scale, *made, *[None] * (3 - len(made)))
    call.launch(coupling_backward_kernel, of_y, _per_example(grad_log_det), *operands, inverse)
    return made


# How a call is shared out ---------------------------------------------------------------------------------------------


class _Blocks(NamedTuple):
    """What a program does."""

    examples: int  # several only where one is no longer than a tile
    numbers: int  # of an example, in one round
    rounds: int  # for an example


class _Call:
    """The order and the size of all operands of a call."""

    def __init__(self, leader: Tensor, of_shape: Tensor):
        self.leader = leader
        self.channels_last = is_channels_last(leader)
        self.extent = extent_of(of_shape, self.channels_last)
        self.by_row = False
        self._processors = multiprocessors(leader.device)

    def operands(self, *tensors: Tensor | None) -> list[Any]:
        """As kernels take them: (tensor, stride of examples, stride of rows)."""
        operands = [None if tensor is None else strided(tensor, self.channels_last) for tensor in tensors]
        rows_follow_one_another = all(o is None or o.row_stride == self.extent.inner for o in operands)
        self.by_row = self.extent.rows > 1 and not rows_follow_one_another
        return [None if operand is None else tuple(operand) for operand in operands]

    def launch(self, kernel: Any, *arguments: Any) -> None:
        """One launch of a kernel that leaves no sums."""
        blocks = self._blocks()
        self._launch(kernel, arguments, blocks, blocks.rounds)

    def launch_with_sums(self, kernel: Any, *arguments: Any) -> Tensor:
        """The sums, [B]; few large examples take another launch to add up what several programs have found."""
        from geco_ext.backends.triton.kernels.models import sum_of_shares_kernel

        sums = new_sums(self.leader)
        blocks = self._blocks()
        shares = self._shares(blocks)
        if shares == 1:
            self._launch(kernel, (*arguments, sums), blocks, shares)
            return sums
        partials = new_empty(sums, (self.extent.batch * shares,), torch.float64)
        self._launch(kernel, (*arguments, partials), blocks, shares)
        with on_device(sums.device):
            sum_of_shares_kernel[(self.extent.batch,)](partials, sums, shares, 256, num_warps=1, **FUSED)
        return sums

    def _blocks(self) -> _Blocks:
        """Small examples share a program as far as enough programs are left for the device."""
        of_example = self.extent.rows * self.extent.inner
        tile = _TILE_OF_DOUBLE if self.leader.dtype == torch.float64 else _TILE
        numbers = min(tile, power_of_two(of_example))
        examples = min(tile // numbers, power_of_two(-(-self.extent.batch // self._processors)))
        return _Blocks(examples, numbers, -(-of_example // numbers))

    def _shares(self, blocks: _Blocks) -> int:
        """Programs of an example that leaves a sum."""
        batch, rows, inner = self.extent
        if rows * inner < _LARGE_EXAMPLE or batch >= _ENOUGH_PROGRAMS * self._processors:
            return 1
        return min(blocks.rounds, -(-_PROGRAMS_OF_SHARED_EXAMPLES * self._processors // max(batch, 1)))

    def _launch(self, kernel: Any, arguments: tuple[Any, ...], blocks: _Blocks, shares: int) -> None:
        import triton.language as tl

        batch, rows, inner = self.extent
        programs = -(-batch // blocks.examples) * shares
        if programs == 0:
            return
        with on_device(self.leader.device):
            kernel[(programs,)](
                *arguments,
                (batch, rows * inner, inner, shares),
                tl.float64 if self.leader.dtype == torch.float64 else tl.float32,
                tl.int32 if rows * inner <= _LARGEST_INDEX else tl.int64,
                self.by_row,
                blocks.examples,
                blocks.numbers,
                num_warps=_WARPS,
                **FUSED,
            )


def _per_example(gradient: Tensor | None) -> tuple[Tensor, int] | None:
    """As kernels take it: (tensor, stride)."""
    return None if gradient is None else (gradient, gradient.stride(0))
