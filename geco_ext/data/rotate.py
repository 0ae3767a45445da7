from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

DEGREES_A_LABEL = 30


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
