from __future__ import annotations

import zlib

import numpy as np

from geco_ext.data.request import Split


def random_stream(seed: int, split: Split, purpose: str) -> np.random.RandomState:
    """Random numbers of their own for each seed, split and purpose, whatever else draws.

    NumPy keeps the numbers of ``RandomState`` the same in all its versions (NEP 19); those of its newer generators
    and of ``torch.randperm`` may change.

    Example:
        >>> random_stream(0, "train", "colours").randint(100, size=3).tolist()
        [80, 69, 83]
    """
    return np.random.RandomState([seed, int(split == "test"), zlib.crc32(purpose.encode())])
