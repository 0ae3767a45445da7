"""CelebA: 162770 training and 19962 test photographs of faces, aligned, 178x218 pixels; in a folder or an archive."""

from __future__ import annotations

import hashlib
import os
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from io import BytesIO
from pathlib import Path

import numpy as np
import torch

from geco_ext.data.cache import cache_folder, mapped
from geco_ext.data.download import RemoteFile, checked_root, fetch, first_present
from geco_ext.data.images import ImageDataset
from geco_ext.data.request import Request, Split

IMAGES = "img_align_celeba"
PARTITION = "list_eval_partition.txt"
PARTS: Mapping[Split, str] = {"train": "0", "test": "2"}  # 1 is for validation
LAST_TRAINING, LAST_VALIDATION = 162770, 182637  # numbers of images, where there is no partition file
ARCHIVE = RemoteFile(
    f"{IMAGES}.zip",
    "md5:00d2c5bc6d35e252742224ab0c1e8fcb",
    (
        "https://s3-us-west-1.amazonaws.com/udacity-dlnfd/datasets/celeba.zip",
        "https://drive.usercontent.google.com/download?id=0B7EVK8r0v71pZjFTYXZWM3FlRnM&export=download&confirm=t",
    ),
)
SIDE = 178  # pixels of the largest square in an aligned image
CHUNK = 1024


def load_celeba(request: Request) -> ImageDataset:
    """The centre square of each face, resized, in one memory-mapped array of bytes; all labels are 0.

    The array is made once for each size (some minutes) and kept in the cache folder. Whatever ``storage`` says,
    values stay bytes in that file and become float32 batch by batch. ``size=None`` is 178x178, 15 GB for training.

    Source: Liu, Luo, Wang and Tang, https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html, with their partition.

    Raises:
        FileNotFoundError: no images in ``root``.
        ValueError: ``size`` larger than a square of the images; a file that cannot be read; no image in the split.
        OSError: without ``root``, a download that failed; a cache folder that cannot be written.
    """
    size = SIDE if request.size is None else request.size
    if size > SIDE:
        raise ValueError(f"size must be at most {SIDE}, the largest square in an image of 'celeba', got {size}")
    folder = cache_folder("celeba")
    files = None if request.root is None else find_images(request.root)
    origin = hashlib.sha256((ARCHIVE.checksum if files is None else files.fingerprint()).encode()).hexdigest()[:16]

    def make() -> tuple[tuple[int, ...], Iterator[np.ndarray]]:
        images = files or find_images(fetch(ARCHIVE, folder).parent)
        names = images.of_split(request.split)
        if not names:
            raise ValueError(
                f"data 'celeba': none of the {len(images)} images in {images.path} is for {request.split}; expected "
                f"000001.jpg to 202599.jpg, or names that {images.partition or PARTITION + ' beside them'} lists"
            )
        return (len(names), 3, size, size), _squares(images, names, size)

    pixels = torch.from_numpy(mapped(folder / f"{request.split}-{size}-{origin}.npy", make))
    return ImageDataset(pixels, torch.zeros(len(pixels), dtype=torch.int64))


def _squares(images: ImageFiles, names: list[str], size: int) -> Iterator[np.ndarray]:
    """Chunks of ``[n, 3, size, size]`` bytes; images are decoded on all cores, Pillow lets go of the lock for it."""
    from tqdm import tqdm  # type: ignore[import-untyped]

    with (
        ThreadPoolExecutor() as pool,
        tqdm(total=len(names), desc=f"celeba at {size}x{size}", unit="images", disable=None) as bar,
    ):
        for first in range(0, len(names), CHUNK):
            chunk = names[first : first + CHUNK]
            yield np.stack(list(pool.map(lambda name: _square(images, name, size), chunk)))
            bar.update(len(chunk))


def _square(images: ImageFiles, name: str, size: int) -> np.ndarray:
    from PIL import Image

    content = images.read(name)
    try:
        with Image.open(BytesIO(content)) as image:
            side = min(image.size)
            left, top = (image.width - side) // 2, (image.height - side) // 2
            # Cut before it is resized: with a box, the kernel would reach beyond the square.
            square = image.convert("RGB").crop((left, top, left + side, top + side))
            square = square.resize((size, size), Image.Resampling.BILINEAR)
    except Exception as error:  # Pillow lets through whatever a broken file leads to
        raise ValueError(f"{name} in {images.path} cannot be read as an image: {error}; fetch it again") from error
    return np.asarray(square).transpose(2, 0, 1)


