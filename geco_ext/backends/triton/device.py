"""What launches need to know of a device, and of Triton's interpreter in its place."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any

import torch

FUSED = {"enable_fp_fusion": True}  # of every launch: later releases multiply and add apart unless told so


def power_of_two(count: int) -> int:
    """The next power of two."""
    return 1 << max(count - 1, 0).bit_length()


@cache
def is_interpreted() -> bool:
    """Whether kernels run in Triton's interpreter, on the CPU."""
    return os.environ.get("TRITON_INTERPRET", "0") == "1"


def on_device(device: torch.device) -> AbstractContextManager[Any]:
    """Launches inside the ``with`` block go there."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


@cache
def multiprocessors(device: torch.device) -> int:
    """How many a device has; interpreted, as good as a few."""
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 4
