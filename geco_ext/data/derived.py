"""The paper's variants of a set of digits (Section 4 and Appendix E.1), from ``digits`` or ``mnist``.

They are drawn from the seed, within the split of their source: no digit of the test images is seen in training.
Triplets keep each digit once, and a batch gathers what it needs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from geco_ext.data.images import ColouredImages, ImageDataset, StoredImages, as_bytes, as_float
from geco_ext.data.request import Request
from geco_ext.data.resize import CHUNK

DigitSource = Callable[[Request], tuple[Tensor, Tensor]]
"""Gives images ``[N, 1, H, W]`` and labels ``[N]``."""

MICRO_EXAMPLES = 7
COLOUR_MEAN, COLOUR_STD = 0.5, 0.25
DEGREES_A_LABEL = 30
CLASSES = 10
Relation = Literal["sum", "same"]


def colored(source: DigitSource, request: Request) -> ImageDataset:
    """``color-D``: each digit in one colour of its own on black, ``[3, H, W]``; the label is the digit's.

    Source: the paper takes Color-MNIST from Metz et al., "Unrolled generative adversarial networks" (ICLR 2017),
    whose coloured digits are I C + (I - 1) in [-1, 1] with a colour C drawn from N(0, 0.5^2) for each image and
    channel. In [0, 1] that is I times a colour from N(0.5, 0.25^2), here clipped to [0, 1]. Their pixel noise, of
    0.1 in [0, 1], is left out: it alone would exceed the paper's kappa of 0.06.
    """
    pixels, labels = source(request)
    random = request.random("colours")
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
    random = request.random("micro")
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


def draw_triplets(labels: Tensor, relation: Relation, request: Request) -> Tensor:
    """Rows ``[N, 3]`` of digits (I0, I1, I2), as many as there are labels.

    Each digit is I0 in one triplet and I1 in one, in random order. I2 is drawn among all of label
    ``(l0 + l1) mod 10`` ("sum"), or among all others than I0 of label ``l0`` ("same").

    Raises:
        ValueError: too few digits of a label to draw from.
    """
    classes = labels.numpy()
    counts = np.bincount(classes, minlength=CLASSES)
    needed = 1 if relation == "sum" else 2
    if counts.min() < needed:
        raise ValueError(
            f"triplets need at least {needed} digits of each label, but the {request.split!r} split has "
            f"{counts.min()} of {counts.argmin()}"
        )
    # Both relations draw the same triplets up to I2, so that D-sum and D-sum-hard hold the same digits as D-triplets.
    random = request.random("triplets")
    first, second = random.permutation(len(classes)), random.permutation(len(classes))
    shares = random.random_sample(len(classes))
    by_class = np.argsort(classes, kind="stable")
    start = np.cumsum(counts) - counts
    if relation == "sum":
        wanted = (classes[first] + classes[second]) % CLASSES
        third = by_class[start[wanted] + (shares * counts[wanted]).astype(np.int64)]
    else:
        wanted = classes[first]
        rank = np.argsort(by_class)[first] - start[wanted]  # of I0 among the digits of its label
        other = (shares * (counts[wanted] - 1)).astype(np.int64)
        third = by_class[start[wanted] + other + (other >= rank)]  # leaving I0 out
    return torch.from_numpy(np.stack([first, second, third], axis=1))


def rotate(images: Tensor, labels: Tensor) -> Tensor:
    """Square images ``[N, C, H, H]`` turned about their centre by ``labels * 30`` degrees counter-clockwise.

    Bilinear; the images continue as zeros outside their borders. Coordinates are in float64, so that multiples of 90
    degrees only move pixels.

    Example:
        >>> corner = torch.zeros(1, 1, 3, 3)
        >>> corner[..., 0, 2] = 1  # top right
        >>> rotate(corner, torch.tensor([3]))[0, 0].tolist()  # top left
        [[1.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    """
    # Rows count downwards, so this matrix, which leads from a pixel of the result to its place in the source, turns
    # clockwise on the screen. Rounded, because sines of multiples of pi are not quite 0.
    degrees = [int(label) * DEGREES_A_LABEL for label in range(int(labels.max()) + 1)]
    turns = [(round(math.cos(math.radians(d)), 15), round(math.sin(math.radians(d)), 15)) for d in degrees]
    matrices = torch.tensor([[[c, -s, 0.0], [s, c, 0.0]] for c, s in turns], dtype=torch.float64)
    grid = F.affine_grid(matrices[labels], list(images.shape), align_corners=True)
    turned = F.grid_sample(images.double(), grid, mode="bilinear", padding_mode="zeros", align_corners=True)
    return turned.to(images.dtype).clamp_(0, 1)
