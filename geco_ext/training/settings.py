"""What can be chosen about a training run, checked and saved with it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, cast

GECO = "geco"
PAPER = "paper"
DEFAULT_CONSTRAINTS = ("re=0.1",)
MAX_SEED = 2**31 - 1


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of one training run.

    Attributes:
        model: name of the model, see `model_registry`.
        model_options: keyword arguments of the model.
        data: name of the data set, see :func:`geco_ext.data.load`.
        root: folder with the data set's files, for data sets that are not embedded.
        size: height and width of the images in pixels; None is the data set's usual size.
        objective: what is minimised, as written on the command line, see `objective_argument`.
        constraints: the constraints as written on the command line, see `constraint_argument`; None is ``re=0.1`` for
            the objectives ``geco`` and ``paper``, and none for others, which have no place for them.
        steps: optimiser steps.
        batch_size: examples per step, over all devices together.
        learning_rate: Adam's.
        seed: of the weights, the data order and the posterior samples.
        checkpoint_every: steps between checkpoints.
        accelerator: Lightning's accelerator: auto, cpu, gpu...
        devices: how many devices.
        threads: CPU threads; None is one for small images and PyTorch's own choice for larger ones.

    Raises:
        ValueError: a value outside the range its message names.
    """

    model: str = "nvp"
    model_options: Mapping[str, int] = field(default_factory=dict)
    data: str = "digits"
    root: str | None = None
    size: int | None = None
    objective: str = GECO
    constraints: tuple[str, ...] = None  # type: ignore[assignment]  # never None once made
    steps: int = 3000
    batch_size: int = 128
    learning_rate: float = 1e-3
    seed: int = 0
    checkpoint_every: int = 500
    accelerator: str = "auto"
    devices: int = 1
    threads: int | None = None

    def __post_init__(self) -> None:
        if cast(object, self.constraints) is None:
            object.__setattr__(self, "constraints", DEFAULT_CONSTRAINTS if self.is_constrained else ())
        for name in ("steps", "batch_size", "checkpoint_every", "devices", "threads", "size"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ValueError(f"{spoken(name)} must be an integer of at least 1, got {value!r}")
        if not (isinstance(self.learning_rate, float | int) and 0 < self.learning_rate < math.inf):
            raise ValueError(f"learning rate must be a positive number, got {self.learning_rate!r}")
        if not isinstance(self.seed, int) or not 0 <= self.seed <= MAX_SEED:
            raise ValueError(f"seed must be an integer from 0 to {MAX_SEED}, got {self.seed!r}")
        if self.is_constrained and not self.constraints:
            raise ValueError("constraint: at least one is needed, for example re=0.1")
        if self.constraints and not self.is_constrained:
            raise ValueError(
                f"constraint: {', '.join(self.constraints)} cannot be given with the objective {self.objective!r}; "
                f"only {GECO} and {PAPER} have constraints"
            )
        if self.batch_size % self.devices:
            raise ValueError(f"batch size must be divisible by the {self.devices} devices, got {self.batch_size}")

    @property
    def is_constrained(self) -> bool:
        """Whether the objective is GECO, by the library's update or the paper's."""
        return self.objective.partition(":")[0] in (GECO, PAPER)

    def as_dict(self) -> dict[str, Any]:
        """The settings as JSON can hold them."""
        values = asdict(self)
        values["constraints"] = list(self.constraints)
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainingSettings:
        """Settings from what :meth:`as_dict` gave.

        Raises:
            ValueError: unknown or missing names, or values out of range.
        """
        names = {each.name for each in fields(cls)}
        if set(values) != names:
            differing = ", ".join(sorted(set(values) ^ names))
            raise ValueError(f"settings do not have the names this version expects; differing: {differing}")
        return cls(**{**values, "constraints": tuple(values["constraints"])})


def spoken(name: str) -> str:
    """A setting's name as the messages spell it."""
    return name.replace("_", " ")
