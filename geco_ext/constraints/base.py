"""What a constraint is to the criterion."""

from __future__ import annotations

import re
from typing import NamedTuple

import torch
from torch import Tensor, nn

from geco_ext.checks import check_kappa_non_negative
from geco_ext.terms import Term


class ComparedPair(NamedTuple):
    """A prediction and what it is compared with (labels for class scores, None for a scalar)."""

    prediction: Tensor
    target: Tensor | None


class Constraint(nn.Module):
    """Base class of all constraints, and of users' own: a quantity that training brings to at most zero.

    A subclass defines ``forward(x_hat, x, labels=None)`` returning the constraint per example [B] or averaged (0-d).
    Subtract the tolerance yourself; ``self.kappa`` is there for it. The gradient flows through what ``forward``
    returns; a value without a gradient is fine and moves only the multiplier.

    Attributes:
        name: key in ``metrics()``; the class name in snake case unless given.
        kappa: the tolerance. It may be changed at any time, by a schedule for instance: the new value is written to
            the device and seen by the next step, without recompilation. Reading it waits for the device.
        scale: the size of the tolerance s that violations are measured by.
        natural_multiplier: lambda* for ``multiplier_init="auto"``.

    Example:
        >>> class Brightness(Constraint):
        ...     def forward(self, x_hat, x, labels=None):
        ...         return (x_hat.mean((1, 2, 3)) - x.mean((1, 2, 3))).abs() - self.kappa
        >>> Brightness(kappa=0.05).name
        'brightness'
    """

    rows: int = 1
    scale: float = 1.0
    natural_multiplier: float = 1.0

    def __init__(self, kappa: float = 0.0, name: str | None = None) -> None:
        super().__init__()
        self.name = name or snake_case(type(self).__name__)
        # One place per criterion that holds this constraint: its row of the state, rebound when the state moves.
        self._slots: dict[int, Tensor] = {}
        self._kappa = self._check_kappa(kappa)

    def forward(self, x_hat: Tensor, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """The constraint per example, [B], or its batch average, 0-d; satisfied when at most zero."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(x_hat, x, labels=None)")

    def _check_kappa(self, kappa: float) -> float:
        return check_kappa_non_negative(kappa)

    # What the criterion asks. A user's constraint is a scalar whose value and gradient autograd brings.

    def _term(self) -> Term:
        return Term("scalar", on_image=False)

    _checks_images: bool = False  # whether there are images that _check refuses

    def _check(self, x_hat: Tensor, x: Tensor) -> None:
        """Refuse images this constraint cannot be computed on."""

    def _pairs(self, x_hat: Tensor, x: Tensor, labels: Tensor | None) -> list[ComparedPair]:
        """What a constraint that does not read the images themselves compares."""
        value = self(x_hat, x, labels)
        batch = x_hat.shape[0]
        if not isinstance(value, Tensor) or not value.dtype.is_floating_point:
            got = value.dtype if isinstance(value, Tensor) else type(value).__name__
            raise TypeError(f"constraint {self.name!r}: forward returned {got}, expected a floating-point tensor")
        if value.dim() > 1 or (value.dim() == 1 and value.shape[0] != batch):
            raise ValueError(
                f"constraint {self.name!r}: forward returned shape {tuple(value.shape)}, expected [{batch}] or 0-d"
            )
        if value.device != x_hat.device:
            raise ValueError(
                f"constraint {self.name!r}: forward returned a tensor on {value.device}, expected {x_hat.device}"
            )
        return [ComparedPair(value, None)]

    def _bind(self, criterion: int, slot: Tensor) -> None:
        self._slots[criterion] = slot

    @property
    def kappa(self) -> float:
        """The tolerance."""
        for slot in self._slots.values():
            return float(slot[0])
        return self._kappa

    @kappa.setter
    def kappa(self, kappa: float) -> None:
        self._kappa = self._check_kappa(kappa)
        with torch.no_grad():
            for slot in self._slots.values():
                slot.fill_(self._kappa)

    def extra_repr(self) -> str:
        """Name and tolerance."""
        return f"{self.name!r}, kappa={self.kappa:g}"


def snake_case(name: str) -> str:
    """``PatchNCC`` -> ``patch_ncc``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
