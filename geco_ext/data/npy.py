"""A user's own array: ``npy:PATH``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from geco_ext.data.images import ImageDataset, StoredImages
from geco_ext.data.request import Request
from geco_ext.data.resize import centre_square, prepare

CHANNELS = (1, 3, 4)  # that images have


def load_npy(path: Path, request: Request) -> ImageDataset:
    """Images of an ``.npy`` file: ``[N, H, W]`` or ``[N, C, H, W]``, uint8 or floating point in [0, 1]; labels are 0.

    NaN marks pixels that are not known: examples then have a ``weight``. With a ``size`` the centre square of each
    image is resized, and what touches an unknown pixel is unknown. An array of uint8 or float32 that needs no resizing
    stays in its file, memory-mapped.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not an array file, or another shape, type or range of values.
    """
    array = _read(path)
    if array.ndim not in (3, 4) or 0 in array.shape:
        raise ValueError(f"data 'npy:{path}': expected shape [N, H, W] or [N, C, H, W], got {list(array.shape)}")
    if array.ndim == 4 and array.shape[3] in CHANNELS and array.shape[1] not in CHANNELS:
        raise ValueError(
            f"data 'npy:{path}': expected shape [N, C, H, W], got {list(array.shape)}, which looks like [N, H, W, C]; "
            "save array.transpose(0, 3, 1, 2)"
        )
    rows = torch.tensor(request.part_of(range(len(array)), f"npy:{path}"))
    has_missing = _check_values(path, array)
    if has_missing and request.storage == "uint8":
        raise ValueError(f"data 'npy:{path}': got NaN among the values, expected none where images are kept as uint8")
    if array.ndim == 3:
        array = array[:, None]
    is_of_size = request.size is None or array.shape[2:] == (request.size, request.size)
    if is_of_size and array.dtype in (np.uint8, np.float32) and array.flags.c_contiguous:
        images = StoredImages(torch.from_numpy(array), rows)
    else:
        chosen = array[rows.numpy()]
        kept = chosen if chosen.dtype == np.uint8 else chosen.astype(np.float32)
        pixels = torch.from_numpy(np.ascontiguousarray(kept))
        images = StoredImages(prepare(pixels if request.size is None else centre_square(pixels), request))
    return ImageDataset(images, torch.zeros(len(images), dtype=torch.int64), has_missing=has_missing)


def _check_values(path: Path, array: np.ndarray) -> bool:
    """Whether values are missing."""
    if array.dtype == np.uint8:
        return False
    if not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"data 'npy:{path}': expected uint8 or floating point values, got {array.dtype}")
    low, high = float(np.fmin.reduce(array, axis=None)), float(np.fmax.reduce(array, axis=None))  # NaN left out
    if not (low >= 0 and high <= 1):  # written so that NaN alone fails too
        raise ValueError(f"data 'npy:{path}': expected values in [0, 1], got {low:g} to {high:g}")
    return bool(np.isnan(array.min()))


def _read(path: Path) -> np.ndarray:
    if not path.is_file():
        raise FileNotFoundError(f"data 'npy:{path}': no such file")
    with path.open("rb") as file:
        if file.read(len(np.lib.format.MAGIC_PREFIX)) != np.lib.format.MAGIC_PREFIX:
            raise ValueError(f"data 'npy:{path}' is not an .npy file")
    try:
        array: np.ndarray = np.load(path, mmap_mode="c", allow_pickle=False)  # read only: a copy on write
    except Exception as error:  # the header is parsed as Python, which fails in many ways
        raise ValueError(f"data 'npy:{path}' cannot be read as an .npy array: {error}") from error
    return array
