"""What somebody may have meant by a name that is not known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The known name that is nearest, whatever the case of its letters, as words that stand behind the unknown one.

    Example:
        >>> did_you_mean("convdrow", ["nvp", "convdraw"])
        " (did you mean 'convdraw'?)"
        >>> did_you_mean("elephant", ["nvp", "convdraw"])
        ''
    """
    spelled = {each.lower(): each for each in known}
    nearest = difflib.get_close_matches(name.lower(), spelled, n=1)
    return f" (did you mean {spelled[nearest[0]]!r}?)" if nearest else ""
