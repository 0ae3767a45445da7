from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path


def checked_root(name: str, root: Path) -> Path:
    """The folder that a user gave for a data set.

    Raises:
        FileNotFoundError: it is not there.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"data {name!r}: root {root} is not a folder")
    return root


def first_present(
    name: str, root: Path, candidates: Iterable[str], is_there: Callable[[Path], bool] = Path.is_file
) -> Path:
    """The first of some files under ``root`` that is there; ``is_there`` tells what counts.

    Raises:
        FileNotFoundError: none is.
    """
    candidates = list(candidates)
    for candidate in candidates:
        if is_there(root / candidate):
            return root / candidate
    raise FileNotFoundError(
        f"data {name!r}: found none of {', '.join(candidates)} in {root}; put one of them there, or leave out root "
        "to download it"
    )
