"""CelebA: 162770 training and 19962 test photographs of faces, aligned, 178x218 pixels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import numpy as np
import torch

from geco_ext.data.cache_folder import cache_folder
from geco_ext.data.celeba_files import IMAGES, PARTITION, ImageFiles, find_images
from geco_ext.data.download import RemoteFile, fetch
from geco_ext.data.image_dataset import ImageDataset
from geco_ext.data.mapped_array import mapped
from geco_ext.data.request import Request

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
