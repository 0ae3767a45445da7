"""`geco data`: look at a data set."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from geco_ext.cli.failure import CommandFailure
from geco_ext.training.settings import FOLDER, SIZE, STRICT

if TYPE_CHECKING:
    from geco_ext.data import ImageDataset

Integer = Optional[int]  # noqa: UP045 - typer reads these at run time, on Python 3.10 too
Folder = Optional[Path]  # noqa: UP045


def data(
    name: Annotated[
        str, typer.Argument(help=f"Data set, as in geco train --data; an unknown one lists the known. {FOLDER}")
    ],
    size: Annotated[Integer, typer.Option(help=SIZE, show_default="as geco train takes them")] = None,
    seed: Annotated[int, typer.Option(help="Of what the data set draws at random.")] = 0,
    root: Annotated[Folder, typer.Option(help="Folder with the files of data sets that are not embedded.")] = None,
    split: Annotated[str, typer.Option(help="train or test.")] = "train",
    strict: Annotated[bool, typer.Option("--strict", help=STRICT)] = False,
    out: Annotated[
        Folder, typer.Option(metavar="FILE.png", help="The picture.", show_default="NAME.png, NAME-SPLIT.png")
    ] = None,
) -> int:
    """Draw a contact sheet of a data set: examples with their labels and contexts.

    geco data digits-rotate --out rotate.png
    """
    import geco_ext.data
    from geco_ext.data.contact_sheet import contact_sheet
    from geco_ext.files import replaced_when_written

    usual = (re.sub(r"[^\w.-]+", "-", name) or "data") + ("" if split == "train" else f"-{split}") + ".png"
    file = Path(usual) if out is None else out
    if file.suffix.lower() != ".png":
        raise CommandFailure(f"out must end in .png, got {file}")
    if not file.parent.is_dir():
        raise CommandFailure(f"out: {file.parent} is not a folder")
    if file.is_dir():
        raise CommandFailure(f"out: {file} is a folder, expected the name of a file")
    size = geco_ext.data.command_size(name) if size is None else size
    try:
        dataset = geco_ext.data.load(name, split, root, size, seed, strict=strict)
    except (ValueError, FileNotFoundError) as error:
        raise CommandFailure(str(error)) from error
    line = f"{name}, {split}: {_sizes(dataset)}"
    sheet = contact_sheet(dataset, line)
    try:
        with replaced_when_written(file) as temporary:
            sheet.save(temporary, format="png")
    except OSError as error:
        raise CommandFailure(f"out: {file} cannot be written: {error.strerror or error}") from error
    print(f"{line}; contact sheet in {file}")
    return 0


def _sizes(dataset: ImageDataset) -> str:
    """Number of examples, and shapes as channels x height x width."""
    parts = [f"{len(dataset)} examples", "images " + "x".join(map(str, dataset.image_shape))]
    if dataset.context_shape is not None:
        parts.append("contexts " + "x".join(map(str, dataset.context_shape)))
    return ", ".join(parts)
