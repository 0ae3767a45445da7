"""Images with labels and contexts, taken one by one or in batches, and how they are kept in memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset


class ImageDataset(Dataset[dict[str, Any]]):
    """Images with labels, and contexts where a model is conditional.

    An integer index gives one example; a tensor or list of indices, a mask, or a slice, gives a batch in one
    operation, which for small images is many times faster than collating examples one by one.

    Args:
        images: float32 ``[N, C, H, W]`` in [0, 1], uint8, or another way of keeping images.
        labels: integers ``[N]``, or ``[N, K]`` where an example carries K labels.
        contexts: what a conditional model is given, like ``images``, or None.
        has_missing: NaN among the images marks pixels that are not known. They are 0 in ``x``, and an example has a
            ``weight`` besides, bool like ``x``, that is false for them.
        class_names: what label 0, 1, ... stands for, where that has a name.
        names: of the examples, where they have any.

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
        self,
        images: Tensor | StoredImages,
        labels: Tensor,
        contexts: Tensor | StoredImages | None = None,
        has_missing: bool = False,
        class_names: Sequence[str] = (),
        names: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.class_names = tuple(class_names)
        self.names = tuple(names)
        self.has_missing = has_missing
        self._images = images if isinstance(images, StoredImages) else StoredImages(images)
        count = len(self._images)
        if labels.dim() not in (1, 2) or len(labels) != count or labels.is_floating_point():
            raise ValueError(
                f"labels must be integers of shape [{count}] or [{count}, K], "
                f"got {labels.dtype} of shape {list(labels.shape)}"
            )
        if self.names and len(self.names) != count:
            raise ValueError(f"names must be {count}, as many as images, got {len(self.names)}")
        self.labels = labels.to(torch.int64).contiguous()
        self._contexts = contexts if contexts is None or isinstance(contexts, StoredImages) else StoredImages(contexts)
        if self._contexts is not None and len(self._contexts) != count:
            raise ValueError(f"contexts must be {count}, as many as images, got {len(self._contexts)}")

    @property
    def images(self) -> Tensor:
        """All images, float32 ``[N, C, H, W]``; made anew where they are kept in another form. Missing pixels are 0."""
        images = self._images.all()
        return images.nan_to_num(0.0) if self.has_missing else images

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

    def class_name(self, label: int | Sequence[int]) -> str:
        """A label of an example in words: the name of its class, or its number; of several, all of them."""
        if not isinstance(label, int):
            return ", ".join(map(self.class_name, label))
        return self.class_names[label] if label < len(self.class_names) else str(label)

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
        if self.has_missing:
            batch["weight"] = ~batch["x"].isnan()
            batch["x"] = batch["x"].nan_to_num(0.0)
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


class ImageSubset(ImageDataset):
    """Some of the examples of a data set, in a given order, which share its memory.

    Args:
        dataset: the data set.
        indices: int64 ``[N]``, of its examples.

    Example:
        >>> dataset = ImageDataset(torch.rand(10, 1, 8, 8), torch.arange(10))
        >>> ImageSubset(dataset, torch.tensor([7, 2]))[:]["label"]
        tensor([7, 2])
    """

    def __init__(self, dataset: ImageDataset, indices: Tensor) -> None:
        labels = dataset.labels.index_select(0, indices)
        names = [dataset.names[index] for index in indices.tolist()] if dataset.names else ()
        super().__init__(
            _ChosenImages(dataset._images, indices), labels, None, dataset.has_missing, dataset.class_names, names
        )
        if dataset._contexts is not None:
            self._contexts = _ChosenImages(dataset._contexts, indices)


class StoredImages:
    """Images in one tensor - in memory or mapped from a file - of float32 in [0, 1] or of bytes.

    With ``rows`` an image of the data set is a choice of stored ones: the same digit can stand in many triplets and
    takes its memory once.

    Args:
        pixels: float32 or uint8 ``[M, C, H, W]``.
        rows: int64 ``[N]``, the stored image that image n is, or ``[N, K]``, the K stored images whose channels it
            stacks. None: the stored images in their order.

    Example:
        >>> images = StoredImages(torch.rand(5, 1, 8, 8), torch.tensor([[0, 1, 2], [4, 4, 0]]))
        >>> len(images), images.shape, images.take(torch.tensor([1, 0, 1])).shape
        (2, (3, 8, 8), torch.Size([3, 3, 8, 8]))
    """

    def __init__(self, pixels: Tensor, rows: Tensor | None = None) -> None:
        if pixels.dim() != 4 or pixels.dtype not in (torch.float32, torch.uint8):
            raise ValueError(
                "images must be float32 (or uint8) of shape [N, C, H, W], "
                f"got {pixels.dtype} of shape {list(pixels.shape)}"
            )
        self.pixels = pixels.contiguous()
        self.rows = rows

    def __len__(self) -> int:
        return len(self.pixels if self.rows is None else self.rows)

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(channels, height, width)`` of an image."""
        channels, height, width = self.pixels.shape[1:]
        return self._stacked * channels, height, width

    @property
    def _stacked(self) -> int:
        return 1 if self.rows is None else math.prod(self.rows.shape[1:])

    def take(self, indices: Tensor) -> Tensor:
        """The images of int64 indices ``[B]`` as float32 ``[B, C, H, W]``, in one gathering of memory."""
        rows = indices if self.rows is None else self.rows.index_select(0, indices).flatten()
        channels, height, width = self.pixels.shape[1:]
        images = as_float(self.pixels.index_select(0, rows))
        return images.view(len(indices), self._stacked * channels, height, width)

    def all(self) -> Tensor:
        """All images as float32 ``[N, C, H, W]``: the store itself where it holds just that, else made anew."""
        if self.rows is None and self.pixels.dtype == torch.float32:
            return self.pixels
        return self.take(torch.arange(len(self)))


class _ChosenImages(StoredImages):
    """Some of the images that are kept in whatever way."""

    def __init__(self, images: StoredImages, indices: Tensor) -> None:
        self.chosen_from = images
        self.indices = indices

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of an image."""
        return self.chosen_from.shape

    def take(self, indices: Tensor) -> Tensor:
        """The images of int64 indices ``[B]``."""
        return self.chosen_from.take(self.indices.index_select(0, indices))

    def all(self) -> Tensor:
        """All images, made anew."""
        return self.chosen_from.take(self.indices)


class ColouredImages(StoredImages):
    """Grey images, each in a colour of its own: white becomes the colour, black stays.

    Args:
        pixels: float32 or uint8 ``[N, 1, H, W]``.
        colours: float32 ``[N, 3]`` in [0, 1].
    """

    def __init__(self, pixels: Tensor, colours: Tensor) -> None:
        super().__init__(pixels)
        self.colours = colours

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(3, height, width)``."""
        return 3, *self.pixels.shape[2:]

    def take(self, indices: Tensor) -> Tensor:
        """The images of int64 indices ``[B]`` as float32 ``[B, 3, H, W]``."""
        return super().take(indices) * self.colours.index_select(0, indices)[:, :, None, None]

    def all(self) -> Tensor:
        """All images as float32 ``[N, 3, H, W]``, made anew."""
        return self.take(torch.arange(len(self)))


def as_float(pixels: Tensor) -> Tensor:
    """Values in [0, 1]: bytes divided by 255, float32 as it is."""
    return pixels.to(torch.float32).div_(255) if pixels.dtype == torch.uint8 else pixels


def as_bytes(pixels: Tensor) -> Tensor:
    """The nearest of the 256 levels; bytes as they are."""
    return pixels if pixels.dtype == torch.uint8 else pixels.mul(255).round_().to(torch.uint8)
