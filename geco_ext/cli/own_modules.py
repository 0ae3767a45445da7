"""Where commands find modules of a user's own."""

from __future__ import annotations

import sys


def find_modules_here() -> None:
    """Have `module:Class` mean a module in the current folder, as `python -m` does."""
    if "" not in sys.path:
        sys.path.insert(0, "")