class ImageFiles:
    """Files named ``000001.jpg`` and so on, in a folder."""

    def __init__(self, path: Path, partition: Path | None) -> None:
        self.path = path
        self.partition = partition

    @cached_property
    def names(self) -> list[str]:
        """Names of the images, sorted."""
        return sorted(entry.name for entry in os.scandir(self.path) if entry.name.endswith(".jpg"))

    def __len__(self) -> int:
        return len(self.names)

    def read(self, name: str) -> bytes:
        """The bytes of one image."""
        return (self.path / name).read_bytes()

    def of_split(self, split: Split) -> list[str]:
        """Names of the images for training or testing, by the partition file or, without one, the published one."""
        parts = {} if self.partition is None else _read_partition(self.partition)
        return [name for name in self.names if (parts.get(name) if parts else _part(name)) == PARTS[split]]

    def fingerprint(self) -> str:
        """A text that differs where the images may: path, names, sizes and times."""
        stats = [(name, (self.path / name).stat()) for name in self.names]
        files = [f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in stats]
        return "\n".join([str(self.path.resolve()), _text(self.partition), *files])


class ZippedImages(ImageFiles):
    """The same in a zip archive, read without unpacking it."""

    @cached_property
    def _archive(self) -> zipfile.ZipFile:
        try:
            return zipfile.ZipFile(self.path)
        except (zipfile.BadZipFile, OSError) as error:
            raise ValueError(f"{self.path} is truncated or corrupt: {error}; fetch it again") from error

    @cached_property
    def names(self) -> list[str]:
        """Names of the images in the archive, sorted."""
        return sorted(Path(name).name for name in self._archive.namelist() if name.endswith(".jpg"))

    @cached_property
    def _member(self) -> dict[str, str]:
        return {Path(name).name: name for name in self._archive.namelist()}

    def read(self, name: str) -> bytes:
        """The bytes of one image."""
        try:
            return self._archive.read(self._member[name])
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:  # RuntimeError: it is encrypted
            raise ValueError(f"{name} in {self.path} cannot be read: {error}; fetch it again") from error

    def fingerprint(self) -> str:
        """A text that differs where the archive may: path, size and time."""
        stat = self.path.stat()
        return f"{self.path.resolve()} {stat.st_size} {stat.st_mtime_ns}\n{_text(self.partition)}"


def find_images(root: Path) -> ImageFiles:
    """The images in ``root``: a folder or zip archive ``img_align_celeba``, or the images themselves.

    Raises:
        FileNotFoundError: none are there.
    """
    root = checked_root("celeba", root)
    loose = [next(root.glob("*.jpg")).name] if any(root.glob("*.jpg")) else []
    found = first_present("celeba", root, [IMAGES, f"celeba/{IMAGES}", f"{IMAGES}.zip", *loose], Path.exists)
    partition = next((path for path in (root / PARTITION, found.parent / PARTITION) if path.is_file()), None)
    images = (
        ZippedImages(found, partition)
        if found.suffix == ".zip"
        else ImageFiles(found if found.is_dir() else root, partition)
    )
    if not len(images):
        raise FileNotFoundError(f"data 'celeba': no images (000001.jpg...) in {images.path}")
    return images


def _part(name: str) -> str | None:
    number = Path(name).stem
    if not (number.isascii() and number.isdecimal()):
        return None
    return "0" if int(number) <= LAST_TRAINING else "1" if int(number) <= LAST_VALIDATION else "2"


def _read_partition(path: Path) -> dict[str, str]:
    lines = [line.split() for line in path.read_text(errors="replace").splitlines() if line.strip()]
    if not lines or any(len(line) != 2 or line[1] not in ("0", "1", "2") for line in lines):
        raise ValueError(f"{path} is no partition of CelebA: expected lines like '000001.jpg 0'; fetch it again")
    return dict(lines)


def _text(path: Path | None) -> str:
    return "" if path is None else path.read_text(errors="replace")
