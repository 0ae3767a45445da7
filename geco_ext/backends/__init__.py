"""The four implementations of the operators, each a module with an object ``BACKEND``, loaded when first asked for."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import cast

from geco_ext.backends.base import Backend

NAMES = ("cpu", "cuda", "triton", "reference")


@cache
def load(name: str) -> Backend:
    """The backend of that name, whether it can run here or not."""
    if name not in NAMES:
        raise ValueError(f"backend: got {name!r}, expected one of {', '.join(NAMES)}")
    return cast(Backend, import_module(f"geco_ext.backends.{name}").BACKEND)
