"""IDX, the format of MNIST: a magic number, the size of each dimension, then the values."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import IO, cast

import numpy as np

GZIP_MAGIC = b"\x1f\x8b"
UNSIGNED_BYTE = 8
MAX_VALUES = 2**30


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """The bytes of an IDX file, gzip-compressed or not, as uint8 with that many dimensions.

    Source: "The IDX file format", http://yann.lecun.com/exdb/mnist.

    Raises:
        ValueError: the file is truncated, corrupt, or something else; the message says what was found.
    """
    with path.open("rb") as file:
        compressed = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
    try:
        with gzip.open(path) if compressed else path.open("rb") as file:
            return _read(path, cast(IO[bytes], file), dimensions)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ValueError(f"{path} is truncated or corrupt: {error}; fetch it again") from error


def _read(path: Path, file: IO[bytes], dimensions: int) -> np.ndarray:
    header = file.read(4 * (1 + dimensions))
    expected = bytes([0, 0, UNSIGNED_BYTE, dimensions])
    if header[:4] != expected:
        raise ValueError(
            f"{path} is no IDX file of bytes with {dimensions} dimensions: "
            f"it begins with {header[:4].hex() or 'nothing'}, expected {expected.hex()}; fetch it again"
        )
    if len(header) < 4 * (1 + dimensions):
        raise ValueError(f"{path} is truncated: it ends within its header; fetch it again")
    shape = struct.unpack(f">{dimensions}I", header[4:])
    count = math.prod(shape)
    if count > MAX_VALUES:
        raise ValueError(f"{path} is corrupt: its header speaks of {'x'.join(map(str, shape))} values; fetch it again")
    values = file.read(count + 1)  # one more than there should be, to see whether there is
    if len(values) != count:
        found = f"{len(values)}" if len(values) < count else "more"
        raise ValueError(f"{path} holds {found} bytes of values, expected {'x'.join(map(str, shape))}; fetch it again")
    return np.frombuffer(values, dtype=np.uint8).reshape(shape)
