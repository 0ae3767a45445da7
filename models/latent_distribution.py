"""What the distributions of latents have in common."""

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from .noise import Noise

EXTENT = torch.Size()


class LatentDistribution(Distribution):
    """A distribution of latents [D] that is sampled with gradients and whose density is exact at any value.

    In general mean and variance have no closed form, so they are refused rather than estimated in silence: average
    samples, as ``embed(x, samples=n)`` of the models does.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012 - torch's own declaration
    support = constraints.real_vector
    has_rsample = True

    def rsample(self, sample_shape: Any = EXTENT) -> Tensor:
        """Samples [*sample_shape, *batch_shape, D], differentiable."""
        return self.rsample_and_log_prob(sample_shape)[0]

    def rsample_and_log_prob(
        self, sample_shape: Any = EXTENT, noise: Noise = torch.randn_like
    ) -> tuple[Tensor, Tensor]:
        """Samples [*sample_shape, *batch_shape, D] and their log-densities, without D, in nats, in one pass."""
        raise NotImplementedError

    @property
    def mean(self) -> Tensor:
        """Refused.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(self._refusal("mean", "sample((n,)).mean(0)"))

    @property
    def variance(self) -> Tensor:
        """Refused, and ``stddev`` with it.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(self._refusal("variance", "sample((n,)).var(0)"))

    def _refusal(self, name: str, estimate: str) -> str:
        return (
            f"{name}: {type(self).__name__} does not give it, as it has no closed form in general; "
            f"estimate it from n samples with {estimate}"
        )

    def _check_value(self, value: Tensor) -> None:
        """Raise ValueError where a value cannot be one of the latents."""
        if value.shape[-1:] != self.event_shape:
            batch = "".join(["B, " for _ in self.batch_shape])
            raise ValueError(f"value: got shape {tuple(value.shape)}, expected [..., {batch}{self.event_shape[0]}]")
