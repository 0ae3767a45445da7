from __future__ import annotations

import os


def torchrun_processes() -> int | None:
    """How many processes torchrun has started, this one among them; None where it has not started this one."""
    return int(os.environ["WORLD_SIZE"]) if "TORCHELASTIC_RUN_ID" in os.environ else None
