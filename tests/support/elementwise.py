"""The fused constraints that compare number by number, one row for each kind: tests of all of them are made of it.

A new kind is a row here and a formula in the oracle. ``tests/constraints/test_elementwise.py`` has what every kind has
to satisfy, and demands that no kind is missing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import oracle
import pytest
import torch

import geco_ext
from geco_ext import functional as gf

# What CUDA takes at most (csrc/cuda/plan.h): measures of one tensor; tensors with weights, of which every constraint
# has its own where their weights are divided in several ways.
MOST_MEASURES = 4
MOST_WEIGHTED = 4


class Elementwise(NamedTuple):
    """A kind of constraint, and what the oracle says of it."""

    kind: str  # its key in geco_ext.contract.KINDS
    constraint: type[geco_ext.Constraint]
    function: Callable[..., torch.Tensor]
    measured: Callable[..., torch.Tensor]  # of differences x_hat - x, float64; takes what settings has
    scale: Callable[[float], float]  # s of kappa, which is what C subtracts, too
    counted: int  # times that D of the natural multiplier D / (2 s) counts an element
    # Arguments of class and function beside kappa, the defaults first. Together they reach every branch of the formula
    # with differences between -1 and 1, most of them below 0.5.
    settings: tuple[dict[str, float], ...] = ({},)
    extremes: tuple[dict[str, float], ...] = ()  # the smallest and the largest that have to work
    refused: tuple[dict[str, float], ...] = ()  # each of one argument, which the error names

    def expected(self, x_hat, x, kappa, reduction="mean", channels=None, weight=None, **settings):
        """The oracle's value, 0-d or [channels]."""
        measured = self.measured((x_hat - x).double(), **settings)
        weights = None if weight is None else weight.expand_as(measured)

        def average(part=(...,)):
            if weights is None:
                return oracle.average(measured[part], self.scale(kappa), reduction)
            return oracle.weighted(measured[part], weights[part], self.scale(kappa), reduction)

        return average() if channels is None else torch.stack([average((slice(None), c)) for c in range(channels)])

    def natural(self, elements: int, kappa: float) -> float:
        """The multiplier to start from, of so many elements of an example."""
        return self.counted * elements / (2 * self.scale(kappa))


TABLE = (
    Elementwise(
        kind="squared_error",
        constraint=geco_ext.ReconstructionError,
        function=gf.reconstruction_error,
        measured=oracle.squared_difference,
        scale=lambda kappa: kappa**2,
        counted=1,
    ),
    Elementwise(
        kind="absolute_error",
        constraint=geco_ext.AbsoluteError,
        function=gf.absolute_error,
        measured=oracle.absolute_difference,
        scale=lambda kappa: kappa,
        counted=2,
        settings=({}, {"eps": 0.1}),
        extremes=({"eps": 1e-30}, {"eps": 1e30}),
        refused=({"eps": 0.0}, {"eps": -1e-5}),
    ),
)

SQUARED = TABLE[0]  # of tests that are not about a kind
ROWS = [pytest.param(row, id=row.kind) for row in TABLE]


class Member(NamedTuple):
    """A constraint of a criterion, and its row of the table."""

    row: Elementwise
    kappa: float
    arguments: dict  # of class and function beside kappa

    @property
    def length(self) -> int:
        return self.arguments.get("channels", 1)

    @property
    def scales(self) -> list[float]:
        return [self.row.scale(self.kappa)] * self.length

    def naturals(self, elements: int) -> list[float]:
        return [self.row.natural(elements // self.length, self.kappa)] * self.length

    def expected(self, x_hat, x, weight=None):
        """[length]"""
        return self.row.expected(x_hat, x, self.kappa, weight=weight, **self.arguments).reshape(-1)


def measures() -> list[list[tuple[Elementwise, dict]]]:
    """Every row with each of its settings, in as few parts as one criterion takes."""
    every = [(row, settings) for row in TABLE for settings in row.settings]
    return [every[start : start + MOST_MEASURES] for start in range(0, len(every), MOST_MEASURES)]


def vectors(channels: int) -> list[list[Member]]:
    """Criteria that have all of them: of a row's first setting a mean and a sum, of its last one for each channel."""
    return [
        [
            Member(row, 0.2 + 0.1 * number, {**form, **settings})
            for row, settings in part
            for number, form in enumerate(_forms(row, settings, channels))
        ]
        for part in measures()
    ]


def weighted_vectors(channels: int) -> list[list[Member]]:
    """The same for calls with weights, which are divided in several ways in each of the criteria."""
    result = []
    for members in vectors(channels):
        count = -(-len(members) // MOST_WEIGHTED)
        result += [members[start::count] for start in range(count)]
    return result


def _forms(row: Elementwise, settings: dict, channels: int) -> list[dict]:
    of_image = [{}, {"reduction": "sum"}] if settings == row.settings[0] else []
    of_channels = [{"channels": channels}] if settings == row.settings[-1] else []
    return of_image + of_channels or [{}]


def constraints_of(members: list[Member]) -> list[geco_ext.Constraint]:
    """With names that tell them apart."""
    return [
        member.row.constraint(member.kappa, **member.arguments, name=f"{member.row.kind}_{number}")
        for number, member in enumerate(members)
    ]
