"""The interface that the variational auto-encoders share: from images to latents and back."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from .arguments import at_least, check_images
from .latent_distribution import LatentDistribution


class VariationalAutoencoder(nn.Module, ABC):
    """A model with a posterior q(z|x), a prior p(z) and a decoder, all over flat latents z [D].

    ``forward(x, context=None)`` returns an object with ``x_hat`` [B, C, H, W], ``kl`` [B] in nats and ``z`` [B, D], the
    posterior sample with ``decode(z, context)`` = ``x_hat``. It takes ``noise``, from which the sample is drawn.

    Attributes:
        image_shape: (C, H, W).
        context_shape: (C', H, W) of a context; None: the model is not conditional, and refuses one.
    """

    image_shape: tuple[int, int, int]
    context_shape: tuple[int, int, int] | None = None

    @property
    @abstractmethod
    def latent_size(self) -> int:
        """D, the number of latents of an example."""

    @property
    @abstractmethod
    def prior(self) -> Distribution:
        """p(z): batch shape [], event shape [D], on the model's device."""

    @abstractmethod
    def encode(self, x: Tensor, context: Tensor | None = None) -> LatentDistribution:
        """The posterior q(z|x) of x [B, C, H, W], given contexts [B, C', H, W]: batch shape [B], event shape [D]."""

    @abstractmethod
    def decode(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Images [B, C, H, W] in [0, 1] of latents z [B, D], given contexts [B, C', H, W]."""

    @torch.no_grad()
    def reconstruct(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Reconstruction [B, C, H, W] of x [B, C, H, W] at one posterior sample."""
        return self(x, context).x_hat  # type: ignore[no-any-return]

    @torch.no_grad()
    def embed(self, x: Tensor, context: Tensor | None = None, samples: int = 0) -> Tensor:
        """One code z [B, D] for each image of x [B, C, H, W], which ``decode`` takes; without gradients.

        By default the same for the same image: the posterior's sample with zero noise, that is the mean of every
        Gaussian in it, passed on through the flow or the recurrence. That is the posterior mean of a Gaussian posterior
        (``NVPVAE(flows=0)``, ``ConvDraw(steps=1)``), and near the middle of others, whose mean has no closed form.

        Args:
            x: images.
            context: [B, C', H, W], where the model is conditional.
            samples: 0 for the above; n for the mean of n posterior samples from PyTorch's global random numbers: 1 is
                one sample, many estimate the posterior mean.

        Raises:
            ValueError: a negative number of samples; x or context of another shape.
        """
        at_least("samples", samples, 0)
        posterior = self.encode(x, context)
        if samples == 0:
            return posterior.rsample_and_log_prob(noise=torch.zeros_like)[0]
        total = posterior.rsample()
        for _ in range(samples - 1):
            total = total + posterior.rsample()
        return total / samples

    @torch.no_grad()
    def interpolate(
        self,
        a: Tensor,
        b: Tensor,
        steps: int,
        context_a: Tensor | None = None,
        context_b: Tensor | None = None,
    ) -> Tensor:
        """Images [steps, B, C, H, W] on the way from a to b, both [B, C, H, W].

        They are decoded from codes at equal distances on the straight line from ``embed(a)`` to ``embed(b)``, both ends
        included. Contexts of a conditional model, [B, C', H, W] of each end, are mixed in the same shares.

        Raises:
            ValueError: fewer than two steps; images or contexts of other shapes.
        """
        at_least("steps", steps, 2)
        check_images(a, self.image_shape)
        if b.shape != a.shape:
            raise ValueError(f"a and b: got shapes {tuple(a.shape)} and {tuple(b.shape)}, expected the same shape")
        first, last = self.embed(a, context_a), self.embed(b, context_b)
        images = []
        for index in range(steps):
            share = index / (steps - 1)
            context = None if context_a is None or context_b is None else torch.lerp(context_a, context_b, share)
            images.append(self.decode(torch.lerp(first, last, share), context))
        return torch.stack(images)
