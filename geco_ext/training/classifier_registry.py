"""Names of the classifiers that can be trained. A new one is one more entry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Protocol, cast

from torch import Tensor, nn

CLASSIFIERS = {"conv": "ConvolutionalClassifier", "resnet": "ResNet"}
"""Class of each in `geco_ext.models`."""


class Classifier(Protocol):
    """What the constraints need of a classifier, a module that maps images [B, C, H, W] to logits [B, classes]."""

    image_shape: tuple[int, int, int]
    classes: int

    def features(self) -> nn.Module:
        """The layers that give the features of FRE: images [B, C, H, W] -> a feature map [B, F, H', W']."""

    def __call__(self, x: Tensor) -> Tensor:
        """Logits."""


def build_classifier(
    name: str, image_shape: Sequence[int], classes: int, options: Mapping[str, int] | None = None
) -> nn.Module:
    """A freshly initialised :class:`Classifier` for images of ``image_shape`` (C, H, W).

    Raises:
        ValueError: an unknown name (the message lists the known ones) or option, or a value that the class refuses.

    Example:
        >>> build_classifier("resnet", (3, 32, 32), classes=10).classes
        10
    """
    if name not in CLASSIFIERS:
        raise ValueError(f"unknown classifier {name!r}; known are {', '.join(CLASSIFIERS)}")
    try:
        network = getattr(import_module("geco_ext.models"), CLASSIFIERS[name])(image_shape, classes, **(options or {}))
    except TypeError as error:
        raise ValueError(f"classifier {name!r} refuses its options: {error}") from error
    return cast(nn.Module, network)
