"""Crops of scikit-learn's two sample photographs: natural image statistics without a download."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from geco_ext.data.images import ImageDataset
from geco_ext.data.request import Request
from geco_ext.data.resize import prepare

PHOTOGRAPHS = ("china.jpg", "flower.jpg")  # 427 x 640 pixels each; the label is the index of the photograph
NATIVE_SIZE = 32
EXAMPLES = {"train": 4096, "test": 1024}
TRAINING_COLUMNS = 0.8  # left of this share of the width is for training, right of it for testing: no shared pixel


def load_patches(request: Request) -> ImageDataset:
    """Square crops at random positions drawn from ``seed``; ``size`` is the side of a crop, nothing is resized.

    Raises:
        ValueError: ``size`` larger than the part of the photographs that the split may use.
    """
    from sklearn.datasets import load_sample_image

    size = NATIVE_SIZE if request.size is None else request.size
    random = request.random("patches")
    count = EXAMPLES[request.split] // len(PHOTOGRAPHS)
    crops = []
    for name in PHOTOGRAPHS:
        photograph = torch.from_numpy(np.asarray(load_sample_image(name)).copy()).permute(2, 0, 1)
        crops.append(_random_crops(_part(photograph, request.split), size, count, random))
    images = prepare(torch.cat(crops), request)
    labels = torch.arange(len(PHOTOGRAPHS)).repeat_interleave(count)
    return ImageDataset(images, labels, class_names=[name.removesuffix(".jpg") for name in PHOTOGRAPHS])


def _part(photograph: Tensor, split: str) -> Tensor:
    border = int(TRAINING_COLUMNS * photograph.shape[-1])
    return photograph[..., :border] if split == "train" else photograph[..., border:]


def _random_crops(photograph: Tensor, size: int, count: int, random: np.random.RandomState) -> Tensor:
    height, width = photograph.shape[-2:]
    if size > min(height, width):
        raise ValueError(f"size must be at most {min(height, width)} for this split of 'patches', got {size}")
    windows = photograph.unfold(1, size, 1).unfold(2, size, 1)  # [C, rows, columns, size, size], a view
    rows = torch.from_numpy(random.randint(windows.shape[1], size=count))
    columns = torch.from_numpy(random.randint(windows.shape[2], size=count))
    return windows[:, rows, columns].transpose(0, 1)
