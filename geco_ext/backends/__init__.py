"""The four implementations of the operator contract, and which one serves a call.

``reference`` (plain PyTorch, float64, any device), ``cpu`` (C++), ``cuda`` (compiled kernels), ``triton`` (just in
time). Each is a module of this package with the functions of :class:`Backend`.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from typing import NamedTuple, Protocol, cast

import torch
from torch import Tensor

from geco_ext.terms import Made, Request, UpdateSettings

NAMES = ("cpu", "cuda", "triton", "reference")

# Best first. PyTorch calls AMD's GPUs cuda too; the compiled kernels are NVIDIA's alone.
_PREFERENCE = {
    "cpu": ("cpu", "reference"),
    "cuda": ("triton", "reference") if torch.version.hip else ("cuda", "triton", "reference"),
}

_DTYPES = frozenset({torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64})  # int64: labels

ENVIRONMENT_VARIABLE = "GECO_EXT_BACKEND"


class Backend(Protocol):
    """The operator contract."""

    def unavailable(self) -> str | None:
        """Why this backend cannot run here, or None."""

    def refuses_device(self, device: torch.device) -> str | None:
        """Why this backend cannot compute on the device, or None."""

    def refuses(self, request: Request) -> str | None:
        """Why this backend cannot serve the request, or None."""

    def lagrangian(self, request: Request) -> Tensor:
        """Loss, 0-d; the gradients are written, and with ``request.update`` the state moves."""

    def constraint_sums(self, request: Request) -> Tensor:
        """Float64 [L + 1]: sums over the batch of the constraint vector, number of examples; writes the gradients."""

    def update_from_sums(self, request: Request, sums: Tensor, world_size: int) -> tuple[Tensor, Tensor]:
        """The rest of a step, from sums over all processes: the loss and the factor that all gradients need."""

    def scale_gradients(self, gradients: Sequence[Tensor], outputs: Sequence[Tensor], factor: Tensor) -> None:
        """``outputs[i] = gradients[i] * factor``, rounded once."""

    def scale_gradients_in_place(self, gradients: list[Tensor], factor: Tensor) -> None:
        """``gradients[i] *= factor``; a factor of one costs nothing."""


@cache
def load(name: str) -> Backend:
    """The backend module of that name, whether it can run here or not."""
    if name not in NAMES:
        raise ValueError(f"backend: got {name!r}, expected one of {', '.join(NAMES)}")
    return cast(Backend, import_module(f"geco_ext.backends.{name}"))


@cache
def unavailable(name: str) -> str | None:
    """Why the backend cannot run on this machine, or None."""
    return load(name).unavailable()


def available_backends() -> tuple[str, ...]:
    """Names of the backends that can run on this machine.

    Example:
        >>> "reference" in available_backends()
        True
    """
    return tuple(name for name in NAMES if unavailable(name) is None)


def describe() -> list[tuple[str, bool, str]]:
    """(name, available, why not or what it is) of every backend, for ``geco info``."""
    what = {
        "cpu": "C++ kernels",
        "cuda": "compiled CUDA kernels",
        "triton": "just-in-time kernels",
        "reference": "plain PyTorch, float64",
    }
    return [(name, unavailable(name) is None, unavailable(name) or what[name]) for name in NAMES]


def _require(name: str) -> str:
    reason = unavailable(name)
    if reason is not None:
        raise RuntimeError(f"backend {name!r} cannot run here: {reason}")
    return name


# One choice for the whole process: a backward pass runs on threads of its own and must see it too.
_forced: list[str | None] = [None]


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Serve every call inside the ``with`` block by one backend; it goes before ``GECO_EXT_BACKEND``.

    Raises:
        ValueError: no backend has that name.
        RuntimeError: the backend cannot run on this machine (on entry), or cannot serve a call (at the call).

    Example:
        >>> with use_backend("reference"):
        ...     pass
    """
    previous = _forced[0]
    _forced[0] = _require(name)
    try:
        yield
    finally:
        _forced[0] = previous


class Choice(NamedTuple):
    """The backend that serves a call, and why no better one does."""

    name: str
    passed_over: tuple[tuple[str, str], ...]  # (name, reason), best first


