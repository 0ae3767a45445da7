"""What the caller of :func:`geco_ext.data.load` asked for, checked once for all data sets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

Split = Literal["train", "test"]
Storage = Literal["float32", "uint8"]

MAX_SIZE = 1024  # 1500 digits of 1024x1024 pixels take 6 GB
MAX_SEED = 2**32 - 1


@dataclass(frozen=True)
class Request:
    """One request for a data set.

    Attributes:
        split: which part.
        root: folder with the data set's files, for those that need one.
        size: height and width of the images in pixels; None is the native size.
        seed: seed of whatever the data set draws at random.
        storage: how values are kept in memory.

    Raises:
        ValueError: a value outside the range its message names.
    """

    split: Split = "train"
    root: Path | None = None
    size: int | None = None
    seed: int = 0
    storage: Storage = "float32"

    def __post_init__(self) -> None:
        if self.split not in ("train", "test"):
            raise ValueError(f"split must be 'train' or 'test', got {self.split!r}")
        for name in ("size", "seed"):
            value = getattr(self, name)
            if isinstance(value, np.integer):
                object.__setattr__(self, name, int(value))
        if self.size is not None and not (_is_integer(self.size) and 1 <= self.size <= MAX_SIZE):
            raise ValueError(f"size must be a positive integer (pixels, at most {MAX_SIZE}) or None, got {self.size!r}")
        if not (_is_integer(self.seed) and 0 <= self.seed <= MAX_SEED):
            raise ValueError(f"seed must be an integer >= 0 and at most {MAX_SEED}, got {self.seed!r}")
        if self.storage not in ("float32", "uint8"):
            raise ValueError(f"storage must be 'float32' or 'uint8', got {self.storage!r}")


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
