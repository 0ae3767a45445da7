"""What the caller of :func:`geco_ext.data.load` asked for, checked once for all data sets."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np

Split = Literal["train", "test"]
Storage = Literal["float32", "uint8"]
Example = TypeVar("Example")

MAX_SIZE = 1024  # 1500 digits of 1024x1024 pixels take 6 GB
MAX_SEED = 2**32 - 1
TEST_EVERY = 10


class EmptySplitError(ValueError):
    """A user's own examples are too few for a split."""


@dataclass(frozen=True)
class Request:
    """One request for a data set.

    Attributes:
        split: which part.
        root: folder with the data set's files, for those that need one.
        size: height and width of the images in pixels; None is the native size.
        seed: seed of whatever the data set draws at random.
        storage: how values are kept in memory.
        strict: whether an image of a user's own that cannot be read is an error, not left out.

    Raises:
        ValueError: a value outside the range its message names.
    """

    split: Split = "train"
    root: Path | None = None
    size: int | None = None
    seed: int = 0
    storage: Storage = "float32"
    strict: bool = False

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

    def random(self, purpose: str) -> np.random.RandomState:
        """Random numbers of their own for each seed, split and purpose, whatever else draws.

        NumPy keeps the numbers of ``RandomState`` the same in all its versions (NEP 19); those of its newer generators
        and of ``torch.randperm`` may change.

        Example:
            >>> Request(seed=0).random("colours").randint(100, size=3).tolist()
            [80, 69, 83]
        """
        return np.random.RandomState([self.seed, int(self.split == "test"), zlib.crc32(purpose.encode())])

    def part_of(self, examples: Sequence[Example], data: str) -> list[Example]:
        """Those of a user's own examples that the split has: every tenth is for testing, in the order they come.

        Taking them at equal distances keeps both parts representative where the order follows the classes, and the
        same example stays on the same side whatever the seed.

        Raises:
            EmptySplitError: too few examples for the split.
        """
        chosen = [
            example
            for index, example in enumerate(examples)
            if (index % TEST_EVERY == TEST_EVERY - 1) == (self.split == "test")
        ]
        if not chosen:
            count = f"{len(examples)} {'image is' if len(examples) == 1 else 'images are'}"
            raise EmptySplitError(f"data {data!r}: {count} too few for a {self.split!r} split")
        return chosen


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
