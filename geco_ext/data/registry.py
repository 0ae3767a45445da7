"""Names of data sets and what loads them. A new data set is one more entry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from geco_ext.data.digits import load_digits
from geco_ext.data.folder import load_folder
from geco_ext.data.image_dataset import ImageDataset
from geco_ext.data.npy import load_npy
from geco_ext.data.patches import load_patches
from geco_ext.data.request import Request, Split


@dataclass(frozen=True)
class Source:
    """A data set with a name of its own.

    Attributes:
        load: makes the data set for a request.
        command_size: image size in pixels that commands use unless told otherwise; None is the native size.
    """

    load: Callable[[Request], ImageDataset]
    command_size: int | None = None


SOURCES: dict[str, Source] = {
    "digits": Source(load_digits, command_size=16),
    "patches": Source(load_patches, command_size=32),
}

PATH_SOURCES: dict[str, Callable[[Path, Request], ImageDataset]] = {
    "folder": load_folder,
    "npy": load_npy,
}


def load(
    name: str, split: str = "train", root: str | Path | None = None, size: int | None = None, seed: int = 0
) -> ImageDataset:
    """A data set held in memory.

    Args:
        name: ``digits`` (scikit-learn's handwritten digits, the first 1500 train, the other 297 test), ``patches``
            (crops of scikit-learn's sample photographs), ``folder:PATH`` (images) or ``npy:PATH`` (an array). Of a
            user's own examples every tenth is for testing.
        split: ``train`` or ``test``.
        root: folder with the files of data sets that are not embedded.
        size: height and width in pixels; None is the native size (digits 8, patches 32).
        seed: seed of whatever is drawn at random (the positions of patches).

    Returns:
        Items are dicts: ``x`` float32 [C, H, W] in [0, 1], ``label`` an int, ``context`` where models are
        conditional. Indexing with a tensor of indices gives a batch.

    Raises:
        ValueError: an unknown name (the message lists the known ones), split, size or seed; unusable data.
        FileNotFoundError: a path that is not there.

    Example:
        >>> import geco_ext.data
        >>> dataset = geco_ext.data.load("digits", size=16)
        >>> len(dataset), dataset[0]["x"].shape, dataset[0]["label"]
        (1500, torch.Size([1, 16, 16]), 0)
    """
    # Request refuses any other split.
    request = Request(cast(Split, split), None if root is None else Path(root), size, seed)
    kind, separator, path = name.partition(":")
    if separator and kind in PATH_SOURCES and path:
        return PATH_SOURCES[kind](Path(path).expanduser(), request)
    if name in SOURCES:
        return SOURCES[name].load(request)
    raise ValueError(f"unknown data set {name!r}; known are {', '.join(known_names())}")


def command_size(name: str) -> int | None:
    """Image size in pixels that commands use for a data set unless told otherwise; None is the native size."""
    return SOURCES[name].command_size if name in SOURCES else None


def known_names() -> tuple[str, ...]:
    """Names that :func:`load` understands."""
    return (*SOURCES, *(f"{kind}:PATH" for kind in PATH_SOURCES))
