"""ConvDraw (Gregor et al. 2016, "Towards Conceptual Compression", arXiv:1604.08772), also conditional."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from geco_ext.functional import gaussian_rsample_kl

from .arguments import at_least, check_context, check_images, check_latents, checked_shape, one_of
from .autoencoder import VariationalAutoencoder
from .convolutional_lstm import LSTMState
from .diagonal_gaussian import DiagonalGaussian
from .draw_distribution import DrawDistribution, flat_codes
from .draw_step import DrawStep
from .noise import Noise
from .output import exportable
from .resampling import DownSampling


@exportable
class ConvDrawOutput(NamedTuple):
    """One pass of ConvDraw over a batch; a criterion needs the first two.

    Attributes:
        x_hat: the finished canvas, [B, C, H, W] in [0, 1].
        kl: KL of each example, the sum of its steps', [B], in nats.
        step_kl: KL[q(z_t | h_e); p(z_t | h_d)] of each step and example, [T, B], in nats.
        latents: the codes z_t of each step, [T, B, latent, H / downsampling, W / downsampling].
    """

    x_hat: Tensor
    kl: Tensor
    step_kl: Tensor
    latents: Tensor

    @property
    def z(self) -> Tensor:
        """The codes of all steps as one vector for each example, [B, D]; ``decode`` makes ``x_hat`` of it."""
        return flat_codes(self.latents)


class ConvDraw(VariationalAutoencoder):
    """Variational auto-encoder that draws an image in T steps, looking at what is still missing.

    With canvas r, encoder and decoder states h_e and h_d (convolutional LSTMs) and features v of the context, a step is

        error = x - sigmoid(r)
        h_e   = LSTM(x, error, h_e, h_d, v)
        z_t   ~ q(z_t | h_e),    KL_t = KL[q(z_t | h_e); p(z_t | h_d, v)]
        h_d   = LSTM(z_t, h_d, r, v)
        r     = r + W h_d

    and x_hat = sigmoid(r_T), KL = sum_t KL_t. The recurrence runs on a grid of H / downsampling x W / downsampling
    places, reached by strided convolutions. Canvas and decoder start at values that are learned. Sampling takes z_t
    from the prior, so x, error and h_e do not occur. The conditional form, after Eslami et al. 2018 ("Neural scene
    representation and rendering"), gives features of a context to encoder, decoder and prior, from the first step on.

    All |log std| are below 8, so no density overflows. Images are expected in [0, 1].

    Args:
        image_shape: (C, H, W), height and width divisible by ``downsampling``.
        context_shape: (C', H, W) of a context of the image's height and width; None: not conditional.
        steps: T.
        hidden: channels of h_e and h_d.
        latent: channels of z_t.
        downsampling: pixels a side of a place of the grid, 2 or 4.
        shared: whether all steps have the same weights (True or 1) or each its own (False or 0).

    Example:
        >>> model = ConvDraw((1, 16, 16), context_shape=(2, 16, 16))
        >>> x, context = torch.rand(4, 1, 16, 16), torch.rand(4, 2, 16, 16)
        >>> output = model(x, context)
        >>> output.x_hat.shape, output.kl.shape, output.latents.shape, output.z.shape
        (torch.Size([4, 1, 16, 16]), torch.Size([4]), torch.Size([4, 4, 4, 4, 4]), torch.Size([4, 256]))
        >>> model.sample(4, context).shape
        torch.Size([4, 1, 16, 16])
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        *,
        context_shape: Sequence[int] | None = None,
        steps: int = 4,
        hidden: int = 16,
        latent: int = 4,
        downsampling: int = 4,
        shared: bool | int = True,
    ) -> None:
        super().__init__()
        one_of("downsampling", downsampling, (2, 4))
        self.image_shape = _divisible_shape(image_shape, downsampling)
        self.context_shape = _context_shape(context_shape, self.image_shape)
        for name, value in {"steps": steps, "hidden": hidden, "latent": latent}.items():
            at_least(name, value, 1)
        one_of("shared", shared, (0, 1))
        self.steps = steps
        self.latent = latent
        channels, height, width = self.image_shape
        self.grid = (height // downsampling, width // downsampling)

        self.context_encoder: nn.Module | None = None
        if self.context_shape is not None:
            self.context_encoder = _context_encoder(self.context_shape[0], hidden, downsampling)
        context = hidden if self.context_shape is not None else 0
        self.step_networks = nn.ModuleList(
            DrawStep(channels, hidden, latent, context, downsampling) for _ in range(1 if shared else steps)
        )
        self.first_hidden = nn.Parameter(torch.zeros(hidden, *self.grid))
        self.first_cell = nn.Parameter(torch.zeros(hidden, *self.grid))
        self.first_canvas = nn.Parameter(torch.zeros(self.image_shape))

    def forward(self, x: Tensor, context: Tensor | None = None, noise: Noise = torch.randn_like) -> ConvDrawOutput:
        """Reconstruct x [B, C, H, W] at posterior samples drawn by ``noise``.

        A conditional model takes the context [B, C', H, W].

        Raises:
            ValueError: x or context of another shape; a context to a model that takes none, or none where it is needed.
        """
        canvases, latents, step_kl = self._reconstructed(x, context, noise)
        kl = torch.stack(step_kl)
        return ConvDrawOutput(canvases[-1].sigmoid(), kl.sum(0), kl, torch.stack(latents))

    def encode(self, x: Tensor, context: Tensor | None = None) -> DrawDistribution:
        """The posterior q(z_1, ..., z_T | x, context) for x [B, C, H, W]: batch shape [B], event shape [D].

        Raises:
            ValueError: as :meth:`forward`.
        """
        check_images(x, self.image_shape)
        features = self._context_features(context, x.shape[0])

        def walk(repeats: int, code_of: Callable[[DiagonalGaussian], Tensor]) -> None:
            repeated = [_repeated(each, repeats) for each in features]
            posterior_of = _Encoding(_repeated(x, repeats), repeated)
            self._drawn(repeats * x.shape[0], repeated, lambda *before: code_of(posterior_of(*before)))

        return DrawDistribution(walk, (x.shape[0],), (self.steps, self.latent, *self.grid))

    def decode(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """The finished canvases [B, C, H, W] in [0, 1] of the codes of all steps z [B, D].

        Raises:
            ValueError: z of another shape; a context that does not fit.
        """
        check_latents(z, self.latent_size)
        features = self._context_features(context, z.shape[0])
        codes = iter(z.reshape(-1, self.steps, self.latent, *self.grid).unbind(1))
        canvases, _ = self._drawn(z.shape[0], features, lambda *_: next(codes))
        return canvases[-1].sigmoid()

    @property
    def latent_size(self) -> int:
        """D = steps x latent x H / downsampling x W / downsampling: the codes of all steps."""
        return self.steps * self.latent * self.grid[0] * self.grid[1]

    @property
    def prior(self) -> DrawDistribution:
        """The prior p(z_1, ..., z_T): batch shape [], event shape [D].

        That of a conditional model depends on the context, see :meth:`conditional_prior`: this one raises ValueError
        when it is sampled or asked for a density.
        """
        return self._prior((), ())

    def conditional_prior(self, context: Tensor) -> DrawDistribution:
        """The prior p(z_1, ..., z_T | context) for contexts [B, C', H, W]: batch shape [B], event shape [D].

        Raises:
            ValueError: a context of another shape; a model that takes none.
        """
        return self._prior(context.shape[:1], self._context_features(context, context.shape[0]))

    @torch.no_grad()
    def progress(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """How the canvas grows: the reconstruction after each step, [T, B, C, H, W] in [0, 1]."""
        return torch.stack(self._reconstructed(x, context)[0]).sigmoid()

    @torch.no_grad()
    def sample(self, n: int, context: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
        """Images [n, C, H, W] with codes from the prior; the generator lives on the model's device.

        Args:
            n: how many.
            context: [n, C', H, W], one for each image, where the model is conditional.
            generator: what the codes are drawn from; None: PyTorch's global one.

        Raises:
            ValueError: fewer than one image; a context that does not fit.
        """
        at_least("n", n, 1)
        features = self._context_features(context, n)

        def from_prior(step: DrawStep, canvas: Tensor, decoder: LSTMState) -> Tensor:
            prior = step.prior_of(decoder, *features)
            noise = torch.randn(prior.mean.shape, generator=generator, dtype=prior.mean.dtype, device=prior.mean.device)
            return prior.mean + prior.log_std.exp() * noise

        return self._drawn(n, features, from_prior)[0][-1].sigmoid()

    def extra_repr(self) -> str:
        """The sizes that the layers below do not show at a glance."""
        return f"image_shape={self.image_shape}, context_shape={self.context_shape}, steps={self.steps}"

    def _reconstructed(
        self, x: Tensor, context: Tensor | None, noise: Noise = torch.randn_like
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Canvas r_t, code z_t and KL_t after each step t."""
        check_images(x, self.image_shape)
        features = self._context_features(context, x.shape[0])
        posterior_of = _Encoding(x, features)
        step_kl = []

        def from_posterior(step: DrawStep, canvas: Tensor, decoder: LSTMState) -> Tensor:
            posterior, prior = posterior_of(step, canvas, decoder), step.prior_of(decoder, *features)
            z, kl = gaussian_rsample_kl(*posterior, *prior, noise=noise(posterior.mean))
            step_kl.append(kl)
            return z

        return *self._drawn(x.shape[0], features, from_posterior), step_kl

    def _drawn(
        self, batch: int, features: Sequence[Tensor], code_of: Callable[[DrawStep, Tensor, LSTMState], Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Canvas r_t and code z_t after each step t; ``code_of`` gives z_t from the step, r_t-1 and h_d."""
        canvas, decoder = self._start(batch)
        canvases, latents = [], []
        for step in self._steps():
            z = code_of(step, canvas, decoder)
            decoder = step.decode(z, canvas, decoder, *features)
            canvas = canvas + step.written(decoder)
            canvases.append(canvas)
            latents.append(z)
        return canvases, latents

    def _prior(self, batch_shape: Sequence[int], features: Sequence[Tensor]) -> DrawDistribution:
        def walk(repeats: int, code_of: Callable[[DiagonalGaussian], Tensor]) -> None:
            if self.context_encoder is not None and not features:
                raise ValueError("prior: got a conditional model, expected one without context; use conditional_prior")
            repeated = [_repeated(each, repeats) for each in features]
            batch = repeats * math.prod(batch_shape)
            self._drawn(batch, repeated, lambda step, _, decoder: code_of(step.prior_of(decoder, *repeated)))

        return DrawDistribution(walk, batch_shape, (self.steps, self.latent, *self.grid))

    def _context_features(self, context: Tensor | None, batch: int) -> tuple[Tensor, ...]:
        """V [B, hidden, ...] in a tuple, which is empty for a model that is not conditional."""
        check_context(context, self.context_shape, batch)
        return () if self.context_encoder is None else (self.context_encoder(context),)

    def _start(self, batch: int) -> tuple[Tensor, LSTMState]:
        """Canvas r_0 and decoder state before the first step."""
        canvas, hidden, cell = (
            first.expand(batch, -1, -1, -1) for first in (self.first_canvas, self.first_hidden, self.first_cell)
        )
        return canvas, LSTMState(hidden, cell)

    def _steps(self) -> list[DrawStep]:
        """The networks of each step, T times the same where they are shared."""
        networks: list[DrawStep] = [*self.step_networks]
        return networks * (self.steps // len(networks))


class _Encoding:
    """The encoder's side of the recurrence: q(z_t | h_e) of each step, one after the other.

    Args:
        x: images [B, C, H, W].
        features: of the context, in a sequence that is empty where there is none.
    """

    def __init__(self, x: Tensor, features: Sequence[Tensor]) -> None:
        self.x = x
        self.features = features
        self.encoder: LSTMState | None = None

    def __call__(self, step: DrawStep, canvas: Tensor, decoder: LSTMState) -> DiagonalGaussian:
        """Encode what is missing on the canvas, and give the step's posterior."""
        if self.encoder is None:
            self.encoder = LSTMState(torch.zeros_like(decoder.hidden), torch.zeros_like(decoder.cell))
        error = self.x - canvas.sigmoid()
        self.encoder = step.encode(self.x, error, self.encoder, decoder, *self.features)
        return step.posterior_of(self.encoder)


def _repeated(batch: Tensor, repeats: int) -> Tensor:
    """[B, ...] -> [repeats x B, ...], the whole batch again and again."""
    return batch if repeats == 1 else batch.repeat(repeats, *[1] * (batch.dim() - 1))


def _context_encoder(channels: int, hidden: int, downsampling: int) -> nn.Sequential:
    """Context [B, C', H, W] -> features [B, hidden, ...] on the grid, not negative."""
    return nn.Sequential(
        DownSampling(channels, hidden, downsampling, kernel_size=3),
        nn.ReLU(),
        nn.Conv2d(hidden, hidden, kernel_size=3, padding=1),
        nn.ReLU(),
    )


def _divisible_shape(image_shape: Sequence[int], downsampling: int) -> tuple[int, int, int]:
    shape = checked_shape("image_shape", image_shape)
    if shape[1] % downsampling or shape[2] % downsampling:
        raise ValueError(
            f"image_shape: got {shape}, expected height and width divisible by {downsampling}, by which the model "
            "down-samples"
        )
    return shape


def _context_shape(
    context_shape: Sequence[int] | None, image_shape: tuple[int, int, int]
) -> tuple[int, int, int] | None:
    if context_shape is None:
        return None
    shape = checked_shape("context_shape", context_shape)
    if shape[1:] != image_shape[1:]:
        raise ValueError(
            f"context_shape: got {shape}, expected the image's height and width, (C', {image_shape[1]}, "
            f"{image_shape[2]})"
        )
    return shape
