"""Trees of constants that a kernel is compiled for, in a form that every release of Triton takes apart.

Up to 3.7 a tuple found inside a constant has to hold numbers and types alone: no text, no None, no tuple.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import triton.language as tl


class Constants:
    """A tuple whose elements are constants too. Its hash, which each launch looks up, is computed once."""

    __slots__ = ("_hash", "_shown", "_values")

    def __init__(self, values: tuple[Any, ...]):
        self._values = tuple(tl.constexpr(Constants(v) if isinstance(v, tuple) else v) for v in values)
        self._shown = repr(tuple(value.value for value in self._values))
        self._hash = hash(self._shown)

    def __getitem__(self, index: Any) -> Any:
        return self._values[index]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Constants) and self._shown == other._shown)

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        return self._shown  # Triton knows compiled kernels by it
