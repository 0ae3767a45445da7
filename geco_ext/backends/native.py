"""What the two compiled backends share: the extension module and how a call is handed to it."""

from __future__ import annotations

from functools import lru_cache
from importlib import import_module
from typing import Any, NamedTuple

import torch

from geco_ext.backends.allocation import empty_like
from geco_ext.terms import Request, UpdateSettings, inputs_of_terms, parse_terms

# The numbers are those of the enums in csrc/call.h and csrc/math/multiplier.h.
DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64]
TERM_KINDS = {"squared_error": 0, "class_probability": 1, "scalar": 2, "patch_ncc": 3, "local_statistics": 4}
SCALE_RULES = {"kappa^2": 0, "1-kappa": 1, "own": 2}
VIOLATIONS = {"log": 0, "relative": 1, "raw": 2}

MAX_RANK = 8
MAX_STRIDE = 1 << 40  # beyond any image: one position


@lru_cache(maxsize=1)
def extension() -> tuple[Any, str | None]:
    """The compiled module and None, or None and why it cannot be loaded."""
    try:
        compiled = import_module("geco_ext._C")
    except ImportError as error:
        return None, f"the compiled extension geco_ext._C cannot be imported ({error})"
    compiled.set_torch(DTYPES, empty_like, torch.contiguous_format, torch.channels_last)
    return compiled, None


class Program(NamedTuple):
    """The compiled form of a constraint vector."""

    compiled: Any
    constraints: int


@lru_cache(maxsize=1024)
def program(terms: str, owners: tuple[int, ...]) -> Program:
    """The constraint vector as the extension knows it, built once."""
    parsed = parse_terms(terms)
    compiled = extension()[0].Program()
    for term, inputs in zip(parsed, inputs_of_terms(parsed, owners), strict=True):
        compiled.add(
            TERM_KINDS[term.kind],
            term.rows,
            inputs,
            term.mean,
            term.from_logits,
            term.log_gradient,
            SCALE_RULES[term.scale_rule],
            term.patch_size,
            min(term.stride, MAX_STRIDE),
            term.eps,
            term.per_channel,
        )
    return Program(compiled, sum(term.rows for term in parsed))


@lru_cache(maxsize=1024)
def compiled_update(settings: UpdateSettings) -> Any:
    """The multiplier update as the extension knows it, built once."""
    return extension()[0].MultiplierUpdate(
        settings.alpha,
        settings.lr,
        settings.proportional,
        settings.max_violation,
        VIOLATIONS[settings.violation],
        settings.accumulation_steps,
    )


def arguments(request: Request) -> tuple[Any, ...]:
    """The request in the order in which the extension's functions take it."""
    predictions, targets, kl, block, terms, owners, gradients, batch, image_elements, _ = request
    # A negated view (of a complex tensor) has its sign in a flag that an address does not show.
    return (
        program(terms, owners).compiled,
        [p.resolve_neg() for p in predictions],
        [t if t is None else t.resolve_neg() for t in targets],
        gradients,
        kl if kl is None else kl.resolve_neg(),
        block,
        batch,
        image_elements,
    )


def refuses_call(request: Request) -> str | None:
    """Why the extension cannot serve the request, or None."""
    for prediction in request.predictions:
        if prediction.dim() > MAX_RANK:
            return f"it takes tensors of at most {MAX_RANK} dimensions, got {prediction.dim()}"
    return None
