"""The objectives: GECO with its constraints, and what it is compared with, ELBO, a fixed beta, and an annealed one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from geco_ext import Constraint, GECOLoss
from geco_ext.checks import (
    check_kl,
    check_labels_are_no_weights,
    check_positive,
    check_positive_integer,
    check_prediction,
)
from geco_ext.nearest import did_you_mean
from geco_ext.training.calls import Call, UnreadableText, parse_call
from geco_ext.training.own_code import own_call, own_class
from geco_ext.training.settings import DEFAULT_CONSTRAINTS, TrainingSettings
from geco_ext.weights import check_weight

LEARNED = None
"""In place of a number for sigma: learn it with the model."""

ANNEALED = (2.0, 0.7)
"""The hand-annealed beta of "Taming VAEs" (Figures 9 to 11: "Hand crafted beta in [2.0, 0.7] annealing")."""

ANNEALING_SHARE = 0.1
"""Share of the steps over which beta moves, in a straight line, before it rests.

The paper refers to "the same annealing scheme reported in" Eslami et al. 2018 (GQN), who take sigma, the standard
deviation of a pixel, from 2.0 to 0.7 in a line over the first 2e5 of 2e6 steps. The values, the line and the tenth are
theirs. That beta weighs the KL, against a likelihood of sigma = 1, is this paper's notation (lambda = 1 / beta for
C = |x - g(z)|^2 - kappa^2, Section 3.2).
"""


class GaussianObjective(nn.Module):
    r"""``loss = mean(NLL + beta * kl)`` with a Gaussian likelihood of one sigma for all pixels.

    NLL = D/2 log(2 pi sigma^2) + |x - x_hat|^2 / (2 sigma^2), in nats, over the D elements of an image. With beta = 1
    this is the negative ELBO (equation 1 of "Taming VAEs").

    It is called like :class:`geco_ext.GECOLoss`, and like it neither its counter nor its beta moves on a batch whose
    loss is not finite.

    Args:
        sigma: standard deviation of a pixel, or None to learn it: one parameter, to be optimised with the model.
        beta: weight of the KL, or a pair: at the first and at the last step of the annealing, in between a straight
            line.
        annealing_steps: finite training calls until beta has its last value.

    Shape:
        x_hat, x: [B, ...] float; kl: 0-d or [B], nats; labels are not looked at; weight as that
        of :class:`geco_ext.GECOLoss`. The loss is 0-d.

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
        self, sigma: float | None = LEARNED, beta: float | tuple[float, float] = 1.0, annealing_steps: int = 0
    ) -> None:
        super().__init__()
        first, last = (check_positive(value, "beta") for value in (beta if isinstance(beta, tuple) else (beta, beta)))
        if sigma is LEARNED:
            # From 1, which is more than any error in [0, 1]: the KL counts from the start, nothing is learned in haste.
            self.log_sigma = nn.Parameter(torch.zeros(()))
        else:
            self.register_buffer("log_sigma", torch.tensor(math.log(check_positive(sigma, "sigma"))))
        # Buffers, so that a prolonged run keeps the schedule it was started with.
        self.register_buffer("beta_range", torch.tensor([first, last]))
        steps = annealing_steps and check_positive_integer(annealing_steps, "annealing_steps")
        self.register_buffer("annealing_steps", torch.tensor(steps))
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

    def forward(
        self, x_hat: Tensor, x: Tensor, kl: Tensor, labels: Tensor | None = None, weight: Tensor | None = None
    ) -> Tensor:
        """The loss; in training mode the step is counted. With weights, each element counts so many times."""
        check_prediction(x_hat, x)
        check_kl(kl, x_hat.shape[0], x_hat.device)
        check_labels_are_no_weights(labels, x_hat)
        if weight is not None:
            check_weight(weight, x_hat)
        squared_error = counted_squares(x_hat - x, weight).reshape(len(x_hat), -1).sum(1).mean()
        elements: Tensor | int = x_hat[0].numel()
        if weight is not None:
            elements = weight.sum(dtype=torch.float64).to(x_hat.dtype) * (x_hat.numel() / weight.numel()) / len(x_hat)
        nll = gaussian_nll(squared_error, self.log_sigma, elements)
        loss: Tensor = nll + self.beta * kl.mean()
        if self.training:
            with torch.no_grad():
                self._nll, whole = _over_processes(nll, loss)
                finite = whole.isfinite()
                self.steps += finite
                self.skipped += ~finite
        return loss

    def metrics(self) -> dict[str, Tensor]:
        """``nll`` of the last training call in nats an image, ``sigma``, ``beta``, and the calls ``skipped`` so far.

        Does not wait for the device.
        """
        return {
            "nll": self._nll,
            "sigma": self.sigma.detach(),
            "beta": self.beta,
            "skipped": self.skipped.to(torch.float64),
        }

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

