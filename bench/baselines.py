"""What a careful user would write instead: GECO in plain PyTorch, averages and log lambda as small tensors."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PlainGECO(nn.Module):
    """A reconstruction constraint with the multiplier update of ``GECOLoss``, the same numbers step by step.

    No accumulation, no guard against batches that are not finite, float32 state: the least that does the job.
    """

    def __init__(self, kappa: float, elements: int, alpha: float = 0.99, lr: float = 0.05, proportional: float = 5.0):
        super().__init__()
        natural = math.log(elements / (2 * kappa**2))
        self.tolerance, self.alpha, self.lr, self.proportional = kappa**2, alpha, lr, proportional
        self.low, self.high = natural - math.log(1000), natural + math.log(3)
        self.log_multiplier = torch.tensor(natural)
        self.average: Tensor | None = None
        self.violation: Tensor | None = None

    def constraint(self, x_hat: Tensor, x: Tensor) -> Tensor:
        return F.mse_loss(x_hat, x) - self.tolerance

    def forward(self, x_hat: Tensor, x: Tensor, kl: Tensor) -> Tensor:
        c_hat = self.constraint(x_hat, x)
        with torch.no_grad():
            average = c_hat.detach() if self.average is None else torch.lerp(c_hat, self.average, self.alpha)
        loss = kl.mean() + self.log_multiplier.exp() * (c_hat + (average - c_hat).detach())
        with torch.no_grad():
            self._update(average)
        return loss

    def _update(self, average: Tensor) -> None:
        violation = torch.log1p(average / self.tolerance).clamp(-1, 1)
        previous = violation if self.violation is None else self.violation
        change = self.lr * violation + self.proportional * (violation - previous)
        self.log_multiplier = (self.log_multiplier + change).clamp(self.low, self.high)
        self.average, self.violation = average, violation


class PlainPaperGECO(PlainGECO):
    """Algorithm 1 to the letter, beside ``GECOLoss.paper``: the cheapest multiplier update there is."""

    def _update(self, average: Tensor) -> None:
        self.log_multiplier = (self.log_multiplier + self.lr * average).clamp(-23.0, 23.0)
        self.average = average
