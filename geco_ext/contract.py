"""The operator contract: what a call of the loss computes, and what every backend is given for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from torch import Tensor

IMAGE = -1  # owner of the input that all constraints on the images themselves share


class Kind(NamedTuple):
    """What a kind of constraint measures. ``csrc/math/kinds.h`` has the same table."""

    # C and its scale s: measured - kappa^2 with s = kappa^2, kappa - measured with s = 1 - kappa, or the measured
    # value itself with a scale of the constraint's own (kappa where it gives none); or measured - kappa with s = kappa.
    scale_rule: Literal["kappa^2", "1-kappa", "own", "kappa"]
    # D of the natural multiplier lambda* = D / (2 s): numbers of an example of the constraint's inputs (per row), or
    # twice as many (the Laplace likelihood has lambda* = D / s), those of an image, two for each position of a patch.
    # With the scale rule "own" a constraint may give lambda* itself.
    elements: Literal["inputs", "2 inputs", "image", "2 per position"]
    is_windowed: bool = False


# In the order of the kernels' enum.
KINDS = {
    "squared_error": Kind("kappa^2", "inputs"),
    "absolute_error": Kind("kappa", "2 inputs"),
    "scalar_similarity": Kind("1-kappa", "image"),
    "scalar": Kind("own", "image"),
    "patch_ncc": Kind("1-kappa", "image", is_windowed=True),
    "local_statistics": Kind("kappa^2", "2 per position", is_windowed=True),
    "structural_similarity": Kind("1-kappa", "image", is_windowed=True),
}


@dataclass(frozen=True)
class Term:
    """One constraint (or one per channel) as the kernels know it; ``str`` and ``parse_terms`` are inverses.

    The text form is what an operator takes, so that a compiled graph holds it as a constant and shows it.
    """

    kind: str
    rows: int = 1
    on_image: bool = True
    mean: bool = True
    patch_size: int = 1
    stride: int = 1
    eps: float = 0.0
    per_channel: bool = False

    @property
    def scale_rule(self) -> str:
        """Where the constraint and its scale s come from (:class:`Kind`)."""
        return KINDS[self.kind].scale_rule

    @property
    def is_windowed(self) -> bool:
        """Whether it measures patches."""
        return KINDS[self.kind].is_windowed

    @property
    def is_elementwise(self) -> bool:
        """Whether it compares its inputs number by number."""
        return KINDS[self.kind].elements in ("inputs", "2 inputs")

    @property
    def is_scalar(self) -> bool:
        """Whether PyTorch computes what it measures: a number, or one for each example, whose mean is taken."""
        return not self.is_windowed and not self.is_elementwise

    def positions(self, extent: int) -> int:
        """How many fully contained patches start along one side of an image."""
        return (extent - self.patch_size) // self.stride + 1

    def __str__(self) -> str:
        changed = [f for f in fields(self) if f.name != "kind" and getattr(self, f.name) != f.default]
        return " ".join([self.kind, *(f"{f.name}={getattr(self, f.name)!r}" for f in changed)])


def format_terms(terms: tuple[Term, ...]) -> str:
    """The text form of a constraint vector."""
    return "; ".join(map(str, terms))


@lru_cache(maxsize=1024)
def parse_terms(text: str) -> tuple[Term, ...]:
    """The terms of a text form."""
    readers: dict[str, Callable[[str], Any]] = {"int": int, "float": float, "bool": lambda value: value == "True"}
    types = {f.name: str(f.type) for f in fields(Term)}

    def parse(part: str) -> Term:
        kind, *settings = part.split(" ")
        named = (setting.split("=", 1) for setting in settings)
        return Term(kind, **{name: readers[types[name]](value) for name, value in named})

    return tuple(parse(part) for part in text.split("; "))


@lru_cache(maxsize=1024)
def count_rows(text: str) -> int:
    """The length of the constraint vector of a text form."""
    return sum(term.rows for term in parse_terms(text))


def inputs_of_terms(terms: tuple[Term, ...], owners: tuple[int, ...]) -> list[list[int]]:
    """For each term, the inputs it reads."""
    return [
        [i for i, owner in enumerate(owners) if owner == (IMAGE if term.on_image else index)]
        for index, term in enumerate(terms)
    ]


class UpdateSettings(NamedTuple):
    """How the moving average and log lambda move (the arguments of ``GECOLoss`` and ``MultiplierUpdate``)."""

    alpha: float
    lr: float
    proportional: float
    violation: str
    max_violation: float
    accumulation_steps: int


class LossCall(NamedTuple):
    """One call of the loss operator.

    ``predictions[i]`` is compared with ``targets[i]`` (None for scalars) on behalf of the
    term ``owners[i]``, or of every term on images where the owner is ``IMAGE``. With ``weights[i]``, which
    :mod:`geco_ext.weights` has divided, the constraint of an example is the weighted sum of what is measured of the
    differences; where a weight is zero, neither tensor matters and the gradient is zero. Weights are float64 where one
    of the two is, else float32, of their shape or with a size of one in some dimensions; patches know none.
    """

    predictions: list[Tensor]
    targets: list[Tensor | None]
    weights: list[Tensor | None]  # of each prediction; None: all elements count alike
    kl: Tensor | None
    block: Tensor  # the criterion's state (geco_ext.state)
    terms: str
    owners: tuple[int, ...]
    gradients: list[Tensor | None]  # written: of each prediction, then of kl; None where none is wanted
    batch: int
    image_elements: int  # of an example of x_hat
    update: UpdateSettings | None  # None: evaluation


# What the one-call step of a compiled backend returns: the loss, the gradients by kl and by x_hat where they are
# wanted, and whether one of them has another type than its tensor.
TakenStep = tuple[Tensor, Tensor | None, Tensor | None, bool]


class ImageStep(NamedTuple):
    """The two halves of a one-call step, for one criterion."""

    # x_hat, x, kl. None where something is not usual (a target that wants a gradient, bad input, more than a kernel
    # takes): nothing has moved then.
    forward: Callable[[Tensor, Tensor, Tensor], TakenStep | None]
    # Multiplies the gradients by kl and by x_hat by the incoming one, in place; False where this has not been done.
    backward: Callable[[Tensor | None, Tensor | None, Tensor], bool]
