"""ConvDraw (Gregor et al. 2016, "Towards Conceptual Compression", arXiv:1604.08772), also conditional."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from geco_ext.functional import gaussian_rsample_kl

from .arguments import at_least, check_context, check_images, checked_shape, one_of
from .convolutional_lstm import LSTMState
from .draw_step import DrawStep
from .noise import Noise
from .resampling import DownSampling


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


class ConvDraw(nn.Module):
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
        >>> output.x_hat.shape, output.kl.shape, output.latents.shape
        (torch.Size([4, 1, 16, 16]), torch.Size([4]), torch.Size([4, 4, 4, 4, 4]))
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
        canvases, latents, step_kl = self._drawn(x, context, noise)
        kl = torch.stack(step_kl)
        return ConvDrawOutput(canvases[-1].sigmoid(), kl.sum(0), kl, torch.stack(latents))

    @torch.no_grad()
    def reconstruct(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Reconstruction [B, C, H, W] of x [B, C, H, W] at one posterior sample."""
        return self(x, context).x_hat  # type: ignore[no-any-return]

    @torch.no_grad()
    def progress(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """How the canvas grows: the reconstruction after each step, [T, B, C, H, W] in [0, 1]."""
        return torch.stack(self._drawn(x, context)[0]).sigmoid()

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
        canvas, decoder = self._start(n)
        for step in self._steps():
            prior = step.prior_of(decoder, *features)
            noise = torch.randn(prior.mean.shape, generator=generator, dtype=prior.mean.dtype, device=prior.mean.device)
            z = prior.mean + prior.log_std.exp() * noise
            decoder = step.decode(z, canvas, decoder, *features)
            canvas = canvas + step.written(decoder)
        return canvas.sigmoid()

    def extra_repr(self) -> str:
        """The sizes that the layers below do not show at a glance."""
        return f"image_shape={self.image_shape}, context_shape={self.context_shape}, steps={self.steps}"

    def _drawn(
        self, x: Tensor, context: Tensor | None, noise: Noise = torch.randn_like
    ) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """Canvas r_t, code z_t and KL_t after each step t."""
        check_images(x, self.image_shape)
        features = self._context_features(context, len(x))
        canvas, decoder = self._start(len(x))
        encoder = LSTMState(torch.zeros_like(decoder.hidden), torch.zeros_like(decoder.cell))
        canvases, latents, step_kl = [], [], []
        for step in self._steps():
            encoder = step.encode(x, x - canvas.sigmoid(), encoder, decoder, *features)
            posterior, prior = step.posterior_of(encoder), step.prior_of(decoder, *features)
            z, kl = gaussian_rsample_kl(*posterior, *prior, noise=noise(posterior.mean))
            decoder = step.decode(z, canvas, decoder, *features)
            canvas = canvas + step.written(decoder)
            canvases.append(canvas)
            latents.append(z)
            step_kl.append(kl)
        return canvases, latents, step_kl

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
