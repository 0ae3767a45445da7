"""The one data set class: images, labels and contexts, taken one by one or in batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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

    def __getitem__(self, index: int | slice | Sequence[int] | Tensor) -> dict[str, Any]:
        if isinstance(index, slice):
            return self._batch(torch.tensor(range(len(self))[index], dtype=torch.int64))
        indices = torch.as_tensor(index)
        if indices.dim():
            return self._batch(self._positions(indices))
        return self.__getitems__(indices.reshape(1))[0]

    def __getitems__(self, index: Sequence[int] | Tensor) -> list[dict[str, Any]]:
        """Single examples, gathered in one operation; what a DataLoader asks for before it collates them."""
        batch = self._batch(self._positions(torch.as_tensor(index)))
        labels = [tuple(label) if isinstance(label, list) else label for label in batch["label"].tolist()]
        names = [name for name in batch if name != "label"]
        columns = [batch[name].unbind() for name in names]
        return [
            dict(zip(names, example, strict=True)) | {"label": label}
            for *example, label in zip(*columns, labels, strict=True)
        ]

    def _batch(self, indices: Tensor) -> dict[str, Tensor]:
        batch = {"x": self._images.take(indices), "label": self.labels.index_select(0, indices)}
        if self._contexts is not None:
            batch["context"] = self._contexts.take(indices)
        return batch

    def _positions(self, indices: Tensor) -> Tensor:
        """Indices ``[B]``, which may count from the end, or a mask ``[N]``, as positions."""
        if indices.dtype == torch.bool and len(indices) == len(self):
            return indices.nonzero().squeeze(1)
        if indices.numel() == 0:
            return torch.empty(0, dtype=torch.int64)
        if indices.is_floating_point() or indices.dtype == torch.bool or indices.dim() != 1:
            raise TypeError(
                f"an index must be an integer, integers [B] or a mask [{len(self)}], "
                f"got {indices.dtype} of shape {list(indices.shape)}"
            )
        indices = indices.to(torch.int64)
        low, high = (int(extreme) for extreme in indices.aminmax())
        if low < -len(self) or high >= len(self):
            raise IndexError(f"index {low if low < -len(self) else high} is out of range for {len(self)} examples")
        return torch.where(indices < 0, indices + len(self), indices) if low < 0 else indices

    def __repr__(self) -> str:
        context = "" if self.context_shape is None else f", context_shape={self.context_shape}"
        return f"{type(self).__name__}({len(self)} images, image_shape={self.image_shape}{context})"
