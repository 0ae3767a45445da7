"""MNIST: 60000 training and 10000 test images of handwritten digits, 28x28 pixels, in files of the format IDX."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import IO, cast

import numpy as np
import torch
from torch import Tensor

from geco_ext.data.cache import cache_folder
from geco_ext.data.download import RemoteFile, checked_root, fetch, first_present
from geco_ext.data.images import ImageDataset
from geco_ext.data.request import Request, Split
from geco_ext.data.resize import prepare

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
SHA256 = {
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
FILES = {
    name: RemoteFile(name, f"sha256:{digest}", tuple(m + name for m in MIRRORS)) for name, digest in SHA256.items()
}
NAMES: dict[Split, tuple[str, str]] = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}

GZIP_MAGIC = b"\x1f\x8b"
UNSIGNED_BYTE = 8
MAX_VALUES = 2**30


def load_mnist(request: Request) -> ImageDataset:
    """MNIST in the order of its files; ``size=None`` is 28x28.

    Source: LeCun, Cortes and Burges, http://yann.lecun.com/exdb/mnist.

    Raises:
        FileNotFoundError: a file that is not in ``root``.
        ValueError: one that is truncated, corrupt or of another format.
        OSError: without ``root``, a download that failed.
    """
    return ImageDataset(*read_mnist(request))


def read_mnist(request: Request) -> tuple[Tensor, Tensor]:
    """Images ``[N, 1, H, W]`` and labels ``[N]``."""
    image_file, label_file = (_file(name, request.root) for name in NAMES[request.split])
    images, labels = read_idx(image_file, 3), read_idx(label_file, 1)
    if len(images) == 0 or images.shape[1] != images.shape[2]:
        raise ValueError(f"{image_file} holds {'x'.join(map(str, images.shape))} values, expected square images")
    if len(images) != len(labels):
        raise ValueError(f"{image_file} holds {len(images)} images, but {label_file} {len(labels)} labels")
    if labels.max() > 9:
        raise ValueError(f"{label_file} holds a label {labels.max()}, expected digits from 0 to 9")
    pixels = torch.tensor(images).unsqueeze(1)
    return prepare(pixels, request), torch.tensor(labels, dtype=torch.int64)


def _file(name: str, root: Path | None) -> Path:
    if root is None:
        return fetch(FILES[name], cache_folder("mnist"))
    plain = name.removesuffix(".gz")
    # As published, unpacked, and where torchvision puts them.
    candidates = (folder + each for folder in ("", "MNIST/raw/") for each in (name, plain))
    return first_present("mnist", checked_root("mnist", root), candidates)


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
