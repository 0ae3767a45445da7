"""A user's own images: ``folder:PATH``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from geco_ext.data.images import ImageDataset, as_bytes
from geco_ext.data.request import Request, Storage
from geco_ext.data.resize import centre_square, resize

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm")
LEVELS = {"F": 1, "I": 65535, "I;16": 65535, "I;16L": 65535, "I;16B": 65535}
"""Value of white in Pillow's modes of more than 8 bits, all grey; converting them to L would clip, not scale."""


def load_folder(path: Path, request: Request) -> ImageDataset:
    """Every image under ``path``, sorted by path; the label is the index of the sub-folder it lies in.

    With a ``size`` the centre square of each image is resized; without one all must be of one size. Images stay
    in grey when every one of them is grey, otherwise all become RGB; photographs are turned as their EXIF data say,
    transparency is left out. Hidden files are skipped.

    Raises:
        FileNotFoundError: ``path`` is no folder.
        ValueError: no images, an unreadable one, values outside the range of images, or different sizes and no
            ``size``.
    """
    if not path.is_dir():
        found = "a file" if path.exists() else "nothing"
        raise FileNotFoundError(f"data 'folder:{path}': expected a folder of images, found {found} there")
    files = sorted(file for file in path.rglob("*") if _is_image(file))
    if not files:
        raise ValueError(f"data 'folder:{path}': no images there; expected files ending in {', '.join(SUFFIXES)}")
    classes = sorted({file.parent for file in files})
    chosen = request.part_of(files, f"folder:{path}")
    images = [_stored(_fitted(_read(file), request.size), request.storage) for file in chosen]
    _check_one_size(chosen, images)
    if len({len(image) for image in images}) > 1:
        images = [image.expand(3, -1, -1) for image in images]
    labels = torch.tensor([classes.index(file.parent) for file in chosen])
    return ImageDataset(torch.stack(images), labels)


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and file.is_file()


def _read(file: Path) -> Tensor:
    """One image, ``[1, H, W]`` if it is grey, ``[3, H, W]`` if not, in [0, 1]."""
    from PIL import Image, ImageOps

    try:
        with Image.open(file) as opened:
            image = ImageOps.exif_transpose(opened)
            levels = LEVELS.get(image.mode, 255)
            values = np.array(image if image.mode in LEVELS else image.convert(_mode_of(image)), dtype=np.float32)
    except Exception as error:  # Pillow lets through whatever a broken file leads to
        problem = str(error) or type(error).__name__
        raise ValueError(f"{file} cannot be read as an image: {problem}; replace or remove it") from error
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= levels):  # written so that NaN fails too
        raise ValueError(f"{file} holds values from {low:g} to {high:g}, expected 0 to {levels}")
    return torch.from_numpy(values / levels).reshape(*values.shape[:2], -1).permute(2, 0, 1).contiguous()


def _mode_of(image: Image.Image) -> str:
    """Grey or RGB."""
    if image.mode in ("P", "PA"):  # a palette may hold greys alone
        red, green, blue = image.convert("RGB").split()
        return "L" if red == green == blue else "RGB"
    return "L" if image.mode in ("1", "L", "LA", "La") else "RGB"


def _fitted(image: Tensor, size: int | None) -> Tensor:
    """The centre square at ``size`` pixels, or the image as it is."""
    if size is None:
        return image
    return resize(centre_square(image).unsqueeze(0), size).squeeze(0)


def _stored(image: Tensor, storage: Storage) -> Tensor:
    return as_bytes(image) if storage == "uint8" else image


def _check_one_size(files: list[Path], images: list[Tensor]) -> None:
    first = images[0].shape[-2:]
    for file, image in zip(files, images, strict=True):
        if image.shape[-2:] != first:
            raise ValueError(
                f"{file} has {image.shape[-2]}x{image.shape[-1]} pixels, {files[0]} has {first[0]}x{first[1]}; "
                "images of different sizes need a size"
            )
