"""Where downloads and prepared arrays are kept, and arrays that are made once and mapped into memory."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from geco_ext.files import replaced_when_written

ENVIRONMENT_VARIABLE = "GECO_EXT_DATA"


def cache_folder(name: str) -> Path:
    """Where downloads and prepared arrays of a data set are kept.

    ``$GECO_EXT_DATA/NAME``, without that variable the user's cache folder (``~/.cache/geco_ext/NAME`` on Linux).
    """
    import pooch

    return Path(os.environ.get(ENVIRONMENT_VARIABLE) or pooch.os_cache("geco_ext")).expanduser() / name


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Be the one process that writes ``path``, whose folder is made; others wait here until this one is done.

    The operating system gives the lock back when a process ends, however it ends.

    Raises:
        OSError: the folder cannot be written; the message says how to use another.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = (path.parent / f".{path.name}.lock").open("w")
    except OSError as error:
        raise OSError(
            f"{path.parent} cannot be written ({error.strerror}), and {path.name} is not there, or damaged; "
            f"set {ENVIRONMENT_VARIABLE} to a folder that can be written, or give the folder of files at hand as root"
        ) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def mapped(path: Path, make: Callable[[], tuple[tuple[int, ...], Iterator[np.ndarray]]]) -> np.ndarray:
    """The uint8 array in the ``.npy`` file ``path``, memory-mapped; made first where it is not there.

    ``make`` gives the shape and then the array in chunks, so that it never has to be in memory. The file appears
    under its name when it is whole, and one process makes it while others wait.

    Raises:
        ValueError: the file was damaged after it was made.
        OSError: the folder cannot be written, or is full.
    """
    if not path.is_file():
        with writing(path):
            if not path.is_file():
                _write(path, *make())
    # Copy on write: the file is only read, and torch need not be told that it must not write.
    try:
        array: np.ndarray = np.load(path, mmap_mode="c", allow_pickle=False)
    except ValueError as error:
        raise ValueError(f"{path} is truncated or corrupt: {error}; delete it, and it will be made again") from error
    return array


def _write(path: Path, shape: tuple[int, ...], chunks: Iterator[np.ndarray]) -> None:
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    with replaced_when_written(path) as temporary, temporary.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for chunk in chunks:
            # Written, not stored to a mapping: a full disk is then an error and not a killed process.
            file.write(np.ascontiguousarray(chunk).data)
