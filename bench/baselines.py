"""What a careful user would write instead: GECO in plain PyTorch, averages and log lambda as small tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from window_forms import Moments, MomentsForm, Window

from geco_ext import LocalStatistics, PatchNCC, StructuralSimilarity
from geco_ext.constraints import Constraint


class PlainConstraints:
    """The constraint vector, batch average: [L], or 0-d where there is one constraint.

    Statistics are computed in float32 whatever the images' type, as they have to be; ``native`` leaves a mean squared
    error in the images' type all the same, which costs a user digits and saves a conversion.
    """

    def __init__(self, constraints: Sequence[Constraint], moments: MomentsForm | None = None, native: bool = False):
        self.constraints, self.moments, self.native = constraints, moments, native
        self.covariance = any(isinstance(c, PatchNCC | StructuralSimilarity) for c in constraints)
        self.errors = [_error(c) for c in constraints]  # None: of windows. A compiled step traces no lookup
        windowed = (c for c, error in zip(constraints, self.errors, strict=True) if error is None)
        self.windows = list(dict.fromkeys(map(_window, windowed)))

    def __call__(self, x_hat: Tensor, x: Tensor, weight: Tensor | None = None) -> Tensor:
        if not self.native:
            x_hat, x = x_hat.float(), x.float()
        moments = self.moments(x_hat, x, self.windows, self.covariance) if self.moments else {}
        values = [
            error.value(c, x_hat, x, weight) if error is not None else _of_moments(c, moments[_window(c)])
            for c, error in zip(self.constraints, self.errors, strict=True)
        ]
        return values[0] if len(values) == 1 else torch.stack(values)


class PlainError(NamedTuple):
    """What compares number by number."""

    form: str  # as tables call it
    value: Callable[[Constraint, Tensor, Tensor, Tensor | None], Tensor]


def _error(constraint: Constraint) -> PlainError | None:
    term = constraint._term()
    return ERRORS[term.kind] if term.is_elementwise else None


def _squared_error(constraint: Constraint, x_hat: Tensor, x: Tensor, weight: Tensor | None) -> Tensor:
    mean = F.mse_loss(x_hat, x).float() if weight is None else _masked_mean(x_hat - x, weight)
    return mean - constraint.kappa**2


def _absolute_error(constraint: Constraint, x_hat: Tensor, x: Tensor, weight: Tensor | None) -> Tensor:
    if weight is not None:
        raise NotImplementedError("the plain absolute error has no weights")
    root = ((x_hat - x).square() + constraint.eps**2).sqrt()
    return root.mean() - constraint.eps - constraint.kappa


ERRORS = {
    "squared_error": PlainError("F.mse_loss", _squared_error),
    "absolute_error": PlainError("mean of roots", _absolute_error),
}


def _masked_mean(difference: Tensor, weight: Tensor) -> Tensor:
    """Of squares; every example has pixels that count. What does not count may be NaN, as in ours."""
    squared = torch.where(weight, difference, 0.0).square().sum((1, 2, 3))
    return (squared / (difference.shape[1] * weight.sum((1, 2, 3)))).mean()


def _window(constraint: Constraint) -> Window:
    per_channel = isinstance(constraint, StructuralSimilarity) or getattr(constraint, "per_channel", False)
    return Window(constraint.patch_size, constraint.stride, per_channel)


def _of_moments(constraint: Constraint, m: Moments) -> Tensor:
    if isinstance(constraint, StructuralSimilarity):
        c1, c2 = (0.01 * constraint.data_range) ** 2, (0.03 * constraint.data_range) ** 2
        luminance = (2 * m.mean_hat * m.mean + c1) / (m.mean_hat.square() + m.mean.square() + c1)
        return constraint.kappa - (luminance * (2 * m.cov + c2) / (m.var_hat + m.var + c2)).mean()
    var_hat, var = m.var_hat + constraint.eps, m.var + constraint.eps
    if isinstance(constraint, PatchNCC):
        return constraint.kappa - ((m.cov + constraint.eps) * torch.rsqrt(var_hat * var)).mean()
    return (F.mse_loss(m.mean_hat, m.mean) + F.mse_loss(var_hat.sqrt(), var.sqrt())) / 2 - constraint.kappa**2


class PlainGECO(nn.Module):
    """Constraints with the multiplier update of ``GECOLoss.natural``, the same numbers step by step.

    No accumulation, no guard against batches that are not finite, float32 state: the least that does the job.
    """

    alpha, lr, proportional = 0.99, 0.05, 5.0

    def __init__(self, constraints: PlainConstraints, shape: Sequence[int], device: torch.device):
        super().__init__()
        self.constraints = constraints
        scales = [_scale(c) for c in constraints.constraints]
        natural = [
            math.log(_elements(c, shape) / (2 * s)) for c, s in zip(constraints.constraints, scales, strict=True)
        ]
        self.average: Tensor | None = None
        self.violation: Tensor | None = None
        low, high = [n - math.log(1000) for n in natural], [n + math.log(3) for n in natural]
        if len(scales) == 1:  # numbers where they do, they cost less
            self.log_multiplier = torch.tensor(natural[0], device=device)
            self.scale, self.low, self.high = scales[0], low[0], high[0]
            self.weighted = torch.mul
        else:
            self.log_multiplier, self.scale, self.low, self.high = (
                torch.tensor(values, device=device) for values in (natural, scales, low, high)
            )
            self.weighted = torch.dot

    def forward(self, x_hat: Tensor, x: Tensor, kl: Tensor, weight: Tensor | None = None) -> Tensor:
        c_hat = self.constraints(x_hat, x, weight)
        with torch.no_grad():
            average = c_hat.detach() if self.average is None else torch.lerp(c_hat, self.average, self.alpha)
        loss = kl.mean() + self.weighted(self.log_multiplier.exp(), c_hat + (average - c_hat).detach())
        with torch.no_grad():
            self._update(average)
        return loss

    def _update(self, average: Tensor) -> None:
        violation = torch.log1p(average / self.scale).clamp(-1, 1)
        previous = violation if self.violation is None else self.violation
        change = self.lr * violation + self.proportional * (violation - previous)
        self.log_multiplier = (self.log_multiplier + change).clamp(self.low, self.high)
        self.average, self.violation = average, violation


class PlainPaperGECO(PlainGECO):
    """Algorithm 1 to the letter, beside ``GECOLoss.paper``: the cheapest multiplier update there is."""

    lr = 1.0

    def __init__(self, constraints: PlainConstraints, shape: Sequence[int], device: torch.device):
        super().__init__(constraints, shape, device)
        self.log_multiplier = torch.zeros_like(self.log_multiplier)

    def _update(self, average: Tensor) -> None:
        self.log_multiplier = (self.log_multiplier + self.lr * average).clamp(math.log(1e-10), math.log(1e10))
        self.average = average


class GECOWithItem(PlainGECO):
    """As public implementations do it: averages and multipliers are Python numbers, every constraint is read."""

    def __init__(self, constraints: PlainConstraints, shape: Sequence[int], device: torch.device):
        super().__init__(constraints, shape, device)
        self.state = [
            _Multiplier(*(v.item() for v in values))
            for values in zip(
                *(torch.as_tensor(v).reshape(-1) for v in (self.log_multiplier, self.scale, self.low, self.high)),
                strict=True,
            )
        ]

    def forward(self, x_hat: Tensor, x: Tensor, kl: Tensor, weight: Tensor | None = None) -> Tensor:
        loss = kl.mean()
        for c_hat, state in zip(self.constraints(x_hat, x, weight).reshape(-1).unbind(), self.state, strict=True):
            value = c_hat.item()
            state.average = value if state.average is None else self.alpha * state.average + (1 - self.alpha) * value
            loss = loss + math.exp(state.log_multiplier) * (c_hat + (state.average - c_hat.detach()))
            violation = min(max(math.log1p(state.average / state.scale), -1.0), 1.0)
            previous = violation if state.violation is None else state.violation
            change = self.lr * violation + self.proportional * (violation - previous)
            state.log_multiplier = min(max(state.log_multiplier + change, state.low), state.high)
            state.violation = violation
        return loss


@dataclass
class _Multiplier:
    log_multiplier: float
    scale: float
    low: float
    high: float
    average: float | None = None
    violation: float | None = None


class Compiled:
    """A plain criterion under ``torch.compile``, in the form that suits it best: static shapes, one graph.

    The first step, which finds no averages yet, stays eager; it would be a second graph that runs once.
    """

    def __init__(self, plain: PlainGECO, backend: str = "inductor"):
        self.plain = plain
        self.compiled = torch.compile(plain, fullgraph=True, dynamic=False, backend=backend)

    def __call__(self, x_hat: Tensor, x: Tensor, kl: Tensor, weight: Tensor | None = None) -> Tensor:
        return (self.plain if self.plain.average is None else self.compiled)(x_hat, x, kl, weight)


def _scale(constraint: Constraint) -> float:
    kappa = constraint.kappa
    return {"kappa^2": kappa**2, "1-kappa": 1 - kappa, "kappa": kappa}[constraint.scale_rule]


def _elements(constraint: Constraint, shape: Sequence[int]) -> int:
    """D of the natural multiplier D / (2 s): errors that are not squared count every number twice."""
    if isinstance(constraint, LocalStatistics):
        return 2 * math.prod((extent - constraint.patch_size) // constraint.stride + 1 for extent in shape[2:])
    return math.prod(shape[1:]) * (2 if constraint.scale_rule == "kappa" else 1)
