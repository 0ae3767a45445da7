"""The four implementations of the operator contract, and which one serves a call.

``reference`` (plain PyTorch, float64, any device), ``cpu`` (C++), ``cuda`` (compiled kernels), ``triton`` (just in
time). Each is a module of this package with the functions of :class:`Backend`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from typing import Protocol, cast

import torch
from torch import Tensor

from geco_ext.backends.native import refuses_terms
from geco_ext.terms import Request, UpdateSettings

NAMES = ("cpu", "cuda", "triton", "reference")

# Best first.
_PREFERENCE = {"cpu": ("cpu", "reference"), "cuda": ("cuda", "triton", "reference")}

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


def select(request: Request) -> Backend:
    """The backend that serves a call."""
    forced = _forced[0] or os.environ.get(ENVIRONMENT_VARIABLE)
    if forced:
        backend = load(_require(forced))
        reason = backend.refuses(request)
        if reason is not None:
            raise RuntimeError(f"backend {forced!r} cannot serve this call: {reason}")
        return backend
    for backend in _candidates(request.block.device.type):
        if backend.refuses(request) is None:
            return backend
    return load("reference")


def image_step(
    terms: str, update: UpdateSettings, x_hat: Tensor, x: Tensor, kl: Tensor, block: Tensor
) -> tuple[Tensor, Tensor | None, Tensor | None] | None:
    """The usual training step of a criterion that looks at images alone, as one call into the extension.

    Returns the loss and its gradients by kl and x_hat; or None where something is not usual (what is asked for, where
    the tensors are, bad input) and the call has to take the way of all calls.
    """
    plain = type(x_hat) in _PLAIN and type(x) in _PLAIN and type(kl) in _PLAIN
    if not plain or _forced[0] is not None or ENVIRONMENT_VARIABLE in os.environ:
        return None
    if not _cpu_kernels_cover(terms) or torch._C._len_torch_dispatch_stack() > 0:
        return None
    return load("cpu").image_step(terms, update, x_hat, x, kl, block)  # type: ignore[attr-defined, no-any-return]


_PLAIN = (Tensor, torch.nn.Parameter)


@cache
def _cpu_kernels_cover(terms: str) -> bool:
    return unavailable("cpu") is None and refuses_terms(terms, load("cpu").MISSING) is None  # type: ignore[attr-defined]


def select_for_scaling(device: torch.device) -> Backend:
    """The backend that multiplies gradient buffers: a forced one that knows the device, or the best."""
    if _forced[0] is not None and load(_forced[0]).refuses_device(device) is None:
        return load(_forced[0])
    return _best_for(device)


@cache
def _best_for(device: torch.device) -> Backend:
    candidates = _candidates(device.type)
    return next((b for b in candidates if b.refuses_device(device) is None), load("reference"))


@cache
def _candidates(device_type: str) -> tuple[Backend, ...]:
    names = _PREFERENCE.get(device_type, ("reference",))
    return tuple(load(name) for name in names if unavailable(name) is None)
