"""The paper's variants of a set of digits (Section 4 and Appendix E.1), from ``digits`` or ``mnist``.

They are drawn from the seed, within the split of their source: no digit of the test images is seen in training.
Triplets keep each digit once, and a batch gathers what it needs.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from geco_ext.data.image_dataset import ImageDataset
from geco_ext.data.random_stream import random_stream
from geco_ext.data.request import Request
from geco_ext.data.resize import CHUNK
from geco_ext.data.rotate import rotate
from geco_ext.data.stored_images import ColouredImages, StoredImages, as_bytes, as_float
from geco_ext.data.triplets import draw_triplets

DigitSource = Callable[[Request], tuple[Tensor, Tensor]]
"""Gives images ``[N, 1, H, W]`` and labels ``[N]``."""

MICRO_EXAMPLES = 7
COLOUR_MEAN, COLOUR_STD = 0.5, 0.25


def colored(source: DigitSource, request: Request) -> ImageDataset:
    """``color-D``: each digit in one colour of its own on black, ``[3, H, W]``; the label is the digit's.

    Source: the paper takes Color-MNIST from Metz et al., "Unrolled generative adversarial networks" (ICLR 2017),
    whose coloured digits are I C + (I - 1) in [-1, 1] with a colour C drawn from N(0, 0.5^2) for each image and
    channel. In [0, 1] that is I times a colour from N(0.5, 0.25^2), here clipped to [0, 1]. Their pixel noise, of
    0.1 in [0, 1], is left out: it alone would exceed the paper's kappa of 0.06.
    """
    pixels, labels = source(request)
    random = random_stream(request.seed, request.split, "colours")
    colours = torch.from_numpy(random.standard_normal((len(pixels), 3))).mul_(COLOUR_STD).add_(COLOUR_MEAN).clamp_(0, 1)
    return ImageDataset(ColouredImages(pixels, colours.to(torch.float32)), labels)


def triplets(source: DigitSource, request: Request) -> ImageDataset:
    """``D-triplets``: I0, I1, I2 as channels ``[3, H, W]``, l2 = (l0 + l1) mod 10; labels (l0, l1, l2)."""
    pixels, labels = source(request)
    rows = draw_triplets(labels, "sum", request)
    return ImageDataset(StoredImages(pixels, rows), labels[rows])


def summed(source: DigitSource, request: Request) -> ImageDataset:
    """``D-sum``: I2 given the context I0, I1, with l2 = (l0 + l1) mod 10; labels (l0, l1, l2)."""
    pixels, labels = source(request)
    rows = draw_triplets(labels, "sum", request)
    return ImageDataset(StoredImages(pixels, rows[:, 2:]), labels[rows], StoredImages(pixels, rows[:, :2]))


def summed_hard(source: DigitSource, request: Request) -> ImageDataset:
    """``D-sum-hard``: I0, I1 given the context I2, with l2 = (l0 + l1) mod 10; labels (l0, l1, l2)."""
    pixels, labels = source(request)
    rows = draw_triplets(labels, "sum", request)
    return ImageDataset(StoredImages(pixels, rows[:, :2]), labels[rows], StoredImages(pixels, rows[:, 2:]))


def rotated(source: DigitSource, request: Request) -> ImageDataset:
    """``D-rotate``: another digit I2 of I0's label, turned by l1 * 30 degrees, given I0, I1; labels (l0, l1, l2).

    l2 = l0, and I2 is never I0 itself.
    """
    pixels, labels = source(request)
    rows = draw_triplets(labels, "same", request)
    turned = torch.empty_like(pixels)
    for chosen, target in zip(rows.split(CHUNK), turned.split(CHUNK), strict=True):
        images = rotate(as_float(pixels[chosen[:, 2]]), labels[chosen[:, 1]])
        target.copy_(images if pixels.dtype == torch.float32 else as_bytes(images))
    return ImageDataset(turned, labels[rows], StoredImages(pixels, rows[:, :2]))


def micro(source: DigitSource, request: Request) -> ImageDataset:
    """``micro-D``: 7 random digits (Appendix E.1)."""
    pixels, labels = source(request)
    if len(pixels) < MICRO_EXAMPLES:
        raise ValueError(f"the {request.split!r} split has {len(pixels)} digits, expected at least {MICRO_EXAMPLES}")
    random = random_stream(request.seed, request.split, "micro")
    rows = torch.from_numpy(random.permutation(len(pixels))[:MICRO_EXAMPLES])
    return ImageDataset(pixels[rows], labels[rows])


VARIANTS: dict[str, Callable[[DigitSource, Request], ImageDataset]] = {
    "color-{}": colored,
    "{}-triplets": triplets,
    "{}-sum": summed,
    "{}-sum-hard": summed_hard,
    "{}-rotate": rotated,
    "micro-{}": micro,
}
"""What makes each variant, by its name with ``{}`` for that of the source."""
