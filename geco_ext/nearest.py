"""What somebody may have meant by a name that is not known."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping


def did_you_mean(name: str, known: Iterable[str], usage: Mapping[str, str] | None = None) -> str:
    """The known name that is nearest, whatever the case of its letters, as words that stand behind the unknown one.

    ``usage`` has, for some of the names, how they are written.

    Example:
        >>> did_you_mean("convdrow", ["nvp", "convdraw"])
        " (did you mean 'convdraw'?)"
        >>> did_you_mean("elephant", ["nvp", "convdraw"])
        ''
    """
    spelled = {each.lower(): each for each in known}
    nearest = difflib.get_close_matches(name.lower(), spelled, n=1)
    if not nearest:
        return ""
    meant = spelled[nearest[0]]
    return f" (did you mean {(usage or {}).get(meant, meant)!r}?)"
