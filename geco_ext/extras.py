"""Packages that only parts of geco_ext need, and what to say where one is not installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

PACKAGES = {"lightning", "tensorboard", "matplotlib", "pooch", "requests", "typer", "yaml"}
"""Top-level modules of the extra ``train``; requests comes with pooch."""

INSTALL = 'pip install ".[train]" in a clone of geco_ext'


def is_missing(error: ModuleNotFoundError) -> bool:
    """Whether it is a package of an extra that was not found."""
    return (error.name or "").partition(".")[0] in PACKAGES


def missing(name: str | None, user: str) -> str:
    """One line that says what to install, ``user`` being what needs it, in the plural."""
    return f"{name} is not installed; {user} need: {INSTALL}"


@contextmanager
def needed_by(user: str) -> Iterator[None]:
    """Where a package of an extra is not found, an error that says what to install.

    Raises:
        ModuleNotFoundError: with that message, and the package's name.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if not is_missing(error):
            raise
        raise ModuleNotFoundError(missing(error.name, user), name=error.name) from error
