"""Encoder and decoder as modules of tensors alone, for `torch.export` and ONNX."""

from torch import Tensor, nn

from .autoencoder import VariationalAutoencoder
from .noise import GivenNoise


class Encoder(nn.Module):
    """A model's encoder: images in, latents out. Nothing is drawn inside; the noise of the sample is an input.

    An exported program has no random numbers of PyTorch's, and the posteriors here no parameters that would describe
    them: z = f(noise; x) does. Noise from N(0, I) gives posterior samples, zeros the code of ``model.embed(x)``.

    Args:
        model: the model, whose weights are shared.

    Example:
        >>> from geco_ext.models import NVPVAE
        >>> encoder = Encoder(NVPVAE((1, 16, 16), latent=8).eval())
        >>> inputs = (torch.rand(2, 1, 16, 16), torch.zeros(2, 8))
        >>> encoder(*inputs).shape
        torch.Size([2, 8])
        >>> every = {0: torch.export.Dim("batch")}
        >>> program = torch.export.export(encoder, inputs, dynamic_shapes=(every, every))           # doctest: +SKIP
        >>> torch.onnx.export(program).save("encoder.onnx")                                         # doctest: +SKIP
    """

    def __init__(self, model: VariationalAutoencoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor, noise: Tensor, context: Tensor | None = None) -> Tensor:
        """Latents [B, D] of x [B, C, H, W] and noise [B, D]; a conditional model takes contexts [B, C', H, W].

        Raises:
            ValueError: a tensor of another shape.
        """
        expected = (x.shape[0], self.model.latent_size)
        if noise.shape != expected:
            raise ValueError(f"noise: got shape {tuple(noise.shape)}, expected {expected}")
        return self.model.encode(x, context).rsample_and_log_prob(noise=GivenNoise(noise))[0]


class Decoder(nn.Module):
    """A model's decoder: latents in, images out.

    Args:
        model: the model, whose weights are shared.
    """

    def __init__(self, model: VariationalAutoencoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, z: Tensor, context: Tensor | None = None) -> Tensor:
        """Images [B, C, H, W] in [0, 1] of latents z [B, D]; a conditional model takes contexts [B, C', H, W]."""
        return self.model.decode(z, context)
