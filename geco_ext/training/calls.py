"""Calls as text, in Python's syntax: ``PatchNCC(kappa=0.9, patch_size=4)``, of a user's own ``mine.py:Mine(0.1)``."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any


class UnreadableText(ValueError):  # noqa: N818 - named for what it tells of
    """A text that names nothing known or cannot be read; the message is complete."""


@dataclass(frozen=True)
class Call:
    """What is called, and with which literals.

    Attributes:
        name: of a class, or of a class method with a dot.
        arguments: the positional arguments.
        named: the keyword arguments.
        place: module or file of a user's own class, empty for the package's.

    Example:
        >>> str(Call("Mine", (0.1,), {"patch_size": 4}, "mine.py"))
        'mine.py:Mine(0.1, patch_size=4)'
    """

    name: str
    arguments: tuple[Any, ...] = ()
    named: Mapping[str, Any] = field(default_factory=dict)
    place: str = ""

    def __str__(self) -> str:
        arguments = [*map(repr, self.arguments), *(f"{name}={value!r}" for name, value in self.named.items())]
        return f"{self.place}{':' if self.place else ''}{self.name}({', '.join(arguments)})"


def parse_call(text: str) -> Call:
    """A call from its text; nothing in it is run.

    Raises:
        ValueError: no call, or an argument that is no literal.

    Example:
        >>> parse_call("PatchNCC(0.9, patch_size=4)")
        Call(name='PatchNCC', arguments=(0.9,), named={'patch_size': 4}, place='')
        >>> parse_call("runs (1)/mine.py:Mine()").place
        'runs (1)/mine.py'
    """
    for place, expression in _divided(text):
        try:
            call = ast.parse(expression.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        if isinstance(call, ast.Call) and all(part.isidentifier() for part in ast.unparse(call.func).split(".")):
            arguments = tuple(_literal(f"argument {number}", node) for number, node in enumerate(call.args, start=1))
            if any(node.arg is None for node in call.keywords):
                raise ValueError("** cannot be read, each argument has a name of its own")
            named = {str(node.arg): _literal(str(node.arg), node.value) for node in call.keywords}
            return Call(ast.unparse(call.func), arguments, named, place)
    raise ValueError("it cannot be read as a call, Name(argument=1)")


def _divided(text: str) -> Iterator[tuple[str, str]]:
    """Place and call for every colon that may stand between them; first the text without a place."""
    yield "", text
    for index, character in enumerate(text):
        if character == ":":
            yield text[:index], text[index + 1 :]


def _literal(name: str, node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, RecursionError, MemoryError):
        raise ValueError(f"{name} must be a literal, such as 0.1 or 'file.pt', got {ast.unparse(node)}") from None
