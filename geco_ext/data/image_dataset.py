"""The one data set class: images, labels and contexts held in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset


class ImageDataset(Dataset[dict[str, Any]]):
    """Images with labels, and contexts where a model is conditional, kept as whole tensors.

    An integer index gives one example; a tensor or list of indices, or a slice, gives a batch in one indexing
    operation, which for small images is many times faster than collating examples one by one.

    Args:
        images: float32 ``[N, C, H, W]`` in [0, 1].
        labels: integers ``[N]``, or ``[N, K]`` where an example carries K labels.
        contexts: float32 ``[N, C', H, W]`` that a conditional model is given, or None.

    Raises:
        ValueError: shapes or types that differ from the above.

    Example:
        >>> import torch
        >>> dataset = ImageDataset(torch.rand(10, 1, 8, 8), torch.arange(10))
        >>> dataset[3]["x"].shape, dataset[3]["label"]
        (torch.Size([1, 8, 8]), 3)
        >>> dataset[torch.tensor([0, 2])]["x"].shape
        torch.Size([2, 1, 8, 8])
    """

    def __init__(self, images: Tensor, labels: Tensor, contexts: Tensor | None = None) -> None:
        super().__init__()
        if images.dim() != 4 or images.dtype != torch.float32:
            raise ValueError(
                f"images must be float32 of shape [N, C, H, W], got {images.dtype} of shape {list(images.shape)}"
            )
        if labels.dim() not in (1, 2) or len(labels) != len(images) or labels.is_floating_point():
            raise ValueError(
                f"labels must be integers of shape [{len(images)}] or [{len(images)}, K], "
                f"got {labels.dtype} of shape {list(labels.shape)}"
            )
        if contexts is not None and (contexts.dim() != 4 or len(contexts) != len(images)):
            raise ValueError(f"contexts must have shape [{len(images)}, C', H, W], got {list(contexts.shape)}")
        self.images = images.contiguous()
        self.labels = labels.to(torch.int64).contiguous()
        self.contexts = None if contexts is None else contexts.contiguous()

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """``(channels, height, width)`` of an image."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    @property
    def context_shape(self) -> tuple[int, int, int] | None:
        """``(channels, height, width)`` of a context, None where there is none."""
        if self.contexts is None:
            return None
        channels, height, width = self.contexts.shape[1:]
        return channels, height, width

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int | slice | Sequence[int] | Tensor) -> dict[str, Any]:
        item: dict[str, Any] = {"x": self.images[index], "label": self.labels[index]}
        if self.contexts is not None:
            item["context"] = self.contexts[index]
        if isinstance(index, int):
            label = item["label"].tolist()
            item["label"] = tuple(label) if isinstance(label, list) else label
        return item

    def __repr__(self) -> str:
        context = "" if self.contexts is None else f", context_shape={self.context_shape}"
        return f"{type(self).__name__}({len(self)} images, image_shape={self.image_shape}{context})"
