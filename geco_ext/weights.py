"""Weights of elements: a weighted mean over the elements of an example, and the batch average over those that have any.

What kernels get is divided already, so that they only multiply and add: with N the number of examples whose weights
have a sum above zero, of a batch of B::

    W = w * (B / N) / sum(w)     for a mean over an example, so that C_hat = (1 / B) sum_b sum(W e) - tolerance
    W = w * (B / N)              for a sum

The numbers of a channel are divided by themselves where it has a constraint of its own. Several processes share N
and B.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from geco_ext.contract import Term
from geco_ext.ops.dispatch import is_plain

WEIGHT_TYPES = (torch.bool, torch.float16, torch.bfloat16, torch.float32, torch.float64)


class Division(NamedTuple):
    """What the weights of a constraint are divided by: their sum or nothing, of an example or of each channel."""

    mean: bool
    per_channel: bool

    @classmethod
    def of(cls, term: Term) -> Division:
        """That of a constraint which compares number by number."""
        return cls(term.mean, term.rows > 1)


def check_weight(weight: Tensor, x_hat: Tensor, name: str = "x_hat") -> None:
    """Bool or float, [B, 1, ...] or as large as the images, on their device; on the CPU also >= 0 and finite.

    Elsewhere looking at values would mean to wait for the device: such weights make the constraint NaN.
    """
    if not isinstance(weight, Tensor):
        raise TypeError(f"weight: got {type(weight).__name__}, expected a tensor")
    if weight.dtype not in WEIGHT_TYPES:
        raise TypeError(f"weight: got dtype {weight.dtype}, expected bool, float16, bfloat16, float32 or float64")
    if weight.layout != torch.strided:
        raise TypeError(f"weight: got a tensor of layout {weight.layout}, expected a dense one")
    shape = tuple(x_hat.shape)
    for_all_channels = (*shape[:1], 1, *shape[2:]) if len(shape) > 1 else shape
    if tuple(weight.shape) not in (shape, for_all_channels):
        other = "" if for_all_channels == shape else f", or {for_all_channels}, for all channels"
        lacks_channels = len(shape) > 2 and tuple(weight.shape) == (*shape[:1], *shape[2:])
        remedy = "; write weight=mask[:, None]" if lacks_channels else ""
        raise ValueError(
            f"weight: got shape {tuple(weight.shape)}, expected {shape}, the shape of {name}{other}{remedy}"
        )
    if weight.device != x_hat.device:
        raise ValueError(f"weight: got device {weight.device}, expected {x_hat.device}, the device of {name}")
    if _shows_values(weight):
        low, high = weight.aminmax()
        if not (low >= 0 and high < torch.inf):
            raise ValueError(f"weight: got values from {float(low)} to {float(high)}, expected finite numbers >= 0")


def divided(weight: Tensor, x_hat: Tensor, x: Tensor, divisions: Sequence[Division], group: Any = None) -> list[Tensor]:
    """W for each of several divisions, in the type that kernels compute in: [B, 1, ...] stays so.

    NaN for an example whose weights are negative or not finite, or add up to more than the type can hold, and
    everywhere where N is zero.

    Args:
        weight: checked, see :func:`check_weight`.
        x_hat: what is weighed.
        x: the target.
        divisions: what the weights are divided by.
        group: processes to count examples over, or None.
    """
    wide = torch.float64 in (x_hat.dtype, x.dtype)
    dtype = torch.float64 if wide else torch.float32
    with torch.no_grad():
        # In the type of the result from here on: PyTorch's sums and products of other types take several times as long.
        values = weight.detach().to(dtype)
        shares = [_shares(values, weight, x_hat, division) for division in divisions]
        counts = [(share != 0).sum(0, dtype=torch.float64) for share in shares]
        examples: Tensor | int = x_hat.shape[0]
        if group is not None:
            of_all = torch.cat([*counts, counts[0].new_full((1,), x_hat.shape[0])])
            torch.distributed.all_reduce(of_all, group=group)
            *counts, examples = of_all.split([*map(len, counts), 1])
        factors = [share * (examples / count) for share, count in zip(shares, counts, strict=True)]
        beside = [_beside(factor.to(dtype), weight) for factor in factors]
        if len(beside) == 1 and weight.dtype != dtype:  # the values are a copy
            return [values.mul_(beside[0])]
        return [values * factor for factor in beside]


def _shares(values: Tensor, weight: Tensor, x_hat: Tensor, division: Division) -> Tensor:
    """What each weight of an example has to be multiplied by before the batch average, [B, 1] or [B, channels]."""
    first = 2 if division.per_channel else 1
    dimensions = list(range(first, weight.dim()))
    total = (values.sum(dimensions) if dimensions else values).to(torch.float64)
    if weight.dtype != torch.bool and not _shows_values(weight):
        lowest = weight.amin(dimensions) if dimensions else weight
        total = torch.where(lowest >= 0, total, torch.nan)
    if weight.dim() > 1 and not division.per_channel:
        total = total * (x_hat.shape[1] // weight.shape[1])
    total = torch.where(total.isinf(), torch.nan, total)  # a sum beyond the type: not a weight of none
    share = torch.where(total == 0, total, (1.0 if division.mean else total) / total)
    return share.reshape(weight.shape[0], -1)


def _beside(factor: Tensor, weight: Tensor) -> Tensor:
    """[B, 1] or [B, channels] in as many dimensions as the weights have."""
    return factor.reshape(*(factor.shape if weight.dim() > 1 else factor.shape[:1]), *[1] * (weight.dim() - 2))


def _shows_values(weight: Tensor) -> bool:
    """Whether its values are looked at before the call."""
    return weight.device.type == "cpu" and weight.dtype != torch.bool and is_plain(weight)
