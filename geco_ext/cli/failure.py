"""How commands end when they cannot do what they were asked to."""

from __future__ import annotations

FAILURE_EXIT_CODE = 2
INTERRUPTED_EXIT_CODE = 130  # what a shell reports for a process that Ctrl-C ended


class CommandFailure(Exception):  # noqa: N818 - named for what `geco` reports, in one line
    """A command cannot do what it was asked to; the message is the line its user reads."""
