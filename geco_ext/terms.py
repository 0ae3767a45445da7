"""What an operator call computes: its terms, and the request that carries them to a backend."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any, NamedTuple

from torch import Tensor

IMAGE = -1  # owner of the input that all pixel and patch terms share

SCALE_RULES = {
    "squared_error": "kappa^2",
    "local_statistics": "kappa^2",
    "patch_ncc": "1-kappa",
    "class_probability": "1-kappa",
    "scalar": "own",
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
    from_logits: bool = True
    log_gradient: bool = False
    patch_size: int = 1
    stride: int = 1
    eps: float = 0.0
    per_channel: bool = False

    @property
    def scale_rule(self) -> str:
        """Where the scale s of the constraint comes from."""
        return SCALE_RULES[self.kind]

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


class UpdateSettings(NamedTuple):
    """How the moving average and log lambda move (the arguments of ``GECOLoss`` and ``MultiplierUpdate``)."""

    alpha: float
    lr: float
    proportional: float
    violation: str
    max_violation: float
    accumulation_steps: int


class Request(NamedTuple):
    """One operator call.

    ``predictions[i]`` is compared with ``targets[i]`` (labels for class scores, None for scalars) on behalf of the
    term ``owners[i]``, or of every pixel and patch term where the owner is ``IMAGE``.
    """

    predictions: list[Tensor]
    targets: list[Tensor | None]
    kl: Tensor | None
    block: Tensor
    terms: str
    owners: tuple[int, ...]
    gradients: list[Tensor | None]  # written: of each prediction, then of kl; None where none is wanted
    batch: int
    image_elements: int
    update: UpdateSettings | None  # None: evaluation


# A loss that is computed already: with its gradients by kl and by x_hat, where they are wanted, and whether one of them
# has another type than its input.
Made = tuple[Tensor, Tensor | None, Tensor | None, bool]


def inputs_of_terms(terms: tuple[Term, ...], owners: tuple[int, ...]) -> list[list[int]]:
    """For each term, the inputs it reads."""
    return [
        [i for i, owner in enumerate(owners) if owner == (IMAGE if term.on_image else index)]
        for index, term in enumerate(terms)
    ]
