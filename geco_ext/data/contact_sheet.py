"""One picture of a data set: some of its examples with contexts and labels."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from geco_ext.data.images import ImageDataset

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont, ImageFont

EXAMPLES = 64
SMALLEST_TILE = 48  # pixels a side: smaller images are enlarged by a whole factor so that they can be seen
WIDTH = 1200
MARGIN, LINE = 8, 16
BACKGROUND, INK = (255, 255, 255), (0, 0, 0)
IMAGE_FRAME, CONTEXT_FRAME = (220, 120, 0), (0, 110, 200)


def contact_sheet(dataset: ImageDataset, title: str) -> Image:
    """Up to 64 examples at equal distances through the data set, each with its context before it and label below.

    Example:
        >>> import geco_ext.data
        >>> contact_sheet(geco_ext.data.load("digits-sum"), "digits-sum").size[0]
        1200
    """
    from PIL import Image, ImageDraw, ImageFont

    indices = torch.linspace(0, len(dataset) - 1, min(EXAMPLES, len(dataset))).round().to(torch.int64)
    cells = [_cell(dataset[int(index)], stacked=dataset.labels.dim() == 2) for index in indices]
    labels = [dataset.class_name(dataset.labels[index].tolist()) for index in indices]
    font = ImageFont.load_default(size=12)
    width = max(cells[0].width, *(math.ceil(font.getlength(label)) for label in labels)) + MARGIN
    height = cells[0].height + LINE + MARGIN
    columns = max(1, (WIDTH - MARGIN) // width)
    header = 2 * MARGIN + LINE
    sheet_size = (max(WIDTH, width + MARGIN), header + height * math.ceil(len(cells) / columns))
    sheet = Image.new("RGB", sheet_size, BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    _draw_title(draw, title, dataset, font)
    for number, (cell, label) in enumerate(zip(cells, labels, strict=True)):
        row, column = divmod(number, columns)
        left, top = MARGIN + column * width, header + row * height
        sheet.paste(cell, (left, top))
        draw.text((left, top + cell.height + 1), label, INK, font)
    return sheet


def _draw_title(draw: Any, title: str, dataset: ImageDataset, font: FreeTypeFont | ImageFont) -> None:
    draw.text((MARGIN, MARGIN), title, INK, font)
    if dataset.context_shape is not None:
        left = MARGIN + font.getlength(title + "    ")
        draw.text((left, MARGIN), "context", CONTEXT_FRAME, font)
        draw.text((left + font.getlength("context  "), MARGIN), "image", IMAGE_FRAME, font)


def _cell(item: dict[str, Any], stacked: bool) -> Image:
    """Context and image side by side; the digits of a stack are images of their own, not colours."""
    tiles = [_tile(each, CONTEXT_FRAME) for each in _pictures(item["context"], stacked)] if "context" in item else []
    tiles += [_tile(each, IMAGE_FRAME) for each in _pictures(item["x"], stacked)]
    from PIL import Image

    return Image.fromarray(np.concatenate(tiles, axis=1))


def _pictures(image: Tensor, stacked: bool) -> list[Tensor]:
    """An image [C, H, W] as RGB images [3, H, W]."""
    if len(image) == 3 and not stacked:
        return [image]
    return [channel.expand(3, -1, -1) for channel in image]


def _tile(image: Tensor, frame: tuple[int, int, int]) -> np.ndarray:
    enlarge = max(1, math.ceil(SMALLEST_TILE / min(image.shape[1:])))
    values = image.clamp(0, 1).mul(255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    pixels = values.repeat(enlarge, axis=0).repeat(enlarge, axis=1)
    framed = np.empty((pixels.shape[0] + 2, pixels.shape[1] + 2, 3), dtype=np.uint8)
    framed[:] = frame
    framed[1:-1, 1:-1] = pixels
    return framed
