"""Objectives as they are written on the command line."""

from __future__ import annotations

from geco_ext.checks import check_positive
from geco_ext.training.gaussian_objective import LEARNED, GaussianObjective
from geco_ext.training.settings import PAPER

KNOWN = "geco, paper:LR, elbo[:SIGMA], beta:BETA[:SIGMA], anneal[:FIRST:LAST[:SIGMA]], SIGMA a number or learned"

ANNEALED = (2.0, 0.7)
"""The hand-annealed beta of "Taming VAEs" (Figures 9 to 11: "Hand crafted beta in [2.0, 0.7] annealing")."""

ANNEALING_SHARE = 0.1
"""Share of the steps over which beta moves, in a straight line, before it rests.

The paper refers to "the same annealing scheme reported in" Eslami et al. 2018 (GQN), who take sigma, the standard
deviation of a pixel, from 2.0 to 0.7 in a line over the first 2e5 of 2e6 steps. The values, the line and the tenth are
theirs. That beta weighs the KL, against a likelihood of sigma = 1, is this paper's notation (lambda = 1 / beta for
C = |x - g(z)|^2 - kappa^2, Section 3.2).
"""


def build_objective(text: str, steps: int) -> GaussianObjective:
    """An objective other than GECO.

    - ``elbo``: beta = 1, sigma learned with the model; ``elbo:0.1``: sigma = 0.1.
    - ``beta:0.5``: NLL + 0.5 KL with sigma = 1; ``beta:4:0.1``: with sigma = 0.1; ``beta:4:learned``.
    - ``anneal``, that is ``anneal:2.0:0.7``: beta from 2.0 to 0.7 with sigma = 1 over the first tenth of the steps;
      ``anneal:2.0:0.7:0.1``: with sigma = 0.1; ``anneal:2.0:0.7:learned``.

    A fixed sigma of 1 is the papers' beta-VAE, in which beta is the variance that Proposition 4 writes in the place of
    sigma^2. For images in [0, 1] it is a coarse likelihood: ``beta:0.01`` is, up to a factor, ``elbo:0.1``, and small
    images vary too little for 0.7 to let anything through: on digits of 16x16 VAE+NVP then gives the mean image.

    Args:
        text: the objective.
        steps: optimiser steps of the whole training.

    Raises:
        ValueError: an unknown name (the message lists the known ones), or a number that is missing, too many or not
            positive.

    Example:
        >>> build_objective("anneal", steps=3000)
        GaussianObjective(sigma=1, beta=(2, 0.7), annealing_steps=300)
    """
    name, *words = text.split(":")
    expected = {"elbo": (0, 1), "beta": (1, 2), "anneal": (0, 2, 3)}.get(name)
    if expected is None:
        raise ValueError(f"unknown objective {text!r}; known are {KNOWN}")
    if len(words) not in expected:
        raise ValueError(f"objective {text!r} has {len(words)} values; known are {KNOWN}")
    betas, sigma = (words, None) if len(words) < max(expected) else (words[:-1], words[-1])
    try:
        return _built(name, [float(beta) for beta in betas], sigma, steps)
    except ValueError as error:
        raise ValueError(f"objective {text!r}: {error}; known are {KNOWN}") from error


def paper_rate(text: str) -> float:
    """The learning rate of log lambda in ``paper:LR``: Algorithm 1 to the letter, see :meth:`geco_ext.GECOLoss.paper`.

    Raises:
        ValueError: another objective, or a rate that is missing or not positive.

    Example:
        >>> paper_rate("paper:0.1")
        0.1
    """
    name, _, rate = text.partition(":")
    try:
        if name != PAPER:
            raise ValueError(f"expected {PAPER}:LR")
        return check_positive(float(rate), "LR")
    except ValueError as error:
        raise ValueError(f"objective {text!r}: {error}; known are {KNOWN}") from error


def _built(name: str, betas: list[float], sigma: str | None, steps: int) -> GaussianObjective:
    if name == "elbo":
        return GaussianObjective(_sigma("learned" if sigma is None else sigma))
    first, last = betas * 2 if name == "beta" else betas or ANNEALED
    annealing_steps = max(1, round(ANNEALING_SHARE * steps)) if name == "anneal" else 0
    return GaussianObjective(_sigma("1" if sigma is None else sigma), (first, last), annealing_steps)


def _sigma(word: str) -> float | None:
    return LEARNED if word == "learned" else float(word)
