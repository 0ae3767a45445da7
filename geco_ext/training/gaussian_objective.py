"""The objectives GECO is compared with: ELBO, a fixed beta, and a beta annealed by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from geco_ext import GECOLoss
from geco_ext.checks import check_kl, check_positive, check_prediction

LEARNED = None
"""In place of a number for sigma: learn it with the model."""


class GaussianObjective(nn.Module):
    r"""``loss = mean(NLL + beta * kl)`` with a Gaussian likelihood of one sigma for all pixels.

    NLL = D/2 log(2 pi sigma^2) + |x - x_hat|^2 / (2 sigma^2), in nats, over the D elements of an image. With beta = 1
    this is the negative ELBO (equation 1 of "Taming VAEs").

    It is called like :class:`geco_ext.GECOLoss`, and like it neither its counter nor its beta moves on a batch whose
    loss is not finite.

    Args:
        sigma: standard deviation of a pixel, or None to learn it: one parameter, to be optimised with the model.
        beta: weight of the KL at the first and at the last step of the annealing, in between a straight line.
        annealing_steps: finite training calls until beta has its last value.

    Shape:
        x_hat, x: [B, ...] float; kl: 0-d or [B], nats; labels are not looked at. The loss is 0-d.

    Raises:
        ValueError: a sigma or beta that is not a positive number; shapes that differ.

    Example:
        >>> objective = GaussianObjective(sigma=0.1)
        >>> x = torch.zeros(4, 1, 8, 8)
        >>> round(float(objective(x + 0.1, x, kl=torch.ones(4))), 3)  # 64 (log(0.1 sqrt(2 pi)) + 1/2) + 1
        -55.553
    """

    log_sigma: Tensor
    beta_range: Tensor
    annealing_steps: Tensor
    steps: Tensor
    skipped: Tensor

    def __init__(
        self, sigma: float | None = LEARNED, beta: tuple[float, float] = (1.0, 1.0), annealing_steps: int = 0
    ) -> None:
        super().__init__()
        first, last = (check_positive(value, "beta") for value in beta)
        if sigma is LEARNED:
            # From 1, which is more than any error in [0, 1]: the KL counts from the start, nothing is learned in haste.
            self.log_sigma = nn.Parameter(torch.zeros(()))
        else:
            self.register_buffer("log_sigma", torch.tensor(math.log(check_positive(sigma, "sigma"))))
        # Buffers, so that a prolonged run keeps the schedule it was started with.
        self.register_buffer("beta_range", torch.tensor([first, last]))
        self.register_buffer("annealing_steps", torch.tensor(annealing_steps))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self.register_buffer("skipped", torch.zeros((), dtype=torch.int64))
        self._nll = torch.tensor(math.nan)

    @property
    def beta(self) -> Tensor:
        """Weight of the KL at the next training call, 0-d."""
        first, last = self.beta_range.unbind()
        done = (self.steps / self.annealing_steps.clamp_min(1)).clamp_max(1.0)
        return torch.where(self.annealing_steps > 0, first + (last - first) * done, last)

    @property
    def sigma(self) -> Tensor:
        """Standard deviation of the likelihood, 0-d."""
        return self.log_sigma.exp()

    def forward(self, x_hat: Tensor, x: Tensor, kl: Tensor, labels: Tensor | None = None) -> Tensor:
        """The loss; in training mode the step is counted."""
        check_prediction(x_hat, x)
        check_kl(kl, x_hat.shape[0], x_hat.device)
        squared_error = (x_hat - x).square().flatten(1).sum(1).mean()
        nll = gaussian_nll(squared_error, self.log_sigma, x_hat[0].numel())
        loss: Tensor = nll + self.beta * kl.mean()
        if self.training:
            with torch.no_grad():
                self._nll, whole = _over_processes(nll, loss)
                finite = whole.isfinite()
                self.steps += finite
                self.skipped += ~finite
        return loss

    def metrics(self) -> dict[str, Tensor]:
        """``nll`` of the last training call in nats an image, ``sigma``, and ``beta``; does not wait for the device."""
        return {"nll": self._nll, "sigma": self.sigma.detach(), "beta": self.beta}

    def extra_repr(self) -> str:
        """What is fixed and what is not."""
        first, last = (f"{beta:g}" for beta in self.beta_range.tolist())
        sigma = "learned" if isinstance(self.log_sigma, nn.Parameter) else f"{float(self.sigma):g}"
        return f"sigma={sigma}, beta=({first}, {last}), annealing_steps={int(self.annealing_steps)}"


def _over_processes(*values: Tensor) -> Sequence[Tensor]:
    """Means over all processes, which have equal shares of the batch, so that their counters move together."""
    means = torch.stack([value.detach() for value in values])
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(means)
        means /= torch.distributed.get_world_size()
    return means.unbind()


Criterion = GECOLoss | GaussianObjective
"""What a run may be trained with."""


def gaussian_nll(squared_error: Tensor, log_sigma: Tensor, elements: int) -> Tensor:
    """Negative log density in nats of a Gaussian, from the squared error summed over ``elements`` independent ones."""
    return elements * (log_sigma + 0.5 * math.log(2 * math.pi)) + 0.5 * squared_error * (-2 * log_sigma).exp()
