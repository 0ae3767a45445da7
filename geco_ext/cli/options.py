"""The options of a command, made from the fields of a dataclass of settings."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import Field, fields
from typing import Annotated, Any, Optional, get_origin, get_type_hints

import typer

from geco_ext.cli.failure import CommandFailure

Given = dict[str, Any]
"""Settings that were given, by name."""


def options_of(settings: type) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Give a command an option for each field of ``settings``, before those of its own.

    The command is called with the settings that were given, as its first argument: what is left out has a default
    elsewhere, that of the dataclass or of a run that is resumed.
    """
    hints = get_type_hints(settings)
    options = [_option(each, hints[each.name]) for each in fields(settings)]
    names = [each.name for each in options]

    def decorated(command: Callable[..., int]) -> Callable[..., int]:
        own = [*inspect.signature(command, eval_str=True).parameters.values()][1:]

        def with_options(**values: Any) -> int:
            given = {name: values.pop(name) for name in names}
            return command({name: _parsed(hints[name], v) for name, v in given.items() if v is not None}, **values)

        signature = inspect.Signature([*options, *(each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own)])
        with_options.__signature__ = signature  # type: ignore[attr-defined]  # what Typer reads
        with_options.__annotations__ = {name: each.annotation for name, each in signature.parameters.items()}
        with_options.__name__, with_options.__doc__ = command.__name__, command.__doc__
        return with_options

    return decorated


def _option(of: Field[Any], hint: Any) -> inspect.Parameter:
    about = of.metadata
    flags = [about["flag"]] if "flag" in about else []
    shown = about["shown"] or False
    option = typer.Option(*flags, help=about["help"], metavar=about.get("metavar"), show_default=shown)
    return inspect.Parameter(
        of.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[_option_type(hint), option]
    )


def _option_type(hint: Any) -> Any:
    """The type that Typer reads an option as: several values are a list of texts."""
    return Optional[list[str] if get_origin(hint) in (tuple, Mapping) else hint]  # noqa: UP045 - for `list[str]` too


def _parsed(hint: Any, value: Any) -> Any:
    if get_origin(hint) is tuple:
        return tuple(value)
    return dict(map(_named_integer, value)) if get_origin(hint) is Mapping else value


def _named_integer(text: str) -> tuple[str, int]:
    name, _, number = text.partition("=")
    try:
        return name, int(number)
    except ValueError:
        raise CommandFailure(f"model option must be NAME=INTEGER, got {text!r}") from None
