"""A diagonal Gaussian pushed through a conditional flow, as a torch distribution."""

import math
from typing import Any

import torch
from torch import Tensor

from .coupling_flow import CouplingFlow
from .latent_distribution import EXTENT, LatentDistribution
from .noise import Noise


class FlowPosterior(LatentDistribution):
    """q(z|x): z = f(z_0; h(x)) with z_0 ~ N(mean(x), diag(exp(2 log_std(x)))) and f a conditional flow.

    Its density is the Gaussian's divided by the flow's change of volume, exact at any z because f is inverted exactly:

        log q(z|x) = log N(z_0; mean, std) - log |det df/dz_0|,    z_0 = f^-1(z; h(x))

    Batch shape [B], event shape [latent]. Gradients flow through samples and densities into the encoder and the flow.

    Args:
        mean: mean of the Gaussian base, [B, latent].
        log_std: logarithm of its standard deviation, [B, latent].
        flow: f.
        features: h(x), [B, features].
    """

    def __init__(self, mean: Tensor, log_std: Tensor, flow: CouplingFlow, features: Tensor) -> None:
        self.base_mean = mean
        self.base_log_std = log_std
        self.flow = flow
        self.features = features
        super().__init__(mean.shape[:1], mean.shape[1:], validate_args=False)

    def rsample_and_log_prob(
        self, sample_shape: Any = EXTENT, noise: Noise = torch.randn_like
    ) -> tuple[Tensor, Tensor]:
        """Samples [*sample_shape, B, latent] and their log-densities [*sample_shape, B] in nats, in one pass."""
        normal = noise(self.base_mean.new_empty(self._extended_shape(torch.Size(sample_shape))))
        z, log_det = self.flow(self.base_mean + self.base_log_std.exp() * normal, self.features)
        return z, self._base_log_prob(normal) - log_det

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density log q(value|x) [..., B] in nats, at any value that broadcasts to [..., B, latent]."""
        self._check_value(value)
        value = value + torch.zeros_like(self.base_mean)  # broadcasts
        base, log_det = self.flow.inverse(value, self.features)
        return self._base_log_prob((base - self.base_mean) * (-self.base_log_std).exp()) + log_det

    def _base_log_prob(self, normal: Tensor) -> Tensor:
        return standard_normal_log_prob(normal) - self.base_log_std.sum(-1)


def standard_normal_log_prob(z: Tensor) -> Tensor:
    """The log-density log N(z; 0, I) [...] in nats of z [..., n]."""
    return -0.5 * (z.square().sum(-1) + z.shape[-1] * math.log(2 * math.pi))
