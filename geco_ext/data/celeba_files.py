"""The images of CelebA, in a folder or in the archive as it is published."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

from geco_ext.data.own_files import checked_root, first_present
from geco_ext.data.request import Split

IMAGES = "img_align_celeba"
PARTITION = "list_eval_partition.txt"
PARTS: Mapping[Split, str] = {"train": "0", "test": "2"}  # 1 is for validation
LAST_TRAINING, LAST_VALIDATION = 162770, 182637  # numbers of images, where there is no partition file


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
