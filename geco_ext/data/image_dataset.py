"""The one data set class: images, labels and contexts, taken one by one or in batches."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, SupportsIndex

import torch
from torch import Tensor
from torch.utils.data import Dataset

from geco_ext.data.stored_images import StoredImages


class ImageDataset(Dataset[dict[str, Any]]):
    """Images with labels, and contexts where a model is conditional.

    An integer index gives one example; a tensor or list of indices, a mask, or a slice, gives a batch in one
    operation, which for small images is many times faster than collating examples one by one.

    Args:
        images: float32 ``[N, C, H, W]`` in [0, 1], uint8, or another way of keeping images.
        labels: integers ``[N]``, or ``[N, K]`` where an example carries K labels.
        contexts: what a conditional model is given, like ``images``, or None.

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

    def __init__(
        self, images: Tensor | StoredImages, labels: Tensor, contexts: Tensor | StoredImages | None = None
    ) -> None:
        super().__init__()
        self._images = images if isinstance(images, StoredImages) else StoredImages(images)
        count = len(self._images)
        if labels.dim() not in (1, 2) or len(labels) != count or labels.is_floating_point():
            raise ValueError(
                f"labels must be integers of shape [{count}] or [{count}, K], "
                f"got {labels.dtype} of shape {list(labels.shape)}"
            )
        self.labels = labels.to(torch.int64).contiguous()
        self._contexts = contexts if contexts is None or isinstance(contexts, StoredImages) else StoredImages(contexts)
        if self._contexts is not None and len(self._contexts) != count:
            raise ValueError(f"contexts must be {count}, as many as images, got {len(self._contexts)}")

    @property
    def images(self) -> Tensor:
        """All images, float32 ``[N, C, H, W]``; made anew where they are kept in another form."""
        return self._images.all()

    @property
    def contexts(self) -> Tensor | None:
        """All contexts, float32 ``[N, C', H, W]``, None where there are none."""
        return None if self._contexts is None else self._contexts.all()

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """``(channels, height, width)`` of an image."""
        return self._images.shape

    @property
    def context_shape(self) -> tuple[int, int, int] | None:
        """``(channels, height, width)`` of a context, None where there is none."""
        return None if self._contexts is None else self._contexts.shape

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: SupportsIndex | slice | Sequence[int] | Tensor) -> dict[str, Any]:
        if isinstance(index, SupportsIndex) and not (isinstance(index, Tensor) and index.dim()):
            batch = self._batch(torch.tensor([self._position(operator.index(index))]))
            label = batch["label"][0].tolist()
            return {name: value[0] for name, value in batch.items()} | {
                "label": tuple(label) if isinstance(label, list) else label
            }
        if isinstance(index, slice):
            return self._batch(torch.arange(len(self))[index] if (index.step or 1) > 0 else self._reversed(index))
        return self._batch(self._positions(torch.as_tensor(index)))

    def _batch(self, indices: Tensor) -> dict[str, Tensor]:
        batch = {"x": self._images.take(indices), "label": self.labels.index_select(0, indices)}
        if self._contexts is not None:
            batch["context"] = self._contexts.take(indices)
        return batch

    def _position(self, index: int) -> int:
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} is out of range for {len(self)} examples")
        return index % len(self)

    def _positions(self, indices: Tensor) -> Tensor:
        """Indices ``[B]``, which may count from the end, or a mask ``[N]``, as positions."""
        if indices.dtype == torch.bool:
            return indices.nonzero().squeeze(1)
        indices = indices.to(torch.int64)
        low, high = indices.aminmax() if len(indices) else (0, 0)
        if low < 0:
            self._position(int(low))
            indices = torch.where(indices < 0, indices + len(self), indices)
        if len(indices):
            self._position(int(high))
        return indices

    def _reversed(self, index: slice) -> Tensor:
        return torch.tensor(range(len(self))[index], dtype=torch.int64)  # torch has no slices of negative step

    def __repr__(self) -> str:
        context = "" if self.context_shape is None else f", context_shape={self.context_shape}"
        return f"{type(self).__name__}({len(self)} images, image_shape={self.image_shape}{context})"
