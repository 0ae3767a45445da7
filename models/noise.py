"""Where models take the noise of their posterior samples from."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

Noise = Callable[[Tensor], Tensor]
"""Gives standard normal numbers of the shape, type, device and strides of a tensor, as `torch.randn_like` does.

From a generator of one's own: ``lambda like: torch.randn(like.shape, generator=generator, device=like.device)``.
"""


class WholeBatchNoise:
    """Draws for a batch that several processes share, in each the same numbers, and gives a process its part.

    With their random states equal, an example gets the noise it gets where one process takes the whole batch: training
    follows the same trajectory to rounding, and a checkpoint with one random state serves any number of processes.
    The numbers drawn for the others are few beside what a model computes.

    Args:
        rank: which part; example i of the batch belongs to rank i modulo ``ranks``.
        ranks: number of equal parts.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> whole = torch.randn_like(torch.empty(6, 2))
        >>> _ = torch.manual_seed(0)
        >>> bool((WholeBatchNoise(rank=1, ranks=3)(torch.empty(2, 2)) == whole[1::3]).all())
        True
    """

    def __init__(self, rank: int, ranks: int) -> None:
        self.rank = rank
        self.ranks = ranks

    def __call__(self, like: Tensor) -> Tensor:
        """The noise of this process's examples, which are those of ``like`` [B, ...]."""
        # The order in which numbers fill a tensor follows its strides: those of the whole batch, which takes no memory.
        shape = (self.ranks * like.shape[0], *like.shape[1:])
        whole = torch.empty_strided(shape, like.stride(), dtype=like.dtype, device="meta")
        return torch.randn_like(whole, device=like.device)[self.rank :: self.ranks]


class GivenNoise:
    """Hands out given numbers in the order in which a model asks for noise: all its latents, step by step.

    Args:
        numbers: standard normal ones, [B, D], as many as the model has latents; zeros give the code of ``embed``.

    Example:
        >>> noise = GivenNoise(torch.arange(6.0).view(1, 6))
        >>> noise(torch.empty(1, 2, 2)).flatten().tolist(), noise(torch.empty(1, 2)).tolist()
        ([0.0, 1.0, 2.0, 3.0], [[4.0, 5.0]])
    """

    def __init__(self, numbers: Tensor) -> None:
        self.numbers = numbers
        self.given = 0

    def __call__(self, like: Tensor) -> Tensor:
        """The next numbers, in the shape of ``like`` [B, ...]."""
        first, self.given = self.given, self.given + math.prod(like.shape[1:])
        return self.numbers[:, first : self.given].reshape(like.shape)
