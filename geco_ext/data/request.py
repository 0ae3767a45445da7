"""What the caller of :func:`geco_ext.data.load` asked for, checked once for all data sets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Split = Literal["train", "test"]


@dataclass(frozen=True)
class Request:
    """One request for a data set.

    Attributes:
        split: which part.
        root: folder with the data set's files, for those that need one.
        size: height and width of the images in pixels; None is the native size.
        seed: seed of whatever the data set draws at random.

    Raises:
        ValueError: a value outside the range its message names.
    """

    split: Split = "train"
    root: Path | None = None
    size: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.split not in ("train", "test"):
            raise ValueError(f"split must be 'train' or 'test', got {self.split!r}")
        if self.size is not None and (not isinstance(self.size, int) or isinstance(self.size, bool) or self.size < 1):
            raise ValueError(f"size must be a positive integer (pixels) or None, got {self.size!r}")
        if not isinstance(self.seed, int) or isinstance(self.seed, bool) or self.seed < 0:
            raise ValueError(f"seed must be an integer >= 0, got {self.seed!r}")
