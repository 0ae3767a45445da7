"""Images in rows, as one picture with a title, a name for each row, and what stands over each column."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from geco_ext.files import replaced_when_written

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = 16
PIXELS_PER_INCH = 100
LARGEST_SIDE = 2**16 - 1
"""Pixels a side that matplotlib can draw."""
SMALLEST_TILE = 48
"""Pixels a side: smaller images are enlarged by a whole factor so that they can be seen."""

TITLE_HEIGHT, NAME_WIDTH, CAPTION_HEIGHT = 26, 112, 16
"""Pixels for the title above the images, the names of rows at their left, and the captions of a row above it."""
POINTS = 8
CHARACTER_WIDTH = 6.6
"""Pixels of a character of this size, on average."""


@dataclass(frozen=True)
class Row:
    """A row of a picture.

    Attributes:
        images: [N, C, H, W].
        name: what they are; stands at the left.
        captions: one for each image, above it; empty for none.
    """

    images: Tensor
    name: str = ""
    captions: Sequence[str] = ()


def draw_stacked(
    layers: Sequence[Tensor],
    file: Path,
    title: str = "",
    names: Sequence[str] = (),
    captions: Sequence[str] | None = None,
) -> None:
    """Rows of the first layer [N, C, H, W], each with its rows of the others, such as reconstructions, below.

    Layers may differ in channels; narrower images stand at the left of their columns.

    Args:
        layers: the images.
        file: PNG.
        title: of the picture.
        names: of the layers, at the left of their rows.
        captions: one for each of the N columns, such as its class.

    Raises:
        ValueError: a picture too large to be drawn.
    """
    rows = []
    for first in range(0, len(layers[0]), COLUMNS):
        of_columns = () if captions is None else captions[first : first + COLUMNS]
        for index, layer in enumerate(layers):
            name = names[index] if names else ""
            rows.append(Row(layer[first : first + COLUMNS], name, of_columns if index == 0 else ()))
    _draw_rows(rows, file, title)


def _draw_rows(rows: Sequence[Row], file: Path, title: str) -> None:
    from matplotlib.figure import Figure

    enlarge = max(1, math.ceil(SMALLEST_TILE / rows[0].images.shape[-1]))
    tiles = [_tile_shape(row.images, enlarge) for row in rows]
    column = max(width for _, width in tiles)
    left, top = NAME_WIDTH if any(row.name for row in rows) else 0, TITLE_HEIGHT if title else 0
    width = max(left + column * max(len(row.images) for row in rows), math.ceil((len(title) + 1) * CHARACTER_WIDTH))
    height = top + sum(
        tall + (CAPTION_HEIGHT if row.captions else 0) for row, (tall, _) in zip(rows, tiles, strict=True)
    )
    if max(height, width) > LARGEST_SIDE:
        raise ValueError(f"the picture would have {width}x{height} pixels, at most {LARGEST_SIDE} a side can be drawn")

    picture = torch.ones(height, width, 3)
    figure = Figure(figsize=(width / PIXELS_PER_INCH, height / PIXELS_PER_INCH), dpi=PIXELS_PER_INCH)

    def write(x: float, y: float, text: str, side: str) -> None:
        if not text:
            return
        place: dict[str, Any] = {"ha": side, "va": "center", "fontsize": POINTS, "parse_math": False}
        figure.text(x / width, 1 - y / height, text, **place)

    write(4, TITLE_HEIGHT / 2, title, "left")
    for row, (tall, _) in zip(rows, tiles, strict=True):
        for index, caption in enumerate(row.captions):
            most = int(column / CHARACTER_WIDTH)
            write(left + (index + 0.5) * column, top + CAPTION_HEIGHT / 2, caption[:most], "center")
        top += CAPTION_HEIGHT if row.captions else 0
        write(left - 6, top + tall / 2, row.name, "right")
        for index, image in enumerate(row.images):
            framed = _framed(image, enlarge)
            x = left + index * column
            picture[top : top + tall, x : x + framed.shape[1]] = framed
        top += tall
    figure.figimage(picture.numpy())
    save_figure(figure, file)


def _tile_shape(images: Tensor, enlarge: int) -> tuple[int, int]:
    """Height and width in pixels of a framed one of images [N, C, H, W]."""
    channels, height, width = images.shape[1:]
    return enlarge * height + 2, enlarge * width * (1 if channels == 3 else channels) + 2


def _framed(image: Tensor, enlarge: int) -> Tensor:
    """[C, H, W] as RGB [H', W', 3] with a white frame; channels that are no colours stand side by side."""
    channels = image.detach().float().cpu().clamp(0, 1).nan_to_num(0)
    if len(channels) != 3:
        channels = torch.cat(list(channels), dim=1).expand(3, -1, -1)
    enlarged = channels.repeat_interleave(enlarge, dim=1).repeat_interleave(enlarge, dim=2)
    return torch.nn.functional.pad(enlarged, (1, 1, 1, 1), value=1.0).permute(1, 2, 0)


def save_figure(figure: Figure, file: Path) -> None:
    """As PNG, whole or not at all."""
    with replaced_when_written(file) as temporary:
        figure.savefig(temporary, format="png", dpi=PIXELS_PER_INCH)
