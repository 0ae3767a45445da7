"""Names of data sets and what loads them. A new data set is one more entry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast

from geco_ext.data.celeba import load_celeba
from geco_ext.data.cifar10 import load_cifar10
from geco_ext.data.derived import VARIANTS, DigitSource
from geco_ext.data.digits import load_digits, read_digits
from geco_ext.data.folder import command_size as folder_command_size
from geco_ext.data.folder import load_folder
from geco_ext.data.images import ImageDataset
from geco_ext.data.mnist import load_mnist, read_mnist
from geco_ext.data.npy import load_npy
from geco_ext.data.patches import load_patches
from geco_ext.data.request import Request, Split, Storage
from geco_ext.extras import needed_by
from geco_ext.nearest import did_you_mean


@dataclass(frozen=True)
class Source:
    """A data set with a name of its own.

    Attributes:
        load: makes the data set for a request.
        command_size: image size in pixels that commands use unless told otherwise; None is the native size.
        about: what it is, in a line.
    """

    load: Callable[[Request], ImageDataset]
    command_size: int | None = None
    about: str = ""


def _about(variant: Callable[[DigitSource, Request], ImageDataset]) -> str:
    """The first line of its docstring, without its name and without markup."""
    first = (variant.__doc__ or "").partition("\n")[0].replace("``", "")
    text = first.partition(": ")[2].strip()
    return text[:1].upper() + text[1:]


SOURCES: dict[str, Source] = {
    "digits": Source(load_digits, 16, "scikit-learn's handwritten digits, embedded: 1500 to train, 297 to test."),
    "patches": Source(load_patches, 32, "Crops of scikit-learn's sample photographs, embedded."),
    "mnist": Source(  # 28 can be halved twice only
        load_mnist, 32, "Handwritten digits, 60000 to train and 10000 to test; from --root, or downloaded."
    ),
    "cifar10": Source(
        load_cifar10, 32, "Photographs of ten kinds of things, 50000 and 10000; from --root, or downloaded."
    ),
    "celeba": Source(load_celeba, 64, "Faces, 162770 and 19962; from --root, or downloaded."),
}

DIGIT_SOURCES: dict[str, DigitSource] = {"digits": read_digits, "mnist": read_mnist}

SOURCES |= {
    pattern.format(name): Source(partial(variant, source), SOURCES[name].command_size, _about(variant))
    for name, source in DIGIT_SOURCES.items()
    for pattern, variant in VARIANTS.items()
}

PATH_SOURCES: dict[str, Callable[[Path, Request], ImageDataset]] = {
    "folder": load_folder,
    "npy": load_npy,
}


def load(
    name: str,
    split: str = "train",
    root: str | Path | None = None,
    size: int | None = None,
    seed: int = 0,
    storage: str = "float32",
    strict: bool = False,
) -> ImageDataset:
    """A data set, ready to give single examples or batches.

    ``digits``
        scikit-learn's handwritten digits, embedded: the first 1500 train, the other 297 test.
    ``patches``
        crops of scikit-learn's sample photographs, embedded; those for testing come from a part of their own.
    ``mnist``, ``cifar10``, ``celeba``
        from the files in ``root``; without it downloaded once, to ``$GECO_EXT_DATA`` or the user's cache folder.
    ``color-D``, ``D-triplets``, ``D-sum``, ``D-sum-hard``, ``D-rotate``, ``micro-D``
        the paper's variants of D, which is ``digits`` or ``mnist``: see `geco_ext.data.derived`.
    ``folder:PATH``, ``npy:PATH``
        a user's own images or array, of which every tenth example is for testing.

    Args:
        name: one of the above.
        split: ``train`` or ``test``; no image is in both, or part of examples in both.
        root: folder with the files of data sets that are not embedded.
        size: height and width in pixels; None is the native size (digits 8, patches 32, mnist 28, cifar10 32,
            celeba 178; a folder's own where all images have one size, else 64).
        seed: seed of whatever is drawn at random. The same seed gives the same data on every machine.
        storage: how values are kept in memory: ``float32``, or ``uint8``, a quarter of that, rounded to 256 levels.
            CelebA and arrays of a user's own that need no resizing stay in their file, memory-mapped, as they are.
        strict: stop at an image of ``folder:`` that cannot be read; otherwise such images are left out, with a warning.

    Returns:
        Items are dicts: ``x`` float32 [C, H, W] in [0, 1], ``label`` an int (a tuple (l0, l1, l2) for what is
        made of triplets), ``context`` float32 [C', H, W] where models are conditional. Indexing with a tensor of
        indices gives a batch.

    Raises:
        ValueError: an unknown name (the message lists the known ones), split, size, seed or storage; unusable data.
        FileNotFoundError: a path that is not there.
        OSError: a download that failed, a folder that cannot be written.

    Example:
        >>> import geco_ext.data
        >>> dataset = geco_ext.data.load("digits", size=16)
        >>> len(dataset), dataset[0]["x"].shape, dataset[0]["label"]
        (1500, torch.Size([1, 16, 16]), 0)
        >>> item = geco_ext.data.load("digits-sum", size=16)[0]
        >>> item["context"].shape, item["x"].shape, item["label"]
        (torch.Size([2, 16, 16]), torch.Size([1, 16, 16]), (5, 0, 5))
    """
    # Request refuses any other split and storage.
    request = Request(
        cast(Split, split),
        None if root is None else Path(root).expanduser(),
        size,
        seed,
        cast(Storage, storage),
        strict,
    )
    kind, separator, path = name.partition(":")
    if separator and kind in PATH_SOURCES and path:
        return PATH_SOURCES[kind](Path(path).expanduser(), request)
    if name in SOURCES:
        with needed_by("downloads"):
            return SOURCES[name].load(request)
    known = ", ".join(known_names())
    raise ValueError(f"unknown data set {name!r}{_meant(name)}; known are {known}; geco list data says what they are")


def _meant(name: str) -> str:
    """What an unknown name may have stood for: a path without the kind of data before it, or another spelling."""
    _, separator, path = name.partition(":")
    if separator:
        return did_you_mean(name, [f"{each}:{path or 'PATH'}" for each in PATH_SOURCES])
    place = Path(name).expanduser()
    found = "folder" if place.is_dir() else "npy" if place.is_file() and place.suffix == ".npy" else None
    if found is not None and name not in PATH_SOURCES:
        return f" (did you mean '{found}:{name}'?)"
    return did_you_mean(name, known_names())


def command_size(name: str) -> int | None:
    """Image size in pixels that commands use for a data set unless told otherwise; None is the native size.

    For ``folder:PATH`` the images are looked at: where their sizes differ it is 64, with a warning.
    """
    kind, separator, path = name.partition(":")
    if separator and kind == "folder" and path:
        return folder_command_size(Path(path).expanduser())
    return SOURCES[name].command_size if name in SOURCES else None


ABOUT_PATHS = {
    "folder": "Images in a folder of one's own; sub-folders are classes. Turned by EXIF, no alpha, grey if all are.",
    "npy": "An array of one's own, [N, H, W] or [N, C, H, W], bytes or floating point in [0, 1].",
}


def about_data() -> dict[str, str]:
    """What the data sets are, in a line each, by the names that :func:`load` understands."""
    return {
        **{name: source.about for name, source in SOURCES.items()},
        **{f"{kind}:PATH": ABOUT_PATHS[kind] for kind in PATH_SOURCES},
    }


def known_names() -> tuple[str, ...]:
    """Names that :func:`load` understands."""
    return (*SOURCES, *(f"{kind}:PATH" for kind in PATH_SOURCES))
