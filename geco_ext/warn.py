"""Warnings that point at the user's line, however many frames of libraries lie between."""

from __future__ import annotations

import sys
import warnings
from types import FrameType

LIBRARIES = {"geco_ext", "torch", "lightning", "pytorch_lightning"}


def warn_user(message: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the innermost line that belongs to none of the `LIBRARIES`, which call each other in between."""
    frame: FrameType | None = sys._getframe(1)
    level = 2
    while frame is not None and _is_of_libraries(frame):
        frame = frame.f_back
        level += 1
    warnings.warn(message, category, stacklevel=level)


def _is_of_libraries(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).partition(".")[0] in LIBRARIES
