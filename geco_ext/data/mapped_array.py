from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from geco_ext.data.cache_folder import writing
from geco_ext.training.atomic_file import replaced_when_written


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
