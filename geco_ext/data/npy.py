"""A user's own array: ``npy:PATH``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from geco_ext.data.image_dataset import ImageDataset
from geco_ext.data.own_split import own_split
from geco_ext.data.request import Request
from geco_ext.data.resize import resize


def load_npy(path: Path, request: Request) -> ImageDataset:
    """Images of an ``.npy`` file: ``[N, H, W]`` or ``[N, C, H, W]``, uint8 or floating point in [0, 1]; labels are 0.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not an array file, or another shape, type or range of values.
    """
    array = _read(path)
    if array.ndim not in (3, 4) or 0 in array.shape:
        raise ValueError(f"data 'npy:{path}': expected shape [N, H, W] or [N, C, H, W], got {list(array.shape)}")
    indices = own_split(range(len(array)), request.split)
    if not indices:
        raise ValueError(f"data 'npy:{path}': {len(array)} images are too few for a {request.split!r} split")
    if array.dtype == np.uint8:
        images = torch.from_numpy(array[indices].astype(np.float32) / 255)
    elif np.issubdtype(array.dtype, np.floating):
        low, high = float(array.min()), float(array.max())
        if not (low >= 0 and high <= 1):  # written so that NaN fails too
            raise ValueError(f"data 'npy:{path}': expected values in [0, 1], got {low:g} to {high:g}")
        images = torch.from_numpy(array[indices].astype(np.float32))
    else:
        raise ValueError(f"data 'npy:{path}': expected uint8 or floating point values, got {array.dtype}")
    if images.dim() == 3:
        images = images.unsqueeze(1)
    return ImageDataset(resize(images, request.size), torch.zeros(len(images), dtype=torch.int64))


def _read(path: Path) -> np.ndarray:
    if not path.is_file():
        raise FileNotFoundError(f"data 'npy:{path}': no such file")
    with path.open("rb") as file:
        if file.read(len(np.lib.format.MAGIC_PREFIX)) != np.lib.format.MAGIC_PREFIX:
            raise ValueError(f"data 'npy:{path}' is not an .npy file")
    try:
        array: np.ndarray = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"data 'npy:{path}' cannot be read as an .npy array: {error}") from error
    return array
