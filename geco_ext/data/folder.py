"""A user's own images: ``folder:PATH``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from geco_ext.data.image_dataset import ImageDataset
from geco_ext.data.own_split import own_split
from geco_ext.data.request import Request, Storage
from geco_ext.data.resize import resize
from geco_ext.data.stored_images import as_bytes

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm")
GREY_MODES = ("1", "L", "I", "I;16", "I;16L", "I;16B")


def load_folder(path: Path, request: Request) -> ImageDataset:
    """Every image under ``path``, sorted by path; the label is the index of the sub-folder it lies in.

    With a ``size`` the centre square of each image is resized; without one all must be of one size. Images stay
    in grey when every one of them is grey, otherwise all become RGB.

    Raises:
        FileNotFoundError: ``path`` is no folder.
        ValueError: no images, an unreadable one, or different sizes and no ``size``.
    """
    if not path.is_dir():
        raise FileNotFoundError(f"data 'folder:{path}': expected a folder of images, found none there")
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
    if not files:
        raise ValueError(f"data 'folder:{path}': no images there; expected files ending in {', '.join(SUFFIXES)}")
    classes = sorted({file.parent for file in files})
    chosen = own_split(files, request.split)
    if not chosen:
        raise ValueError(f"data 'folder:{path}': {len(files)} images are too few for a {request.split!r} split")
    images = [_stored(_fitted(_read(file), request.size), request.storage) for file in chosen]
    _check_one_size(chosen, images)
    if len({len(image) for image in images}) > 1:
        images = [image.expand(3, -1, -1) for image in images]
    labels = torch.tensor([classes.index(file.parent) for file in chosen])
    return ImageDataset(torch.stack(images), labels)


def _read(file: Path) -> Tensor:
    """One image, ``[1, H, W]`` if it is grey, ``[3, H, W]`` if not, in [0, 1]."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file) as image:
            if image.mode not in GREY_MODES:
                return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).to(torch.float32) / 255
            # 16-bit files come as mode I or I;16; converting those to L would clip them, not scale them.
            levels = 65535 if image.mode.startswith("I") else 255
            grey = np.array(image if levels == 65535 else image.convert("L"), dtype=np.float32)
            return torch.from_numpy(grey / levels).unsqueeze(0)
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise ValueError(f"{file} cannot be read as an image: {error}") from error


def _fitted(image: Tensor, size: int | None) -> Tensor:
    """The centre square at ``size`` pixels, or the image as it is."""
    if size is None:
        return image
    height, width = image.shape[-2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = image[:, top : top + side, left : left + side]
    return resize(square.unsqueeze(0), size).squeeze(0)


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
