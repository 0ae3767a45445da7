"""What can be chosen about a training, checked, and saved with a run. An option of a command is one field here."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, cast

from geco_ext.nearest import did_you_mean
from geco_ext.training.own_code import incomplete, own_call

GECO = "geco"
WITH_CONSTRAINTS = (GECO, "natural", "paper", "GECOLoss", "GECOLoss.natural", "GECOLoss.paper")
"""Names of the objectives that have constraints."""

WITH_MULTIPLIERS = (GECO, "GECOLoss")
"""Those whose multipliers have a start and bounds to choose."""

MODEL_NAMES = ("nvp", "convdraw", "unconditional-convdraw")
"""The models of this package, so that a misspelt name is refused before any of it is imported."""

SHORT_OBJECTIVES = (GECO, "natural", "paper", "elbo", "beta", "anneal")

AUTO = "auto"
ADDED = (
    "multiplier_init",
    "multiplier_bounds",
    "kappa_schedule",
    "validation",
    "patience",
    "strict",
    "precision",
    "logger",
)
"""Settings that runs of earlier versions do not have; theirs are the defaults."""

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
LOGGERS = ("tensorboard", "csv", "wandb", "none")

DEFAULT_CONSTRAINTS = ("re=0.1",)
MAX_SEED = 2**31 - 1
COUNTS = ("steps", "batch_size", "checkpoint_every", "patience", "devices", "threads", "size")
"""Settings that are integers of at least 1, or None."""

ROOT = "Folder with the files of data sets that are not embedded."
SIZE = "Height and width in pixels; to get there, the centre square of an image is resized."
FOLDER = (
    "Images of folder: are turned as their EXIF data say; an alpha channel is dropped; they stay grey where all are, "
    "else all are RGB."
)
USUAL_SIZES = "16 for digits, 64 for celeba and images of different sizes, else 32 or the images' own"
STRICT = "Stop at an image of folder: that cannot be read, instead of leaving it out."
ACCELERATOR = "Lightning's accelerator: auto, cpu, gpu..."
USUAL_THREADS = "1 for small images, else PyTorch's choice"


def setting(default: Any, help: str, shown: str | None = None, **option: str) -> Any:
    """A field of settings that is also an option of a command.

    Args:
        default: its value where nothing is given; a type is called for it.
        help: what the command's help says.
        shown: the default as the help shows it; None: as it is.
        option: ``flag`` and ``metavar`` where they are not those of the field's name and type.
    """
    metadata = {"help": help, "shown": str(default) if shown is None else shown, **option}
    if isinstance(default, type):
        return field(default_factory=default, metadata={**metadata, "shown": None})
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class TrainingSettings:
    """Settings of one training run: the options of `geco train`, described where they are declared.

    ``constraints`` are texts that :func:`geco_ext.training.constraints.build_constraint` reads, the ``objective`` is
    one for :func:`geco_ext.training.objectives.build_objective`. Constraints that are None become ``re=0.1`` for the
    objectives that have constraints, and none for the others.

    Raises:
        ValueError: a value outside the range its message names.
    """

    model: str = setting(
        "nvp",
        "Model: nvp, convdraw (conditional where the data have a context), unconditional-convdraw, or one's own: "
        "module:Class, file.py:Class, 'file.py:Class(latent=64)'.",
    )
    model_options: Mapping[str, int] = setting(
        dict, "An argument of the model, such as latent=64; repeatable.", flag="--model-option", metavar="NAME=INTEGER"
    )
    data: str = setting(
        "digits",
        "Data set: digits, patches, mnist, cifar10, celeba, a variant of digits or mnist (color-digits), folder:PATH, "
        f"npy:PATH. {FOLDER}",
    )
    root: str | None = setting(None, ROOT, "")
    size: int | None = setting(None, SIZE, USUAL_SIZES)
    strict: bool = setting(False, STRICT, "", flag="--strict")
    objective: str = setting(
        GECO,
        "geco, or one to compare it with: natural (multipliers by the tolerance alone), paper:LR (Algorithm 1 to the "
        "letter), elbo[:SIGMA], beta:BETA[:SIGMA], "
        "anneal[:FIRST:LAST[:SIGMA]], SIGMA a number or learned; or a call, 'GECOLoss(alpha=0.9)', "
        "'file.py:Class(alpha=0.9)'.",
    )
    constraints: tuple[str, ...] = setting(
        None,
        "Constraint, repeatable: re=KAPPA, pncc=KAPPA[:PATCH], local=KAPPA[:PATCH], cla=KAPPA:CHECKPOINT, "
        "fre=KAPPA:CHECKPOINT (of geco train-classifier), module:Class[=KAPPA], file.py:Class[=KAPPA]; or a call, "
        "'PatchNCC(kappa=0.9, patch_size=4)', 'file.py:Class(kappa=0.1)'.",
        DEFAULT_CONSTRAINTS[0],
        flag="--constraint",
    )
    kappa_schedule: str | None = setting(
        None,
        "Tighten every kappa over so many steps, from START (auto: the first step's error) to the constraint's own; "
        "SHAPE is geometric or linear.",
        "none",
        metavar="STEPS[:START[:SHAPE]]",
    )
    multiplier_init: str = setting(
        AUTO,
        "Multipliers to start from: a number, or auto, D / (2 error) with D the elements compared.",
        metavar="NUMBER",
    )
    multiplier_bounds: str = setting(
        AUTO,
        "Bounds of the multipliers: LOW:HIGH, or auto, a thousandth and up to 3 times D / (2 error), the error no less "
        "than its tolerance.",
        metavar="LOW:HIGH",
    )
    steps: int = setting(3000, "Optimiser steps.")
    batch_size: int = setting(128, "Examples per step, over all devices together.")
    learning_rate: float = setting(1e-3, "Adam's; it falls linearly to 0 over the last fifth of the steps.")
    seed: int = setting(0, "Of weights, data order and posterior samples.")
    checkpoint_every: int = setting(500, "Steps between checkpoints, where examples held out are looked at as well.")
    validation: float | None = setting(
        None, "Share of the examples to hold out of training.", "the data set's test split", metavar="SHARE"
    )
    patience: int | None = setting(
        None, "Stop where so many checkpoints in a row were no better on the examples held out.", "never"
    )
    precision: str = setting("32-true", "Lightning's precision: 32-true, bf16-mixed, 16-mixed (on a GPU).")
    logger: str = setting("tensorboard", "Where metrics go beside metrics.csv: tensorboard, csv, wandb, none.")
    accelerator: str = setting("auto", ACCELERATOR)
    devices: int = setting(1, "Devices, a process each.", "1, with torchrun its processes")
    threads: int | None = setting(None, "CPU threads.", USUAL_THREADS)

    def __post_init__(self) -> None:
        if cast(object, self.constraints) is None:
            object.__setattr__(self, "constraints", DEFAULT_CONSTRAINTS if self.is_constrained else ())
        if (lacking := incomplete(self.objective)) is not None:
            raise ValueError(f"objective {self.objective!r}: {lacking}")
        _check_numbers(self)
        if self.is_constrained and not self.constraints:
            raise ValueError("constraint: at least one is needed, for example re=0.1")
        if self.constraints and not (self.is_constrained or self.has_own_objective):
            raise ValueError(
                f"constraint: {', '.join(self.constraints)} cannot be given with the objective {self.objective!r}; "
                f"only {', '.join(WITH_CONSTRAINTS)} have constraints"
            )
        if self.kappa_schedule is not None:
            if not (self.is_constrained or self.has_own_objective):
                raise ValueError(f"kappa schedule cannot be given with the objective {self.objective!r}")
            read_schedule(self.kappa_schedule)
        if self.multipliers and not (self._objective_name in WITH_MULTIPLIERS or self.has_own_objective):
            given = ", ".join(map(in_words, self.multipliers))
            raise ValueError(
                f"{given} cannot be given with the objective {self.objective!r}; only {', '.join(WITH_MULTIPLIERS)} "
                "have them"
            )
        for name, known in (("precision", PRECISIONS), ("logger", LOGGERS)):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}")
        if self.validation is not None and not 0 < self.validation < 1:
            raise ValueError(f"validation must be a share between 0 and 1, got {self.validation!r}")
        if self.batch_size % self.devices:
            raise ValueError(f"batch size must be divisible by the {self.devices} devices, got {self.batch_size}")

    @property
    def is_constrained(self) -> bool:
        """Whether the objective is one of this package that has constraints."""
        return self._objective_name in WITH_CONSTRAINTS

    @property
    def has_own_objective(self) -> bool:
        """Whether the objective names code of a user's own, which knows whether it has constraints."""
        return own_call(self.objective) is not None and self._objective_name not in SHORT_OBJECTIVES

    @property
    def _objective_name(self) -> str:
        return re.split("[:(]", self.objective, maxsplit=1)[0].strip()

    @property
    def multipliers(self) -> dict[str, float | tuple[float, float]]:
        """The arguments of the criterion that are given, not automatic.

        Raises:
            ValueError: what is no positive number, or no pair 0 < LOW < HIGH.
        """
        given: dict[str, float | tuple[float, float]] = {}
        if self.multiplier_init != AUTO:
            (given["multiplier_init"],) = _positive_numbers(self.multiplier_init, "multiplier init", ("NUMBER",))
        if self.multiplier_bounds != AUTO:
            low, high = _positive_numbers(self.multiplier_bounds, "multiplier bounds", ("LOW", "HIGH"))
            given["multiplier_bounds"] = low, high
        return given

    def as_dict(self) -> dict[str, Any]:
        """The settings as JSON can hold them."""
        return {**asdict(self), "constraints": list(self.constraints)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainingSettings:
        """Settings from what :meth:`as_dict` gave.

        Raises:
            ValueError: unknown or missing names, or values out of range.
        """
        names = {each.name for each in fields(cls)}
        values = {**{name: getattr(cls, name) for name in ADDED}, **values}
        if set(values) != names:
            differing = ", ".join(sorted(set(values) ^ names))
            raise ValueError(f"settings do not have the names this version expects; differing: {differing}")
        return cls(**{**values, "constraints": tuple(values["constraints"])})


@dataclass(frozen=True)
class ClassifierSettings:
    """Settings of one classifier's training: the options of `geco train-classifier`.

    Raises:
        ValueError: a value outside the range its message names.
    """

    model: str = setting("conv", "Classifier: conv, resnet.")
    model_options: Mapping[str, int] = setting(
        dict,
        "An argument of the classifier, such as blocks=5; repeatable.",
        flag="--model-option",
        metavar="NAME=INTEGER",
    )
    data: str = setting("digits", "Data set whose examples have one label each.")
    root: str | None = setting(None, ROOT, "")
    size: int | None = setting(None, SIZE, USUAL_SIZES)
    strict: bool = setting(False, STRICT, "", flag="--strict")
    steps: int = setting(1000, "Optimiser steps.")
    batch_size: int = setting(128, "Examples per step.")
    learning_rate: float = setting(1e-3, "AdamW's; it falls linearly to 0 over the last fifth of the steps.")
    seed: int = setting(0, "Of weights, data order and augmentation.")
    accelerator: str = setting("auto", ACCELERATOR)
    threads: int | None = setting(None, "CPU threads.", USUAL_THREADS)

    def __post_init__(self) -> None:
        _check_numbers(self)


def read_schedule(text: str) -> tuple[int, float | None, str]:
    """Steps, start (None: auto) and shape of ``STEPS[:START[:SHAPE]]``.

    Raises:
        ValueError: another form.

    Example:
        >>> read_schedule("1500"), read_schedule("1500:0.3:linear")
        ((1500, None, 'geometric'), (1500, 0.3, 'linear'))
    """
    steps, start, shape, *more = (*text.split(":"), *("auto", "geometric")[text.count(":") :])
    try:
        numbers = int(steps), None if start == AUTO else float(start)
    except ValueError:
        numbers = 0, None
    if more or numbers[0] < 1 or shape not in ("geometric", "linear"):
        raise ValueError(
            f"kappa schedule must be STEPS[:START[:SHAPE]] with STEPS >= 1, START a number or auto, SHAPE geometric or "
            f"linear, got {text!r}"
        )
    return *numbers, shape


def _positive_numbers(text: str, what: str, names: tuple[str, ...]) -> tuple[float, ...]:
    """Rising positive numbers with colons between them."""
    try:
        numbers = tuple(float(number) for number in text.split(":"))
    except ValueError:
        numbers = ()
    rising = list(numbers) == sorted(set(numbers))
    if len(numbers) != len(names) or not rising or not all(0 < number < math.inf for number in numbers):
        expected = " < ".join(("0", *names))
        raise ValueError(f"{what} must be auto or {':'.join(names)} with {expected}, got {text!r}")
    return numbers


def _check_numbers(settings: TrainingSettings | ClassifierSettings) -> None:
    for name in COUNTS:
        value = getattr(settings, name, None)
        if value is not None and (not isinstance(value, int) or value < 1):
            raise ValueError(f"{in_words(name)} must be an integer of at least 1, got {value!r}")
    rate, seed = settings.learning_rate, settings.seed
    if not (isinstance(rate, float | int) and 0 < rate < math.inf):
        raise ValueError(f"learning rate must be a positive number, got {rate!r}")
    if not isinstance(seed, int) or not 0 <= seed <= MAX_SEED:
        raise ValueError(f"seed must be an integer from 0 to {MAX_SEED}, got {seed!r}")


def check_model_name(name: str) -> None:
    """Refuse what is neither a model of this package nor looks like one of a user's own; knows names alone.

    Raises:
        ValueError: such a name; the message lists the known ones.
    """
    if name not in MODEL_NAMES and own_call(name) is None:
        raise ValueError(unknown_model(name, MODEL_NAMES))


def unknown_model(name: str, known: Iterable[str]) -> str:
    """The message for a name that is not known."""
    own = "a class of one's own, module:Class, file.py:Class, with arguments as in Class(latent=64)"
    known = list(known)
    if (lacking := incomplete(name)) is not None:
        return f"model {name!r}: {lacking}"
    return (
        f"unknown model {name!r}{did_you_mean(name, known)}; known are {', '.join(known)}, and {own}; "
        "geco list models says what they are"
    )


def in_words(name: str) -> str:
    """A setting's name as messages spell it."""
    return name.replace("_", " ")


def torchrun_processes() -> int | None:
    """How many processes torchrun has started, this one among them; None where it has not started this one."""
    return int(os.environ["WORLD_SIZE"]) if "TORCHELASTIC_RUN_ID" in os.environ else None
