"""What a variational auto-encoder returns."""

from typing import NamedTuple

from torch import Tensor


class VariationalOutput(NamedTuple):
    """One pass of a variational auto-encoder over a batch: the two inputs a criterion needs beside the target.

    Attributes:
        x_hat: reconstruction g(z) at one posterior sample z, [B, C, H, W] in [0, 1].
        kl: KL[q(z|x); pi(z)] of each example, [B], in nats.
    """

    x_hat: Tensor
    kl: Tensor
