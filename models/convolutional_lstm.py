"""The convolutional long short-term memory (Shi et al. 2015, arXiv:1506.04214) that ConvDraw recurs with."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from geco_ext.functional import lstm_gates


class LSTMState(NamedTuple):
    """What a recurrence carries from step to step.

    Attributes:
        hidden: h, [B, hidden, H, W], what others see.
        cell: c, the same shape.
    """

    hidden: Tensor
    cell: Tensor


class ConvolutionalLSTM(nn.Module):
    """A long short-term memory cell whose gates are a convolution of the inputs and the hidden state.

        i, f, g, o = W * [inputs, h] + b,    c <- sigmoid(f) c + sigmoid(i) tanh(g),    h <- sigmoid(o) tanh(c)

    There are no peephole connections. The forget gate starts with bias 1: what is written to the cell stays for the
    few steps there are, and gradients reach the first of them (Gers et al. 2000, Jozefowicz et al. 2015).

    Args:
        inputs: number of input channels, of all inputs together.
        hidden: number of channels of h and c.
        kernel_size: height and width of the kernel, odd.

    Example:
        >>> lstm = ConvolutionalLSTM(inputs=3, hidden=8)
        >>> state = lstm([torch.rand(2, 3, 4, 4)], LSTMState(torch.zeros(2, 8, 4, 4), torch.zeros(2, 8, 4, 4)))
        >>> state.hidden.shape
        torch.Size([2, 8, 4, 4])
    """

    def __init__(self, inputs: int, hidden: int, kernel_size: int = 3) -> None:
        super().__init__()
        self.gates = nn.Conv2d(inputs + hidden, 4 * hidden, kernel_size, padding=kernel_size // 2)
        assert self.gates.bias is not None
        nn.init.zeros_(self.gates.bias)
        nn.init.ones_(self.gates.bias[hidden : 2 * hidden])

    def forward(self, inputs: list[Tensor], state: LSTMState) -> LSTMState:
        """The state after the inputs, each [B, channels, H, W]."""
        return LSTMState(*lstm_gates(self.gates(torch.cat([*inputs, state.hidden], dim=1)), state.cell))
