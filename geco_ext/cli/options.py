"""The options of a command, made from the fields of a dataclass of settings."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import Field, fields
from typing import Annotated, Any, Optional, get_args, get_origin, get_type_hints

import typer

from geco_ext.cli.failure import CommandFailure

Given = dict[str, Any]
"""Settings that were given, by name."""


def options_of(
    settings: type, groups: Mapping[str, Sequence[str]] | None = None
) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Give a command an option for each field of ``settings``, before those of its own.

    ``groups`` are the headings under which the help shows all of them, in this order, each with its options.

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

        parameters = [*options, *(each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own)]
        signature = inspect.Signature(_grouped(parameters, groups or {}))
        with_options.__signature__ = signature  # type: ignore[attr-defined]  # what Typer reads
        with_options.__annotations__ = {name: each.annotation for name, each in signature.parameters.items()}
        with_options.__name__, with_options.__doc__ = command.__name__, command.__doc__
        return with_options

    return decorated


def _grouped(options: list[inspect.Parameter], groups: Mapping[str, Sequence[str]]) -> list[inspect.Parameter]:
    """The options in the order of their groups, those of none at the end."""
    headings = {name: group for group, names in groups.items() for name in names}
    order = [*headings]
    return [
        each.replace(annotation=_under(headings.get(each.name), each.annotation))
        for each in sorted(options, key=lambda each: order.index(each.name) if each.name in headings else len(order))
    ]


def _under(heading: str | None, annotation: Any) -> Any:
    hint, option = get_args(annotation)
    option = copy(option)  # several commands may share it
    option.rich_help_panel = heading
    return Annotated[hint, option]


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
