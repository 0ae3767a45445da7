"""Scikit-learn's handwritten digits: 1797 images of 8x8 pixels, embedded in the package."""

from __future__ import annotations

import torch
from torch import Tensor

from geco_ext.data.images import ImageDataset
from geco_ext.data.request import Request
from geco_ext.data.resize import prepare

TRAINING_EXAMPLES = 1500  # the first 1500 train, the other 297 test: fixed, so results can be compared
GREY_LEVELS = 16


def load_digits(request: Request) -> ImageDataset:
    """The digits in the order scikit-learn gives them; ``size=None`` is 8x8."""
    return ImageDataset(*read_digits(request))


def read_digits(request: Request) -> tuple[Tensor, Tensor]:
    """Images ``[N, 1, H, W]`` and labels ``[N]``."""
    from sklearn.datasets import load_digits as read

    digits = read()
    chosen = slice(None, TRAINING_EXAMPLES) if request.split == "train" else slice(TRAINING_EXAMPLES, None)
    images = torch.from_numpy(digits.images[chosen]).to(torch.float32).div_(GREY_LEVELS).unsqueeze(1)
    return prepare(images, request), torch.from_numpy(digits.target[chosen])
