"""The networks of one step of ConvDraw, a method for each equation of Gregor et al. 2016."""

import torch
from torch import Tensor, nn

from .convolutional_lstm import ConvolutionalLSTM, LSTMState
from .diagonal_gaussian import ConvolutionalGaussian, DiagonalGaussian
from .resampling import DownSampling, UpSampling


class DrawStep(nn.Module):
    """What happens at a step t. Images x, error and canvas are [B, C, H, W]; all else lives on the grid.

    Args:
        channels: C, channels of the image.
        hidden: channels of the states h_e and h_d.
        latent: channels of z_t.
        context: channels of the context's features; 0 without context, and methods take no features then.
        downsampling: pixels a side that one place of the grid stands for.
    """

    def __init__(self, channels: int, hidden: int, latent: int, context: int, downsampling: int) -> None:
        super().__init__()
        self.read = DownSampling(2 * channels, hidden, downsampling)
        self.read_canvas = DownSampling(channels, hidden, downsampling)
        self.encoder = ConvolutionalLSTM(hidden + hidden + context, hidden)
        self.posterior = ConvolutionalGaussian(hidden, latent)
        self.prior = ConvolutionalGaussian(hidden + context, latent)
        self.decoder = ConvolutionalLSTM(latent + hidden + context, hidden)
        self.write = UpSampling(hidden, channels, downsampling)

    def encode(self, x: Tensor, error: Tensor, encoder: LSTMState, decoder: LSTMState, *context: Tensor) -> LSTMState:
        """h_e <- LSTM(x, error, h_e, h_d, context)."""
        read = self.read(torch.cat([x, error], dim=1))
        state: LSTMState = self.encoder([read, decoder.hidden, *context], encoder)
        return state

    def posterior_of(self, encoder: LSTMState) -> DiagonalGaussian:
        """q(z_t | h_e)."""
        gaussian: DiagonalGaussian = self.posterior(encoder.hidden)
        return gaussian

    def prior_of(self, decoder: LSTMState, *context: Tensor) -> DiagonalGaussian:
        """p(z_t | h_d, context), with h_d of the step before."""
        gaussian: DiagonalGaussian = self.prior(decoder.hidden, *context)
        return gaussian

    def decode(self, z: Tensor, canvas: Tensor, decoder: LSTMState, *context: Tensor) -> LSTMState:
        """h_d <- LSTM(z_t, h_d, canvas, context)."""
        state: LSTMState = self.decoder([z, self.read_canvas(canvas), *context], decoder)
        return state

    def written(self, decoder: LSTMState) -> Tensor:
        """W h_d, what is added to the canvas."""
        image: Tensor = self.write(decoder.hidden)
        return image
