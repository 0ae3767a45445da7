"""VAE+NVP, the model of the paper's Section 4: a convolutional VAE whose posterior is a conditional RealNVP."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal

from .arguments import at_least, check_images, check_latents, refuse_context
from .autoencoder import VariationalAutoencoder
from .convolutional import ConvolutionalDecoder, ConvolutionalEncoder, checked_image_shape
from .coupling_flow import CouplingFlow
from .diagonal_gaussian import MAX_LOG_STD, bounded
from .noise import Noise
from .output import VariationalOutput
from .posterior import FlowPosterior, standard_normal_log_prob


class NVPVAE(VariationalAutoencoder):
    """Variational auto-encoder with a convolutional decoder and a RealNVP posterior.

    "A convolutional decoder similar to [Rosca et al. 2018] and a fully connected conditional NVP model as the encoder
    density" (Taming VAEs, Section 4):

        h = encoder(x),    z_0 ~ N(mean(h), std(h)^2),    z = f(z_0; h),    x_hat = g(z),    prior pi(z) = N(0, I)

    The last layer of the decoder is a sigmoid, so images are expected in [0, 1]. All log-scales are bounded (base:
    |log std| < 8, each coupling: |log scale| < 3), so no density overflows.

    Args:
        image_shape: (C, H, W). Height and width are at least 8 and divisible by the factor the encoder shrinks them by
            (2 below 16 pixels, 4 below 32, 8 below 64, 16 below 128).
        latent: number of latents.
        flows: number of affine couplings in the posterior; 0 leaves the Gaussian.
        coupling_layers: number of hidden layers in the network of each coupling.
        hidden: number of encoder features and width of the decoder's fully connected layer; couplings have half of it.
        channels: channels of the convolution nearest the image.

    Example:
        >>> model = NVPVAE((1, 16, 16))
        >>> output = model(torch.rand(4, 1, 16, 16))
        >>> output.x_hat.shape, output.kl.shape, output.z.shape
        (torch.Size([4, 1, 16, 16]), torch.Size([4]), torch.Size([4, 24]))
        >>> model.sample(3).shape
        torch.Size([3, 1, 16, 16])
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        *,
        latent: int = 24,
        flows: int = 4,
        coupling_layers: int = 1,
        hidden: int = 256,
        channels: int = 32,
    ) -> None:
        super().__init__()
        self.image_shape = checked_image_shape(image_shape)
        at_least("latent", latent, 2 if flows > 0 else 1)
        at_least("flows", flows, 0)
        at_least("coupling_layers", coupling_layers, 1)
        at_least("hidden", hidden, 2)
        at_least("channels", channels, 1)
        self.latent = latent
        self.encoder = ConvolutionalEncoder(self.image_shape, hidden=hidden, channels=channels)
        self.base = nn.Linear(hidden, 2 * latent)
        self.flow = CouplingFlow(latent, features=hidden, flows=flows, hidden=hidden // 2, layers=coupling_layers)
        self.decoder = ConvolutionalDecoder(self.image_shape, latent=latent, hidden=hidden, channels=channels)

    def forward(self, x: Tensor, context: Tensor | None = None, noise: Noise = torch.randn_like) -> VariationalOutput:
        """Reconstruct x [B, C, H, W] from one posterior sample, drawn by ``noise``.

        The KL of each example is the one-sample Monte Carlo estimate log q(z|x) - log pi(z): unbiased, and therefore
        negative now and then.

        Raises:
            ValueError: x is not [B, C, H, W] with the model's C, H, W; a context is given.
        """
        refuse_context(context)
        z, log_posterior = self.posterior(x).rsample_and_log_prob(noise=noise)
        return VariationalOutput(self.decoder(z), log_posterior - standard_normal_log_prob(z), z)

    def posterior(self, x: Tensor) -> FlowPosterior:
        """q(z|x) for x [B, C, H, W]: batch shape [B], event shape [latent].

        Example:
            >>> posterior = NVPVAE((1, 8, 8), latent=2).posterior(torch.rand(5, 1, 8, 8))
            >>> posterior.log_prob(posterior.rsample((7,))).shape
            torch.Size([7, 5])
        """
        check_images(x, self.image_shape)
        features = self.encoder(x)
        mean, log_std = self.base(features).to(self.base.weight.dtype).chunk(2, dim=-1)
        return FlowPosterior(mean, bounded(log_std, MAX_LOG_STD), self.flow, features)

    def encode(self, x: Tensor, context: Tensor | None = None) -> FlowPosterior:
        """The same as :meth:`posterior`; there is no context to give."""
        refuse_context(context)
        return self.posterior(x)

    def decode(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """The mean images g(z) [B, C, H, W] in [0, 1] of latents z [B, latent].

        Raises:
            ValueError: z of another shape; a context is given.
        """
        refuse_context(context)
        check_latents(z, self.latent)
        images: Tensor = self.decoder(z)
        return images

    @property
    def latent_size(self) -> int:
        """The number of latents."""
        return self.latent

    @property
    def prior(self) -> Distribution:
        """N(0, I): batch shape [], event shape [latent]."""
        zeros = self.base.weight.new_zeros(self.latent)
        return Independent(Normal(zeros, torch.ones_like(zeros)), 1)

    @torch.no_grad()
    def sample(self, n: int, context: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        """Images g(z) [n, C, H, W] with z from the prior, n at least 1; the generator lives on the model's device."""
        at_least("n", n, 1)
        refuse_context(context)
        weight = self.base.weight
        z = torch.randn(n, self.latent, generator=generator, dtype=weight.dtype, device=weight.device)
        images: Tensor = self.decoder(z)
        return images

    def extra_repr(self) -> str:
        """The sizes that the layers below do not show at a glance."""
        return f"image_shape={self.image_shape}, latent={self.latent}"
