"""How commands end when they cannot do what they were asked to."""

from __future__ import annotations

FAILURE_EXIT_CODE = 2
INTERRUPTED_EXIT_CODE = 130  # what a shell reports for a process that Ctrl-C ended

TRACEBACK = "GECO_EXT_TRACEBACK"
"""Environment variable that has errors of geco's own show where they come from."""


class CommandFailure(Exception):  # noqa: N818 - named for what `geco` reports, in one line
    """A command cannot do what it was asked to; the message is the line its user reads."""


class CommandInterrupted(Exception):  # noqa: N818 - an interruption is no error
    """Ctrl-C has ended a command; the message is what its user reads behind "interrupted", None: it was said."""
