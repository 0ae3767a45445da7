"""A user's own images: ``folder:PATH``."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor

from geco_ext.data.images import ImageDataset, as_bytes
from geco_ext.data.request import Request, Storage
from geco_ext.data.resize import centre_square, resize

if TYPE_CHECKING:
    from PIL import Image
    from tqdm import tqdm  # type: ignore[import-untyped]

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".pgm", ".ppm")
LEVELS = {"F": 1, "I": 65535, "I;16": 65535, "I;16L": 65535, "I;16B": 65535}
"""Value of white in Pillow's modes of more than 8 bits, all grey; converting them to L would clip, not scale."""

MIXED_SIZE = 64
"""Height and width in pixels that images of different sizes are brought to where none is asked for."""

EXIF_ORIENTATION, TURNED = 0x0112, (5, 6, 7, 8)
"""The tag, and its values for which height and width change places."""


class FolderWarning(UserWarning):
    """What was done about images that could not be taken as they are."""


class UnreadableImageError(ValueError):
    """A file with the name of an image that Pillow cannot read."""


def load_folder(path: Path, request: Request) -> ImageDataset:
    """Every image under ``path``, sorted by path; the label is the index of the sub-folder it lies in.

    An example's name is its path below ``path``.

    With a ``size`` the centre square of each image is resized. Without one images that all have one size keep it, and
    others are brought to 64x64 pixels, with a warning. An image that cannot be read is left out, with a warning that
    counts them; the others stay in the split they are in. Images stay in grey when every one of them is grey, otherwise
    all become RGB; photographs are turned as their EXIF data say. An alpha channel is dropped, with a warning that
    counts the images of which any part is transparent. Hidden files are skipped.

    Raises:
        FileNotFoundError: ``path`` is no folder.
        ValueError: no images, none that can be read (with ``strict``: one that cannot), or values outside the range of
            images.
    """
    if not path.is_dir():
        found = "a file" if path.exists() else "nothing"
        raise FileNotFoundError(f"data 'folder:{path}': expected a folder of images, found {found} there")
    files = _files(path)
    if not files:
        raise ValueError(f"data 'folder:{path}': no images there; expected files ending in {', '.join(SUFFIXES)}")
    classes = sorted({file.parent for file in files})
    chosen = request.part_of(files, f"folder:{path}")
    size = request.size or _common_size(path, files)
    images: list[Tensor] = []
    labels: list[int] = []
    names: list[str] = []
    unreadable: list[UnreadableImageError] = []
    transparent = 0
    for file in _with_progress(chosen, "reading images"):
        try:
            image, is_transparent = _read(file)
        except UnreadableImageError as error:
            if request.strict:
                raise
            unreadable.append(error)
            continue
        transparent += is_transparent
        images.append(_stored(_fitted(image, size), request.storage))
        labels.append(classes.index(file.parent))
        names.append(str(file.relative_to(path)))
    if not images:
        raise ValueError(f"data 'folder:{path}': none of the {len(chosen)} images can be read; {unreadable[0]}")
    if unreadable:
        counted = f"{len(unreadable)} of {len(chosen)} images ({request.split} split) left out"
        _warn(f"folder:{path}: {counted}: {unreadable[0]}{' (the first of them)' if len(unreadable) > 1 else ''}", 3)
    if transparent:
        counted = f"{transparent} of {len(chosen)} images ({request.split} split)"
        _warn(f"folder:{path}: {counted} have transparent parts: the alpha channel is dropped, the colours stay", 3)
    if len({len(image) for image in images}) > 1:
        images = [image.expand(3, -1, -1) for image in images]
    class_names = [str(folder.relative_to(path)) for folder in classes]
    return ImageDataset(torch.stack(images), torch.tensor(labels), class_names=class_names, names=names)


def command_size(path: Path) -> int | None:
    """Image size in pixels that commands use unless told otherwise: None, or 64 where sizes differ (with a warning)."""
    return _common_size(path, _files(path)) if path.is_dir() else None


def _warn(text: str, depth: int) -> None:
    """A warning at the caller of `load` or `command_size`, so many calls above this one."""
    warnings.warn(text, FolderWarning, stacklevel=depth + 1)


def _with_progress(files: Sequence[Path], what: str) -> tqdm[Path]:
    """A bar on a terminal, where it takes longer than two seconds."""
    from tqdm import tqdm

    return tqdm(files, desc=what, unit="image", leave=False, delay=2, disable=None)


def _files(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if _is_image(file))


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and file.is_file()


def _common_size(path: Path, files: Sequence[Path]) -> int | None:
    """None where all images have one size, of whatever split, and 64 where they differ; only headers are read."""
    found = {_pixels(file) for file in _with_progress(files, "looking at sizes")}
    sizes = sorted((size for size in found if size is not None), key=lambda size: size[0] * size[1])
    if len(sizes) < 2:
        return None
    smallest, largest = (f"{height}x{width}" for height, width in (sizes[0], sizes[-1]))
    _warn(
        f"folder:{path}: images of {len(sizes)} sizes, {smallest} to {largest} pixels: the centre square of each is "
        f"resized to {MIXED_SIZE}x{MIXED_SIZE} (size=, --size: another)",
        4,
    )
    return MIXED_SIZE


def _pixels(file: Path) -> tuple[int, int] | None:
    """Height and width as they are seen, or None where the header cannot be read."""
    from PIL import Image

    try:
        with Image.open(file) as image:
            width, height = image.size
            return (width, height) if image.getexif().get(EXIF_ORIENTATION) in TURNED else (height, width)
    except Exception:  # Pillow lets through whatever a broken file leads to
        return None


def _read(file: Path) -> tuple[Tensor, bool]:
    """One image, ``[1, H, W]`` if it is grey, ``[3, H, W]`` if not, in [0, 1]; and whether any of it is transparent."""
    from PIL import Image, ImageOps

    try:
        with Image.open(file) as opened:
            image = ImageOps.exif_transpose(opened)
            levels = LEVELS.get(image.mode, 255)
            is_transparent = _is_transparent(image)
            values = np.array(image if image.mode in LEVELS else image.convert(_mode_of(image)), dtype=np.float32)
    except Exception as error:  # Pillow lets through whatever a broken file leads to
        problem = str(error) or type(error).__name__
        raise UnreadableImageError(f"{file} cannot be read as an image: {problem}; replace or remove it") from error
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= levels):  # written so that NaN fails too
        raise ValueError(f"{file} holds values from {low:g} to {high:g}, expected 0 to {levels}")
    pixels = torch.from_numpy(values / levels).reshape(*values.shape[:2], -1).permute(2, 0, 1).contiguous()
    return pixels, is_transparent


def _is_transparent(image: Image.Image) -> bool:
    """Whether an image has an alpha channel, or a colour that stands for one, that is not opaque everywhere."""
    if not image.has_transparency_data or image.mode in LEVELS:
        return False
    alpha = image if "A" in image.getbands() else image.convert("RGBA")
    darkest, _ = alpha.getchannel("A").getextrema()
    return cast(float, darkest) < 255


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