CONSTRAINED: dict[str, Callable[..., GECOLoss]] = {
    "GECOLoss": GECOLoss,
    "GECOLoss.natural": GECOLoss.natural,
    "GECOLoss.paper": GECOLoss.paper,
}
OBJECTIVES = {
    "geco": "GECO with its defaults: the KL, subject to the constraints.",
    "natural": "GECO with multipliers that go for the tolerance from the first step on.",
    "paper:LR": "Algorithm 1 of the paper to the letter.",
    "elbo[:SIGMA]": "The negative ELBO under a Gaussian likelihood; SIGMA a number, or learned (the default).",
    "beta:BETA[:SIGMA]": "NLL + BETA times the KL, SIGMA 1 by default.",
    "anneal[:FIRST:LAST[:SIGMA]]": "The same with a beta that falls, 2.0 to 0.7 by default, over the first tenth.",
    "GECOLoss(...)": "GECO with arguments, such as alpha=0.9.",
    "GECOLoss.paper(...)": "Algorithm 1 with arguments, such as lr=0.1.",
    "GaussianObjective(...)": "NLL + beta KL with arguments, such as sigma=0.1, beta=(2.0, 0.7).",
}
"""The objectives there are, as they are written, and what each is."""

NUMBERS_EXPECTED = {"geco": (0,), "natural": (0,), "paper": (1,), "elbo": (0, 1), "beta": (1, 2), "anneal": (0, 2, 3)}
"""How many numbers each short form may have."""

KNOWN = (
    "geco, natural, paper:LR, elbo[:SIGMA], beta:BETA[:SIGMA], anneal[:FIRST:LAST[:SIGMA]], SIGMA a number or learned, "
    f"and calls of {', '.join(CONSTRAINED)}, GaussianObjective, module:Class, file.py:Class"
)


def build_objective(
    text: str,
    steps: int,
    constraints: Sequence[Constraint] = (),
    multipliers: Mapping[str, float | tuple[float, float]] | None = None,
) -> Criterion:
    """What a model is trained with, from a short form or a call in Python's syntax whose arguments are literals.

    - ``geco``: :class:`geco_ext.GECOLoss` with its defaults; ``natural``: :meth:`geco_ext.GECOLoss.natural`;
      ``paper:LR``: Algorithm 1 to the letter.
    - ``elbo``: beta = 1, sigma learned with the model; ``elbo:0.1``: sigma = 0.1.
    - ``beta:0.5``: NLL + 0.5 KL with sigma = 1; ``beta:4:0.1``: with sigma = 0.1; ``beta:4:learned``.
    - ``anneal``, that is ``anneal:2.0:0.7``: beta from 2.0 to 0.7 with sigma = 1 over the first tenth of the steps;
      ``anneal:2.0:0.7:0.1``: with sigma = 0.1; ``anneal:2.0:0.7:learned``.
    - ``GECOLoss(alpha=0.9)``, ``GECOLoss.paper(lr=0.1, alpha=0.9)``: the constraints come first and are not written;
      ``GaussianObjective(sigma=0.1, beta=(2.0, 0.7), annealing_steps=500)``.
    - ``mine.py:Mine(alpha=0.9)``, ``package.module:Mine``: a user's own subclass of either class.

    A fixed sigma of 1 is the papers' beta-VAE, in which beta is the variance that Proposition 4 writes in the place of
    sigma^2. For images in [0, 1] it is a coarse likelihood: ``beta:0.01`` is, up to a factor, ``elbo:0.1``, and small
    images vary too little for 0.7 to let anything through: on digits of 16x16 VAE+NVP then gives the mean image.

    Args:
        text: the objective.
        steps: optimiser steps of the whole training.
        constraints: those of an objective that has any.
        multipliers: ``multiplier_init`` and ``multiplier_bounds`` of :class:`geco_ext.GECOLoss`, where they are given
            by options.

    Raises:
        ValueError: an unknown name (the message lists the known ones), a number that is missing, too many or not
            positive, what the class refuses, or a multiplier given by the call and by an option.

    Example:
        >>> build_objective("anneal", steps=3000)
        GaussianObjective(sigma=1, beta=(2, 0.7), annealing_steps=300)
    """
    try:
        call = parse_call(in_call_syntax(text, steps))
        given = dict(multipliers or {})
        if twice := given.keys() & call.named.keys():
            raise ValueError(f"{', '.join(sorted(twice))} is given here and by an option; give it once")
        if not call.place and call.name in CONSTRAINED:
            return CONSTRAINED[call.name](constraints, *call.arguments, **call.named, **given)
        if not call.place and call.name == "GaussianObjective":
            return GaussianObjective(*call.arguments, **call.named)
        if call.place:
            return _build_own(call, constraints, given)
    except UnreadableText:
        raise
    except (TypeError, ValueError) as error:
        raise ValueError(f"objective {text!r}: {error}; known are {KNOWN}") from error
    raise _unknown(text, call.name)


