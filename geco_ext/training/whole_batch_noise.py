"""The same posterior samples however many processes share a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class WholeBatchNoise(TorchFunctionMode):
    """Inside, ``torch.randn_like`` draws for the whole batch, on every rank the same, and gives a rank its share.

    With the ranks' random states equal, an example gets the noise it gets where one process takes the whole batch:
    training follows the same trajectory to rounding, and a checkpoint with one random state serves any number of
    ranks. The numbers drawn for others are few beside what a model computes.

    Args:
        rank: which share; example i of the batch belongs to rank i modulo ``ranks``, as in `BatchOrder`.
        ranks: number of equal shares.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> whole = torch.randn_like(torch.empty(6, 2))
        >>> _ = torch.manual_seed(0)
        >>> with WholeBatchNoise(rank=1, ranks=3):
        ...     share = torch.randn_like(torch.empty(2, 2))
        >>> bool((share == whole[1::3]).all())
        True
    """

    def __init__(self, rank: int, ranks: int) -> None:
        super().__init__()
        self.rank = rank
        self.ranks = ranks

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        arguments: Sequence[Any] = (),
        named: Mapping[str, Any] | None = None,
    ) -> Any:
        """Draw for the whole batch; everything else is done as it is."""
        if function is torch.randn_like:
            return self._share(*arguments, **(named or {}))
        return function(*arguments, **(named or {}))

    def _share(self, like: Tensor, **options: Any) -> Tensor:
        # The order in which numbers fill a tensor follows its strides: those of the whole batch, which takes no memory.
        shape = (self.ranks * like.shape[0], *like.shape[1:])
        whole = torch.empty_strided(shape, like.stride(), dtype=like.dtype, device="meta")
        noise: Tensor = torch.randn_like(whole, **{"device": like.device, **options})
        return noise[self.rank :: self.ranks]
