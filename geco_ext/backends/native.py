"""What the two compiled backends share: the extension module and how a call is handed to it."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from geco_ext.terms import Request, UpdateSettings, inputs_of_terms, parse_terms

# The numbers are those of the enums in csrc/call.h and csrc/math/multiplier.h.
DTYPES = {torch.float32: 0, torch.float64: 1, torch.float16: 2, torch.bfloat16: 3, torch.int64: 4}
TERM_KINDS = {"squared_error": 0, "class_probability": 1, "scalar": 2}
SCALE_RULES = {"kappa^2": 0, "1-kappa": 1, "own": 2}
VIOLATIONS = {"log": 0, "relative": 1, "raw": 2}

MAX_RANK = 8


@lru_cache(maxsize=1)
def extension() -> tuple[Any, str | None]:
    """The compiled module and None, or None and why it cannot be loaded."""
    try:
        from geco_ext import _C
    except ImportError as error:
        return None, f"the compiled extension geco_ext._C cannot be imported ({error})"
    return _C, None


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
            TERM_KINDS[term.kind], term.rows, inputs, term.mean, term.from_logits, SCALE_RULES[term.scale_rule]
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


def tensor_tuple(tensor: Tensor) -> tuple[int, int, torch.Size, tuple[int, ...]]:
    """(address, type, sizes, strides), the extension's view of a tensor."""
    return tensor.data_ptr(), DTYPES[tensor.dtype], tensor.shape, tensor.stride()


@lru_cache(maxsize=1024)
def _unknown_kinds(terms: str) -> str | None:
    unknown = sorted({term.kind for term in parse_terms(terms)} - TERM_KINDS.keys())
    return f"it has no kernel for {', '.join(unknown)} yet" if unknown else None


def refuses_terms(request: Request) -> str | None:
    """Why the extension cannot serve the request, or None."""
    for prediction in request.predictions:
        if prediction.dim() > MAX_RANK:
            return f"it takes tensors of at most {MAX_RANK} dimensions, got {prediction.dim()}"
    return _unknown_kinds(request.terms)
