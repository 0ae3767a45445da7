from __future__ import annotations


class CommandFailure(Exception):  # noqa: N818 - named for what `geco` reports, in one line
    """A command cannot do what it was asked to; the message is the line its user reads."""
