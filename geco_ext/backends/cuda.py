"""Being written."""


def unavailable() -> str | None:
    """Why this backend cannot run here, or None."""
    return "it is being written"
