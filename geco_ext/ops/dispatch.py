"""Which backend serves a call, and which calls go to it without passing PyTorch's dispatcher.

Each device has an order of preference. What the best backend refuses goes to the next one, with a warning that says
why, once; ``use_backend`` and ``GECO_EXT_BACKEND`` name one backend for every call.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from geco_ext import backends
from geco_ext.backends.base import ENVIRONMENT_VARIABLE, PLAIN_TYPES, Backend
from geco_ext.contract import LossCall

# Best first. PyTorch calls AMD's GPUs cuda too; the compiled kernels are NVIDIA's alone.
_PREFERENCE = {
    "cpu": ("cpu", "reference"),
    "cuda": ("triton", "reference") if torch.version.hip else ("cuda", "triton", "reference"),
}


# Plain calls ----------------------------------------------------------------------------------------------------------


def is_plain(*tensors: Tensor | None) -> bool:
    """Whether kernels may read and write the tensors' memory.

    Not while a compiler or a dispatch mode looks on, and not where a tensor has no memory of its own: subclasses
    (FakeTensor, DTensor), tensors of ``torch.func`` transforms (vmap, jvp) and batched gradients, functional, sparse,
    zero and meta tensors. Such calls take the declared operators, which PyTorch knows how to run.
    """
    if is_watched():
        return False
    try:
        for tensor in tensors:
            if tensor is None:
                continue
            if type(tensor) not in PLAIN_TYPES or (tensor.data_ptr() == 0 and tensor.numel() > 0):
                return False
    except RuntimeError:  # a tensor without storage
        return False
    return True


def is_watched() -> bool:
    """Whether a compiler or a dispatch mode looks at the operators that run now."""
    return torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack() > 0


# Backends of this machine ---------------------------------------------------------------------------------------------


@cache
def unavailable(name: str) -> str | None:
    """Why the backend cannot run on this machine, or None."""
    return backends.load(name).unavailable()


def available_backends() -> tuple[str, ...]:
    """Names of the backends that can run on this machine.

    Example:
        >>> "reference" in available_backends()
        True
    """
    return tuple(name for name in backends.NAMES if unavailable(name) is None)


def describe() -> list[tuple[str, bool, str]]:
    """(name, available, why not or what it is) of every backend, for ``geco info``."""
    return [
        (name, unavailable(name) is None, unavailable(name) or backends.load(name).description)
        for name in backends.NAMES
    ]


class BackendUnavailable(RuntimeError):  # noqa: N818 - named for what is told
    """A backend that is known was asked for and cannot run on this machine."""


def _require(name: str, asker: str = "") -> str:
    reason = unavailable(name)
    if reason is not None:
        raise BackendUnavailable(f"{asker}backend {name!r} cannot run here: {reason}")
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


def asked_for() -> str | None:
    """Name of the backend that is, by ``use_backend`` or the environment variable."""
    return _forced[0] or os.environ.get(ENVIRONMENT_VARIABLE)


def _backend_asked_for() -> Backend | None:
    name = asked_for()
    asker = "" if _forced[0] else f"environment variable {ENVIRONMENT_VARIABLE}: "
    return backends.load(_require(name, asker)) if name else None


# Who serves a call ----------------------------------------------------------------------------------------------------


class Choice(NamedTuple):
    """The backend that serves a call, and why no better one does."""

    name: str
    passed_over: tuple[tuple[str, str], ...]  # (name, reason), best first


def choose(call: LossCall) -> Choice:
    """What serves a call of the loss where no backend is asked for."""
    passed_over: list[tuple[str, str]] = []
    for name in _PREFERENCE.get(call.block.device.type, ("reference",)):
        reason = unavailable(name) or backends.load(name).refuses(call)
        if reason is None:
            return Choice(name, tuple(passed_over))
        passed_over.append((name, " ".join(reason.split())))
    return Choice("reference", tuple(passed_over))


def select(call: LossCall) -> Backend:
    """What serves a call of the loss; where it is not the best one for the device, a warning says why, once.

    Raises:
        RuntimeError: the backend asked for cannot.
    """
    forced = _backend_asked_for()
    if forced is not None:
        _raise_if_refused(forced.name, forced.refuses(call))
        return forced
    choice = choose(call)
    if choice.passed_over and choice not in _warned:
        _warn(choice)
    return backends.load(choice.name)


def select_for_models(leader: Tensor) -> Backend:
    """What serves an operator of models on tensors like this one.

    Raises:
        RuntimeError: the backend asked for cannot.
    """
    forced = _backend_asked_for()
    if forced is not None:
        _raise_if_refused(forced.name, forced.refuses_device(leader.device) or forced.refuses_dtype(leader.dtype))
        return forced
    best = best_for(leader.device)
    return backends.load("reference") if best.refuses_dtype(leader.dtype) else best


def select_for_scaling(device: torch.device) -> Backend:
    """What multiplies gradient buffers: the backend asked for where it knows the device, or the best."""
    forced = asked_for()
    if forced and unavailable(forced) is None and backends.load(forced).refuses_device(device) is None:
        return backends.load(forced)
    return best_for(device)


def is_asked_for() -> bool:
    """Whether a backend is, inside ``use_backend``. One-call steps ask here; for the variable they look themselves."""
    return _forced[0] is not None


@cache
def best_for(device: torch.device) -> Backend:
    """The first backend of the order of preference that runs on the device."""
    for name in _PREFERENCE.get(device.type, ()):
        if unavailable(name) is None and backends.load(name).refuses_device(device) is None:
            return backends.load(name)
    return backends.load("reference")


def _raise_if_refused(name: str, reason: str | None) -> None:
    if reason is not None:
        raise RuntimeError(f"backend {name!r} cannot serve this call: {reason}")


_warned: set[Choice] = set()


def _warn(choice: Choice) -> None:
    reasons = "; ".join(f"backend {name!r} cannot serve it: {reason}" for name, reason in choice.passed_over)
    warnings.warn(f"a GECO loss runs on backend {choice.name!r}, {reasons}", RuntimeWarning, stacklevel=2)
    _warned.add(choice)