def _unknown(text: str, name: str) -> UnreadableText:
    meant = did_you_mean(name, [*NUMBERS_EXPECTED, *CONSTRAINED, "GaussianObjective"])
    return UnreadableText(
        f"unknown objective {text!r}{meant}; known are {KNOWN}; geco list objectives says what they are"
    )


def _build_own(call: Call, constraints: Sequence[Constraint], given: Mapping[str, Any]) -> Criterion:
    cls = own_class(call, (GECOLoss, GaussianObjective))
    takes_constraints = issubclass(cls, GECOLoss)
    for unwanted, named in ((constraints, "constraints"), (given, ", ".join(given))):
        if unwanted and not takes_constraints:
            raise ValueError(f"{named} cannot be given, since it is no GECOLoss")
    try:
        built = cls(*([constraints] if takes_constraints else []), *call.arguments, **call.named, **given)
    except Exception as error:  # whatever the user's own class raises
        raise ValueError(f"it cannot be made ({type(error).__name__}: {error})") from error
    assert isinstance(built, GECOLoss | GaussianObjective)
    return built


def with_constraints_of_own(settings: TrainingSettings) -> TrainingSettings:
    """The settings with the usual constraint, where a user's own objective takes some and none are given.

    Whether it takes any is known when its code has been imported.

    Raises:
        ValueError: a class that cannot be imported.
    """
    call = own_call(settings.objective) if settings.has_own_objective else None
    if call is None or settings.constraints:
        return settings
    try:
        takes_constraints = issubclass(own_class(call, (GECOLoss, GaussianObjective)), GECOLoss)
    except ValueError as error:
        raise ValueError(f"objective {settings.objective!r}: {error}") from error
    return replace(settings, constraints=DEFAULT_CONSTRAINTS) if takes_constraints else settings


def in_call_syntax(text: str, steps: int) -> str:
    """A short form as the call it stands for; a call as it is.

    Raises:
        ValueError: neither.

    Example:
        >>> in_call_syntax("beta:4:0.1", steps=3000)
        'GaussianObjective(sigma=0.1, beta=4.0)'
        >>> in_call_syntax("paper:0.1", steps=3000)
        'GECOLoss.paper(lr=0.1)'
    """
    if text.rstrip().endswith(")"):
        return text
    name, *words = text.split(":")
    expected = NUMBERS_EXPECTED.get(name)
    if expected is None and (own := own_call(text)) is not None:
        return str(own)
    if expected is None:
        raise _unknown(text, name)
    if name == "paper":
        return str(Call("GECOLoss.paper", (), {"lr": check_positive(float(":".join(words)), "LR")}))
    if len(words) not in expected:
        raise UnreadableText(f"objective {text!r} has {len(words)} values; known are {KNOWN}")
    if name in ("geco", "natural"):
        return "GECOLoss()" if name == "geco" else "GECOLoss.natural()"
    betas, sigma = (words, None) if len(words) < max(expected) else (words[:-1], words[-1])
    if name == "elbo":
        return str(Call("GaussianObjective", (), {"sigma": _sigma("learned" if sigma is None else sigma)}))
    numbers = tuple(check_positive(float(beta), "beta") for beta in betas)
    named: dict[str, Any] = {"sigma": _sigma("1" if sigma is None else sigma)}
    if name == "beta":
        named["beta"] = numbers[0]
    else:
        named |= {"beta": numbers or ANNEALED, "annealing_steps": max(1, round(ANNEALING_SHARE * steps))}
    return str(Call("GaussianObjective", (), named))


def _sigma(word: str) -> float | None:
    return LEARNED if word == "learned" else check_positive(float(word), "sigma")


def counted_squares(differences: Tensor, weight: Tensor | None) -> Tensor:
    """Squares of elements times their weights; zero where a weight is, and so is their gradient, whatever they are."""
    if weight is None:
        return differences.square()
    return torch.where(weight == 0, 0.0, differences).square() * weight


def gaussian_nll(squared_error: Tensor, log_sigma: Tensor, elements: Tensor | float) -> Tensor:
    """Negative log density in nats of a Gaussian, from the squared error summed over ``elements`` independent ones."""
    return elements * (log_sigma + 0.5 * math.log(2 * math.pi)) + 0.5 * squared_error * (-2 * log_sigma).exp()
