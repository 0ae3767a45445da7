"""MNIST: 60000 training and 10000 test images of handwritten digits, 28x28 pixels."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from geco_ext.data.cache_folder import cache_folder
from geco_ext.data.download import RemoteFile, fetch
from geco_ext.data.idx import read_idx
from geco_ext.data.image_dataset import ImageDataset
from geco_ext.data.own_files import checked_root, first_present
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
