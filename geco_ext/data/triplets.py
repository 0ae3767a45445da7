"""Triplets of digits whose labels are related."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from geco_ext.data.random_stream import random_stream
from geco_ext.data.request import Request

CLASSES = 10
Relation = Literal["sum", "same"]


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
    random = random_stream(request.seed, request.split, "triplets")
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