def choose(request: Request) -> Choice:
    """What serves a call where no backend is asked for."""
    passed_over: list[tuple[str, str]] = []
    for name in _PREFERENCE.get(request.block.device.type, ("reference",)):
        reason = unavailable(name) or _refuses(name, request)
        if reason is None:
            return Choice(name, tuple(passed_over))
        passed_over.append((name, " ".join(reason.split())))
    return Choice("reference", tuple(passed_over))


def select(request: Request) -> Backend:
    """The backend that serves a call; where it is not the best one for the device, a warning has said why, once."""
    forced = _asked_for()
    if forced:
        backend = load(_require(forced))
        reason = _refuses(forced, request)
        if reason is not None:
            raise RuntimeError(f"backend {forced!r} cannot serve this call: {reason}")
        return backend
    choice = choose(request)
    if choice.passed_over and choice not in _warned:
        _warn(choice)
    return load(choice.name)


def select_for(device: torch.device, dtype: torch.dtype) -> str:
    """Name of the backend that serves calls on tensors like that which every backend knows: kernels of models.

    Raises:
        RuntimeError: the backend asked for cannot.
    """
    forced = _asked_for()
    if not forced:
        return _best_name(device) if dtype in _DTYPES else "reference"
    reason = load(_require(forced)).refuses_device(device)
    if reason is None and forced != "reference" and dtype not in _DTYPES:
        reason = f"it takes float16, bfloat16, float32 and float64, got {dtype}"
    if reason is not None:
        raise RuntimeError(f"backend {forced!r} cannot serve this call: {reason}")
    return forced


def _asked_for() -> str | None:
    return _forced[0] or os.environ.get(ENVIRONMENT_VARIABLE)


def _refuses(name: str, request: Request) -> str | None:
    return load(name).refuses(request) or (None if name == "reference" else _refuses_dtypes(request))


def _refuses_dtypes(request: Request) -> str | None:
    for tensor in (*request.predictions, *request.targets, request.kl):
        if tensor is not None and tensor.dtype not in _DTYPES:
            return f"it takes float16, bfloat16, float32 and float64, got {tensor.dtype}"
    return None


_warned: set[Choice] = set()


def _warn(choice: Choice) -> None:
    reasons = "; ".join(f"backend {name!r} cannot serve it: {reason}" for name, reason in choice.passed_over)
    warnings.warn(f"a GECO loss runs on backend {choice.name!r}, {reasons}", RuntimeWarning, stacklevel=2)
    _warned.add(choice)


def image_step(
    terms: str, update: UpdateSettings | None, x_hat: Tensor, x: Tensor, kl: Tensor, block: Tensor
) -> Made | None:
    """The usual call of a criterion that looks at images alone, as one call into the extension.

    None where something is not usual (what is asked for, where the tensors are, bad input, more than a kernel takes):
    nothing has moved then, and the call has to take the way of all calls.
    """
    plain = type(x_hat) in _PLAIN and type(x) in _PLAIN and type(kl) in _PLAIN
    if not plain or _forced[0] is not None or torch._C._len_torch_dispatch_stack() > 0:
        return None
    step = getattr(_best_for(block.device), "image_step", None)  # the compiled backends have it
    return None if step is None else step(terms, update, x_hat, x, kl, block)


def image_step_backward(kl_gradient: Tensor | None, image_gradient: Tensor | None, incoming: Tensor) -> bool:
    """Multiply the gradients of :func:`image_step` by the incoming one, in place, as one call into the extension.

    False where another backend is asked for now: nothing has been done then.
    """
    if _forced[0] is not None:
        return False
    scale = getattr(_best_for(incoming.device), "image_step_backward", None)
    return scale is not None and scale(kl_gradient, image_gradient, incoming)


_PLAIN = (Tensor, torch.nn.Parameter)


def select_for_scaling(device: torch.device) -> Backend:
    """The backend that multiplies gradient buffers: one asked for that knows the device, or the best."""
    forced = _asked_for()
    if forced and unavailable(forced) is None and load(forced).refuses_device(device) is None:
        return load(forced)
    return _best_for(device)


@cache
def _best_for(device: torch.device) -> Backend:
    return load(_best_name(device))


@cache
def _best_name(device: torch.device) -> str:
    names = _PREFERENCE.get(device.type, ("reference",))
    can = (name for name in names if unavailable(name) is None and load(name).refuses_device(device) is None)
    return next(can, "reference")
