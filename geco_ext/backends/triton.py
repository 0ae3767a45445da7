"""Just-in-time kernels for GPUs that the compiled extension does not serve."""

from __future__ import annotations


def unavailable() -> str | None:
    """Why this backend cannot run here, or None."""
    return "its kernels are not part of this version"
