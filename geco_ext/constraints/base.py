"""What a constraint is to the criterion."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from geco_ext.checks import NoToleranceError, check_kappa_non_negative
from geco_ext.contract import IMAGE, Term
from geco_ext.ops.loss import lagrangian
from geco_ext.schedule import Kappa, KappaSchedule
from geco_ext.state import new_block, views


class ComparedPair(NamedTuple):
    """A prediction and what it is compared with (None for a scalar)."""

    prediction: Tensor
    target: Tensor | None


class ToleranceRows(NamedTuple):
    """Where a criterion keeps the tolerance of a constraint and its schedule, [rows] each (:mod:`geco_ext.state`).

    And the average, which is that of the constraint under the tolerance in force.
    """

    moving_average: Tensor
    kappa: Tensor
    kappa_target: Tensor
    schedule_start: Tensor
    schedule_steps: Tensor
    schedule_step: Tensor
    schedule_is_linear: Tensor


class Constraint(nn.Module):
    """Base class of all constraints, and of users' own: a quantity that training brings to at most zero.

    A subclass defines ``forward(x_hat, x, labels=None)`` returning the constraint per example [B] or averaged (0-d).
    Subtract the tolerance yourself; ``self.kappa`` is there for it. The gradient flows through what ``forward``
    returns; a value without a gradient is fine and moves only the multiplier. ``GECOLoss`` sets the multiplier for a
    value of the form ``error - self.kappa``. Where something else is subtracted, ``self.kappa**2``, write
    ``self.scale = self.kappa**2`` in ``__init__``: by kappa its multiplier would be too small, and it would count as
    met far above its tolerance. A ``forward`` with a parameter ``weight=None`` gets the weights of a call that has any,
    as they were passed; without it, such a call is refused. ``labels`` may be left out. An ``__init__`` of one's own
    calls ``super().__init__(kappa)`` first.

    Attributes:
        name: key in ``metrics()``; the class name in snake case unless given, here or as a class attribute.
        kappa: the tolerance in force, a number (of one per channel the first's). It may be set at any time, also to a
            :class:`geco_ext.KappaSchedule`, which takes the value to be ``error - kappa``: what is set is written to
            the device and seen by the next step. A ``state_dict`` that is loaded brings its own, which is said where it
            is another one.
        kappa_target: the tolerance at the end of the schedule, or without one the one in force.
        kappa_tensor: the tolerance where the criterion keeps it, 0-d float64: for a ``forward`` that is compiled or
            captured in a CUDA graph, which would take ``kappa`` for a constant, and under a schedule, where reading
            ``kappa`` waits for the device.
        scale: the size of the tolerance s that violations are measured by; below 1e-12 it counts as 1e-12. None:
            kappa, also when that is changed, and 1 where kappa is zero.
        natural_multiplier: lambda* for ``multiplier_init="auto"``, positive. None: D / (2 s) with D the numbers of an
            example of x_hat, known at the first call.

    Example:
        >>> class Brightness(Constraint):
        ...     def forward(self, x_hat, x, labels=None):
        ...         return (x_hat.mean((1, 2, 3)) - x.mean((1, 2, 3))).abs() - self.kappa
        >>> Brightness(kappa=0.05).name
        'brightness'
    """

    name: str
    scale: float | None = None
    natural_multiplier: float | None = None

    _rows: int = 1  # of the constraint vector
    _checks_images: bool = False  # whether there are images that _check refuses
    _term_tells: bool = True  # whether the term shows for all of them that they do not fit
    _weighs: bool = False  # whether forward takes weights
    _labels_at: str = "third"  # how forward takes labels: third, by name, or not at all
    _default_kappa: float = 0.0
    _zero_tolerance: float | None = None  # the kappa that leaves none, which is refused: 0, or 1 of a similarity
    _slots: WeakKeyDictionary[nn.Module, ToleranceRows]
    _slot: ToleranceRows | None
    _kappa_version: tuple[int, int] | None  # of the slot, when kappa was last read from it or written to it
    _schedule: KappaSchedule | None = None  # the last one that was set
    _kappa_moves: bool = False  # by a schedule, when it was last looked at

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Take ``kappa = 0.1`` in a class body for its default, and keep the property."""
        super().__init_subclass__(**kwargs)
        parameters = inspect.signature(cls.forward).parameters
        weight = parameters.get("weight")
        cls._weighs = weight is not None and weight.kind is not inspect.Parameter.POSITIONAL_ONLY
        cls._labels_at = _place_of_labels(list(parameters.values())[1:])
        given = cls.__dict__.get("kappa")
        if given is not None and not isinstance(given, property):
            cls._default_kappa = given
            delattr(cls, "kappa")

    def __init__(self, kappa: Kappa | None = None, name: str | None = None) -> None:
        super().__init__()
        self.name = name or getattr(type(self), "name", None) or snake_case(type(self).__name__)
        self._unbind()
        self._take(self._default_kappa if kappa is None else kappa)
        self._given_kappa = self._target

    def forward(self, x_hat: Tensor, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """The constraint per example, [B], or its batch average, 0-d; satisfied when at most zero."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(x_hat, x, labels=None)")

    @property
    def kappa(self) -> float:
        """The tolerance in force, as the criterion's state has it.

        When somebody has written the state it is read again, which waits for the device: once after a checkpoint is
        loaded, at every step where buffers are broadcast or a schedule moves it. ``kappa_tensor`` never waits.
        """
        self._read_state()
        return self._kappa

    @kappa.setter
    def kappa(self, kappa: Kappa) -> None:
        check_initialised(self)
        self._take(kappa)
        for rows in self._slots.values():
            before = rows.kappa.clone()
            self._write_tolerance(rows)
            with torch.no_grad():
                rows.moving_average.add_(self._tightened(before, rows.kappa))
        if self._slot is not None:
            self._kappa_version = _version(self._slot.kappa)

    @property
    def kappa_target(self) -> float:
        """The tolerance at the end of its schedule; without one, the one in force."""
        self._read_state()
        return self._target

    def _take(self, kappa: Kappa) -> None:
        """What is set, checked; it holds before a criterion has it."""
        schedule = kappa if isinstance(kappa, KappaSchedule) else None
        target = self._checked(kappa if schedule is None else schedule.target)  # type: ignore[arg-type]
        in_force = target
        if schedule is not None:
            in_force = self._checked_schedule(schedule, target)
        self._schedule, self._target, self._kappa, self._kappa_moves = schedule, target, in_force, schedule is not None

    def _checked_schedule(self, schedule: KappaSchedule, target: float) -> float:
        """The tolerance of its first step."""
        similarity = self._zero_tolerance == 1.0
        if self.scale is not None:
            raise ValueError(
                f"kappa: got a schedule, and {type(self).__name__} has a scale of its own, {self.scale:g}; expected a "
                "number, or a constraint of the form error - kappa, whose scale is kappa"
            )
        if target == (1.0 if similarity else 0.0):
            raise ValueError(f"target: got {schedule.target:g}, expected one that leaves a tolerance to shrink to")
        if schedule.start == "auto":
            return target
        start = self._checked(schedule.start)
        if (start > target) if similarity else (start < target):
            side = "at most" if similarity else "at least"
            raise ValueError(
                f"start: got {start:g}, which is tighter than the target of {target:g} of {type(self).__name__}; "
                f"expected {side} that"
            )
        return start

    def _tightened(self, before: Tensor, after: Tensor) -> Tensor:
        """By how much the constraint on the same images is more under another kappa."""
        if self.scale_rule == "kappa^2":
            return before.square() - after.square()
        return after - before if self.scale_rule == "1-kappa" else before - after

    def _write_tolerance(self, rows: ToleranceRows) -> None:
        """Tolerance and schedule, to the state of a criterion."""
        schedule = self._schedule
        with torch.no_grad():
            if schedule is None:
                rows.kappa.fill_(self._target)
            elif schedule.start != "auto":  # until the first step has shown the start, what is there
                rows.kappa.fill_(float(schedule.start))
            rows.kappa_target.fill_(self._target)
            rows.schedule_step.fill_(0.0)
            rows.schedule_steps.fill_(0.0 if schedule is None else float(schedule.steps))
            if schedule is not None:
                rows.schedule_start.fill_(math.nan if schedule.start == "auto" else float(schedule.start))
                rows.schedule_is_linear.fill_(float(schedule.shape == "linear"))

    def _read_state(self) -> None:
        """What the criterion's state says, where it may have moved since it was last read."""
        rows = self._slot
        if rows is None or (torch.compiler.is_compiling() and not self._kappa_moves):
            return
        version = _version(rows.kappa)
        if version is None or (version == self._kappa_version and not self._kappa_moves):
            return
        of_first = [row[0] for row in (rows.kappa, rows.kappa_target, rows.schedule_steps, rows.schedule_step)]
        self._kappa, target, steps, taken = torch.stack(of_first).tolist()
        self._kappa_moves = steps > 0
        self._target = target if self._kappa_moves else self._kappa
        if self._schedule is not None and (self._schedule.target != self._target or steps == taken == 0):
            self._schedule = None  # a state has brought another one, or none
        self._kappa_version = version

    def __setattr__(self, name: str, value: Any) -> None:
        """A criterion that holds the constraint has taken its scale and natural multiplier."""
        if name in ("scale", "natural_multiplier") and self.__dict__.get("_slots"):
            raise AttributeError(
                f"{name}: it is fixed for constraint {self.name!r}, which a criterion holds; only kappa can be set"
            )
        super().__setattr__(name, value)

    def _kappa_has_moved(self) -> bool:
        """Whether it was changed since construction."""
        return self.kappa_target != getattr(self, "_given_kappa", self.kappa_target)  # none in an old pickle

    @property
    def kappa_tensor(self) -> Tensor:
        """The tolerance as the criterion holds it, 0-d float64 on its device."""
        if self._slot is None:
            return torch.tensor(self._kappa, dtype=torch.float64)
        return self._slot.kappa[0]

    @property
    def scale_rule(self) -> str:
        """What the tolerance means for the constraint and its scale (:class:`geco_ext.contract.Kind`)."""
        return self._term().scale_rule

    def extra_repr(self) -> str:
        """Name and tolerance."""
        kappa = f"kappa={self.kappa:g}"
        return f"{self.name!r}, {kappa}{f' on its way to {self.kappa_target:g}' if self._kappa_moves else ''}"

    # What the criterion asks. A user's constraint is a scalar whose value and gradient autograd brings.

    def _row_names(self) -> list[str]:
        return [self.name]

    def _term(self) -> Term:
        return Term("scalar", on_image=False)

    def _check_kappa(self, kappa: float) -> float:
        return check_kappa_non_negative(kappa)

    def _checked(self, kappa: float) -> float:
        value = self._check_kappa(kappa)
        if value == self._zero_tolerance:
            raise NoToleranceError(
                f"kappa: got {kappa}, expected one that leaves {type(self).__name__} a tolerance: violations and the "
                "multiplier are measured by a scale, which is 0 here: only what is perfect would satisfy it"
            )
        return value

    def _check(self, x_hat: Tensor, x: Tensor) -> None:
        """Refuse images this constraint cannot be computed on."""

    def _pairs(
        self, x_hat: Tensor, x: Tensor, labels: Tensor | None, weight: Tensor | None = None
    ) -> list[ComparedPair]:
        """What a constraint that does not read the images themselves compares."""
        third = [labels] if self._labels_at == "third" else []
        named = {"labels": labels} if self._labels_at == "named" else {}
        weights = {} if weight is None else {"weight": weight}
        value = self(x_hat, x, *third, **named, **weights)
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

    # Every criterion that holds this constraint has a place for kappa in its state, bound anew when the state moves.

    def _bind(self, criterion: nn.Module, rows: ToleranceRows) -> None:
        self._slots[criterion] = rows
        self._slot = rows
        self._kappa_version = None

    def _unbind(self) -> None:
        self._slots = WeakKeyDictionary()
        self._slot = None
        self._kappa_version = None

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the places for kappa, which a copied criterion binds itself."""
        return {
            name: value for name, value in self.__dict__.items() if name not in ("_slots", "_slot", "_kappa_version")
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore, bound to no criterion."""
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self.__dict__.setdefault("_target", self._kappa)  # of a pickle from before there were schedules
        self._unbind()


def check_initialised(constraint: Constraint) -> Constraint:
    """Refuse one whose class has left out what this one does, or has not come to it yet."""
    if "_slots" not in vars(constraint):
        name = type(constraint).__name__
        raise ValueError(
            f"constraint {name}: its __init__ has not called that of Constraint; write super().__init__(kappa) as the "
            f"first line of {name}.__init__"
        )
    return constraint


def _place_of_labels(parameters: Sequence[inspect.Parameter]) -> str:
    """From the parameters of a forward, without self."""
    by_position = [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    if any(each.kind is each.VAR_POSITIONAL for each in parameters) or (
        len(by_position) > 2 and by_position[2].name != "weight"
    ):
        return "third"
    takes = any(each.name == "labels" or each.kind is each.VAR_KEYWORD for each in parameters)
    return "named" if takes else "none"


def _version(slot: Tensor) -> tuple[int, int] | None:
    """Changes whenever somebody writes the slot; None where its value cannot be read (meta and fake tensors)."""
    if type(slot) is not Tensor or slot.is_meta:
        return None
    return slot.data_ptr(), slot._version


def snake_case(name: str) -> str:
    """``PatchNCC`` -> ``patch_ncc``."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def batch_average(
    term: Term,
    predictions: list[Tensor],
    targets: Sequence[Tensor | None],
    kappa: float,
    weights: Sequence[Tensor | None] = (),
) -> Tensor:
    """A constraint without a criterion: its vector of one term, with a multiplier of one and no kl."""
    first = predictions[0]
    block = new_block(1, device=first.device)
    views(block).kappa.fill_(kappa)
    owners = (IMAGE if term.on_image else 0,) * len(predictions)
    elements = first[0].numel()
    return lagrangian(predictions, targets, owners, None, block, str(term), first.shape[0], elements, weights=weights)
